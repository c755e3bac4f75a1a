"""The table of options: what there is on the command line and in the environment, and what is refused by name.

To add an option, add its field to ``Settings`` and one row to ``OPTIONS``;
``--help``, the environment variable and the checks follow from the row, and a test tells what
``docs/operations.md`` lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from clasp_relay.logs.levels import LOG_FORMATS, LOG_LEVELS
from clasp_relay.setting_kinds import Kind, Networks, OriginList, OrNone
from clasp_relay.settings import Settings, kinds

__all__ = ["DEFAULTS", "NOT_SUPPORTED", "OPTIONS", "Option", "variable_of"]

DEFAULTS: Mapping[str, object] = {field.name: field.default for field in fields(Settings)}
"""The default of every field of ``Settings``."""

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


def variable_of(name: str) -> str:
    """Returns the environment variable that stands for an option's name."""
    return "CLASP_" + name.upper().replace("-", "_")


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table.

    Args:
        name: the option without its dashes.
        field: the field of ``Settings`` that it sets.
        help: what it does.
        aliases: other names for it; one letter is a short option.
        constant: a flag (an option without a value) sets its field to this.
        default: said as the default where it is not the field's own.
    """

    name: str
    field: str
    help: str
    aliases: tuple[str, ...] = ()
    constant: object = None
    default: str | None = None

    @property
    def kind(self) -> Kind:
        """What it accepts."""
        return kinds()[self.field]

    @property
    def variable(self) -> str:
        """The environment variable that stands for it."""
        return variable_of(self.name)

    @property
    def is_flag(self) -> bool:
        """Whether it has no value."""
        return self.constant is not None

    @property
    def is_list(self) -> bool:
        """Whether it takes several values, comma-separated."""
        return isinstance(self.kind.kind if isinstance(self.kind, OrNone) else self.kind, Networks | OriginList)

    @property
    def letter(self) -> str | None:
        """Its short form."""
        return next((alias for alias in self.aliases if len(alias) == 1), None)

    @property
    def default_text(self) -> str:
        """The default as people read it; empty for a flag."""
        if self.is_flag or self.default is not None:
            return self.default or ""
        value = DEFAULTS[self.field]
        return f"{value:g}" if isinstance(value, float) else str(value)

    @property
    def described(self) -> str:
        """The help with the other long names and the default."""
        others = ", ".join(f"--{alias}" for alias in self.aliases if len(alias) > 1)
        also = f" (also {others})" if others else ""
        return f"{self.help}{also}" + (f" [default: {self.default_text}]" if self.default_text else "")

    @property
    def expected(self) -> str:
        """What it accepts, in words that end a sentence."""
        return "one of " + ", ".join(_TRUE + _FALSE) if self.is_flag else self.kind.expected

    def parse(self, text: str) -> object:
        """Reads a value; None for a flag that is off.

        Raises:
            ValueError: it is none that the option accepts.
        """
        if self.is_flag:
            if text.lower() in _FALSE:
                return None
            if text.lower() in _TRUE:
                return self.constant
            raise ValueError(text)
        value = self.kind.parse(text)
        if not self.kind.accepts(value):
            raise ValueError(text)
        return value


OPTIONS: tuple[Option, ...] = (
    Option("port", "port", "port of the WebSocket; 0 takes any free one", aliases=("p", "ws-port")),
    Option("auth-port", "auth_port", "port of the auth server; 0 for none: open mode, for a trusted network"),
    Option("host", "host", "address to listen on, for both"),
    Option(
        "endpoint",
        "endpoint",
        "Twisted endpoint string of the WebSocket, instead of --port, --host and TLS",
        default="",
    ),
    Option("auth-endpoint", "auth_endpoint", "the same for the auth server", default=""),
    Option("tls-cert", "tls_cert", "PEM file of the certificate and its chain: wss and https", default=""),
    Option("tls-key", "tls_key", "PEM file of the certificate's key", default=""),
    Option("trusted-proxy", "trusted_proxies", "networks whose X-Forwarded-For is believed", default=""),
    Option("cors-origin", "cors_origins", "origins of the web pages that may talk to it", default="every origin"),
    Option("data-dir", "data_dir", "folder of the relay's files; made if it is missing"),
    Option("name", "name", "the server's name, which every client is told", aliases=("n",)),
    Option("persist", "state_path", "the state file's own path", default="state.json in the data-dir"),
    Option("auth-db", "auth_db", "the users' database's own path", default="users.db in the data-dir"),
    Option("app-config", "app_config", "policy: chat, chat-compat, none or a JSON file", default="found, else chat"),
    Option("web-root", "web_root", "folder of a web app to serve, or none", default="the packaged chat"),
    Option("admin-token", "admin_token", "file of the administrator's token; made if it is missing", default=""),
    Option("token-ttl", "token_ttl_s", "seconds that a token is valid"),
    Option(
        "max-guest-tokens-per-address",
        "max_guest_tokens_per_address",
        "guests' tokens that are valid for one client address; 0 is no limit",
    ),
    Option(
        "rate-limit", "rate_limit", "messages a second of a session; 0 is no limit", default="the policy's, else 30"
    ),
    Option("persist-interval", "persist_interval_s", "seconds between two writes of the state file"),
    Option("param-ttl", "param_ttl_s", "seconds that a param lives after its last access; 0 is for ever"),
    Option("no-ttl", "param_ttl_s", "params live for ever, the same as --param-ttl 0", constant=0),
    Option("max-params", "max_params", "params held at most"),
    Option(
        "max-params-per-subject",
        "max_params_per_subject",
        "params that one user may have set, and a quarter of what one client address may; 0 is no limit",
    ),
    Option(
        "max-bytes-per-subject",
        "max_bytes_per_subject",
        "bytes that the params of one user may take, and a quarter of what one client address may; 0 is no limit",
    ),
    Option("max-state-bytes", "max_state_bytes", "bytes that all addresses and values may take together"),
    Option("max-sessions", "max_sessions", "sessions at once"),
    Option(
        "max-sessions-per-address",
        "max_sessions_per_address",
        "connections at once from one client address; 0 is no limit",
    ),
    Option("session-timeout", "session_timeout_s", "seconds after which a peer that answered nothing is given up"),
    Option("drain-timeout", "drain_timeout_s", "seconds that a stop waits for queues to empty"),
    Option("health-port", "health_port", "port of /healthz, /readyz and /metrics", default=""),
    Option("log-level", "log_level", "what is logged: " + ", ".join(LOG_LEVELS) + "; info,net=debug by part"),
    Option("log-format", "log_format", "how it is logged: " + ", ".join(LOG_FORMATS)),
    Option("config", "config_file", "TOML file of options, below the command line and the environment", default=""),
)
"""Every option, in the order in which they are documented."""

NOT_SUPPORTED: frozenset[str] = frozenset(
    {
        "artnet-port",
        "cap-max-depth",
        "cert",
        "defra-url",
        "federation-hub",
        "federation-id",
        "federation-namespace",
        "federation-token",
        "journal",
        "journal-backend",
        "journal-memory",
        "key",
        "lenses",
        "metrics-port",
        "mqtt-namespace",
        "mqtt-port",
        "no-websocket",
        "osc-namespace",
        "osc-port",
        "quic-port",
        "registry-db",
        "rendezvous-port",
        "rendezvous-ttl",
        "rules",
        "signal-ttl",
        "trust-anchor",
        "v",
        "verbose",
    }
)
"""Options of the Rust relay that this one does not have."""
