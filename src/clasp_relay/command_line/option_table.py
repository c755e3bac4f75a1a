"""The table of options on the command line and in the environment, and the names that are refused as unsupported.

To add an option, add its field to ``Settings`` and one row to ``OPTIONS``;
``--help``, the environment variable and the checks follow from the row; a test compares the table with
``docs/operations.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from clasp_relay.logs.levels import LOG_FORMATS, LOG_LEVELS
from clasp_relay.setting_kinds import EngineUrls, HostPorts, Kind, Networks, OriginList, OrNone, Targets, TurnUrls
from clasp_relay.settings import Settings, kinds

__all__ = ["DEFAULTS", "NOT_SUPPORTED", "OPTIONS", "Option", "variable_of"]

DEFAULTS: Mapping[str, object] = {field.name: field.default for field in fields(Settings)}
"""The default of every field of ``Settings``."""

LISTS = EngineUrls | HostPorts | Networks | OriginList | Targets | TurnUrls
"""The kinds that take several values."""

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
        help: what it sets, with the unit.
        aliases: other names for it; one letter is a short option.
        constant: the value that a flag (an option without a value) gives its field.
        default: the default in words, where it is not the field's default value.
    """

    name: str
    field: str
    help: str
    aliases: tuple[str, ...] = ()
    constant: object = None
    default: str | None = None

    @property
    def kind(self) -> Kind:
        """The kind of its values."""
        return kinds()[self.field]

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return variable_of(self.name)

    @property
    def is_flag(self) -> bool:
        """Whether it has no value."""
        return self.constant is not None

    @property
    def is_list(self) -> bool:
        """Whether it takes several values, comma-separated."""
        return isinstance(self.kind.kind if isinstance(self.kind, OrNone) else self.kind, LISTS)

    @property
    def is_repeatable(self) -> bool:
        """Whether the values of several occurrences are taken together; of other options the last one counts."""
        return isinstance(self.kind, EngineUrls | HostPorts | Targets | TurnUrls)

    @property
    def letter(self) -> str | None:
        """Its short form."""
        return next((alias for alias in self.aliases if len(alias) == 1), None)

    @property
    def default_text(self) -> str:
        """The default as shown in ``--help``; empty for a flag."""
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
        """What it accepts, as the end of the sentence «expected …»."""
        return "one of " + ", ".join(_TRUE + _FALSE) if self.is_flag else self.kind.expected

    def parse(self, text: str) -> object:
        """Parses a value; None for a flag that is off.

        Raises:
            ValueError: the option does not accept it.
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
    Option("port", "port", "port for WebSocket connections; 0 takes any free port", aliases=("p", "ws-port")),
    Option(
        "auth-port",
        "auth_port",
        "port of the auth API and the web app; 0 turns both off (open mode, for trusted networks)",
    ),
    Option("host", "host", "address to listen on, for all ports"),
    Option("tcp-port", "tcp_port", "port for CLASP over plain TCP, for boards; 0 takes any free port", default=""),
    Option("announce", "announce", "announce the relay to the local network by mDNS, as _clasp._tcp", constant=True),
    Option("mqtt-port", "mqtt_port", "port for MQTT 3.1.1 and 5; 0 takes any free port", default=""),
    Option("mqtts-port", "mqtts_port", "port for MQTT over TLS; 0 takes any free port", default=""),
    Option("mqtt-namespace", "mqtt_namespace", "where MQTT topics are in CLASP; / for the whole tree"),
    Option("mqtt-publish", "mqtt_publish", "which MQTT messages set a param: those with retain, or all (set)"),
    Option("osc-port", "osc_port", "UDP port for OSC; 0 takes any free port", default=""),
    Option("osc-tcp-port", "osc_tcp_port", "TCP port for OSC with SLIP; 0 takes any free port", default=""),
    Option("osc-namespace", "osc_namespace", "where OSC addresses are in CLASP; / for the whole tree"),
    Option(
        "osc-allow",
        "osc_allow",
        "networks whose OSC clients are heard and answered",
        default="loopback, private and link-local networks",
    ),
    Option("osc-token", "osc_token", "file with the token whose scopes OSC clients have", default=""),
    Option(
        "osc-target",
        "osc_targets",
        "OSC clients that are always sent what changes: HOST:PORT, or HOST:PORT=PATTERN; may be given again",
        default="",
    ),
    Option("osc-rate", "osc_rate", "values per second that an OSC client is sent of one address; 0 for no limit"),
    Option("rules", "rules", "JSON file with rules: what the relay does when something changes", default=""),
    Option(
        "endpoint",
        "endpoint",
        "Twisted endpoint string for WebSocket connections, instead of --port, --host and TLS",
        default="",
    ),
    Option(
        "auth-endpoint",
        "auth_endpoint",
        "Twisted endpoint string for the auth API, instead of --auth-port, --host and TLS",
        default="",
    ),
    Option(
        "tls-cert",
        "tls_cert",
        "PEM file with the certificate and its chain; turns on TLS (wss and https)",
        aliases=("cert",),
        default="",
    ),
    Option("tls-key", "tls_key", "PEM file with the private key of the certificate", aliases=("key",), default=""),
    Option("trusted-proxy", "trusted_proxies", "networks of the proxies whose X-Forwarded-For is believed", default=""),
    Option("cors-origin", "cors_origins", "origins whose web pages may talk to the relay", default="every origin"),
    Option("data-dir", "data_dir", "folder for the relay's files; created if it is missing"),
    Option("name", "name", "name of the server, sent to every client", aliases=("n",)),
    Option("persist", "state_path", "path of the state file", default="state.json in the data-dir"),
    Option("durability", "durability", "what an acknowledged write survives: power, kill, snapshot"),
    Option("journal", "journal_path", "path of the journal", default="journal.db in the data-dir"),
    Option("journal-max-bytes", "journal_max_bytes", "maximum size of the journal, in bytes"),
    Option("journal-backend", "journal_backend", "database of the journal: sqlite"),
    Option(
        "cluster",
        "cluster",
        "NATS servers by which several relays are one: nats://HOST:PORT, tls://HOST:PORT; may be given again",
        default="",
    ),
    Option("cluster-name", "cluster_name", "name of the cluster: how its stream and subjects in NATS begin"),
    Option("cluster-creds", "cluster_creds", "file with the credentials for NATS", default=""),
    Option(
        "relay-name",
        "relay_name",
        "name of the relay in its cluster",
        default="the host's and a random tail, kept in the data-dir",
    ),
    Option(
        "standby", "standby", "take no clients, and decide only when no other relay of the cluster can", constant=True
    ),
    Option("workers", "workers", "how many relays run on this machine as one, each with a core"),
    Option("share-port", "share_port", "let other processes of this machine listen on the same port", constant=True),
    Option("journal-memory", "journal_memory", "keep history in memory, and write no journal", constant=True),
    Option(
        "history",
        "history",
        "for how many days history is kept, instead of what the policy says; off for not at all",
        default="as the policy says",
    ),
    Option(
        "min-free-bytes",
        "min_free_bytes",
        "free room on the journal's disk below which writes are refused, in bytes; 0 for no limit",
    ),
    Option("auth-db", "auth_db", "path of the user database", default="users.db in the data-dir"),
    Option("app-config", "app_config", "policy: chat, chat-compat, none, or a JSON file", default="found, else chat"),
    Option("web-root", "web_root", "folder of the web app to serve, or none", default="the packaged chat"),
    Option("admin-token", "admin_token", "file with the administrator's token; created if it is missing", default=""),
    Option(
        "turn-url",
        "turn_urls",
        "TURN server for calls: turn:HOST:PORT, turns:HOST:PORT; may be given again",
        default="",
    ),
    Option("turn-secret", "turn_secret", "file with the secret that the TURN server shares", default=""),
    Option("push", "push", "whether browsers are told of messages while no page is open (Web Push): on, off"),
    Option(
        "push-contact",
        "push_contact",
        "whom push services may write to about this relay: mailto:NAME@HOST or https://…",
        default="",
    ),
    Option(
        "push-allow",
        "push_allow",
        "push services that need not be on the public internet: HOST:PORT; may be given again",
        default="",
    ),
    Option("token-ttl", "token_ttl_s", "lifetime of a token, in seconds; 0 for no expiry"),
    Option("registration", "registration", "who may register: open (everybody), invite (who has an invite), closed"),
    Option("guests", "guests", "whether guests may sign in: on, off"),
    Option("files", "files", "whether users may send files to each other: on, off"),
    Option("files-max-file", "files_max_file", "maximum size of one file, in bytes"),
    Option(
        "files-per-user",
        "files_per_user",
        "maximum size of all files of one user, in bytes; a guest has 25 MiB; 0 for no limit",
    ),
    Option(
        "files-max-bytes", "files_max_bytes", "maximum size of all files, in bytes; half of it is kept for accounts"
    ),
    Option(
        "files-days",
        "files_days",
        "for how many days a file is kept after it was read for the last time; 0 for ever",
    ),
    Option(
        "files-cache-bytes",
        "files_cache_bytes",
        "in a cluster, maximum size of a relay's copies of files that are in the object store, in bytes",
    ),
    Option("audit-days", "audit_days", "for how many days the audit log is kept; 0 for ever"),
    Option(
        "max-guest-tokens-per-address",
        "max_guest_tokens_per_address",
        "maximum number of valid guest tokens for one client address; 0 for no limit",
    ),
    Option(
        "rate-limit", "rate_limit", "messages per second and session; 0 for no limit", default="the policy's, else 30"
    ),
    Option("persist-interval", "persist_interval_s", "interval between two snapshots of the state, in seconds"),
    Option("param-ttl", "param_ttl_s", "lifetime of a param after its last access, in seconds; 0 for no expiry"),
    Option("signal-ttl", "signal_ttl_s", "lifetime of an announced signal, in seconds; 0 for no expiry"),
    Option("no-ttl", "param_ttl_s", "params never expire; the same as --param-ttl 0", constant=0),
    Option("max-params", "max_params", "maximum number of params"),
    Option(
        "max-params-per-subject",
        "max_params_per_subject",
        "maximum number of params that one user has set; four times that for one client address; 0 for no limit",
    ),
    Option(
        "max-bytes-per-subject",
        "max_bytes_per_subject",
        "maximum size of the params that one user has set, in bytes; four times that for one client address; "
        "0 for no limit",
    ),
    Option("max-state-bytes", "max_state_bytes", "maximum size of all addresses and values together, in bytes"),
    Option(
        "max-session-memory",
        "max_session_memory",
        "maximum size of what is kept for one session, in bytes; four times that for one user and one client address; "
        "0 for no limit",
    ),
    Option("max-sessions", "max_sessions", "maximum number of sessions; 0 for no limit"),
    Option(
        "max-sessions-per-address",
        "max_sessions_per_address",
        "maximum number of connections from one client address; 0 for no limit",
    ),
    Option(
        "session-timeout",
        "session_timeout_s",
        "time without data or pongs after which a connection is closed, in seconds",
    ),
    Option(
        "drain-timeout",
        "drain_timeout_s",
        "maximum time that a stop waits until sessions have received everything, in seconds",
    ),
    Option("health-port", "health_port", "port for /healthz, /readyz and /metrics", default=""),
    Option("metrics-port", "metrics_port", "port for /metrics alone", default=""),
    Option("log-level", "log_level", "log level: " + ", ".join(LOG_LEVELS) + "; for single parts as info,net=debug"),
    Option("verbose", "log_level", "log more; the same as --log-level debug", constant="debug", aliases=("v",)),
    Option("log-format", "log_format", "log format: " + ", ".join(LOG_FORMATS)),
    Option(
        "config", "config_file", "TOML file with options; the command line and the environment win over it", default=""
    ),
)
"""Every option, in the order in which they are documented."""

NOT_SUPPORTED: frozenset[str] = frozenset(
    {
        "artnet-port",
        "defra-url",
        "federation-hub",
        "federation-id",
        "federation-namespace",
        "federation-token",
        "lenses",
        "no-websocket",
        "quic-port",
    }
)
"""Options of the Rust relay that this one does not have."""
