"""The settings of a relay: unit, default and reason per field, checked once, frozen afterwards.

A field's annotation carries its *kind* (``setting_kinds``): what it accepts, how that is said to people, and how it
is read from text. The command line (``options``) asks the same kinds, so a limit stands in one place only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, get_type_hints

from clasp_relay.access.addresses import Network
from clasp_relay.logs.levels import LOG_FORMATS, LOG_LEVELS
from clasp_relay.setting_kinds import (
    Choice,
    FilePath,
    Kind,
    Levels,
    Networks,
    Number,
    OriginList,
    OrNone,
    Text,
    Whole,
)

__all__ = ["LOG_LEVELS", "Contradiction", "Settings", "kinds"]

NO_POLICY = "none"
"""The ``app_config`` that is no policy."""

_LONGEST_TEXT_BYTES = 4_096
"""As long as a path may be on Linux."""

_LONGEST_LIFE_S = 4_294_967_295
"""136 years, the longest that a TTL on the wire may be."""


class Contradiction(ValueError):
    """Settings that are each well-formed and cannot hold together.

    Args:
        words: what is wrong, with ``{}`` where a setting is named.
        names: the fields that they name, in that order.
    """

    def __init__(self, words: str, *names: str) -> None:
        super().__init__(words.format(*names))
        self._words = words
        self._names = names

    def said(self, name_of: Callable[[str], str]) -> str:
        """Says it with other names for the fields: those of options or variables."""
        return self._words.format(*map(name_of, self._names))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be told to a relay.

    Embedders make one directly: ``Settings(port=0, data_dir=Path("data"))``.

    Raises:
        ValueError: a field does not accept what it was given; the text names the field, the value and
            what was expected.
    """

    port: Annotated[int, Whole(0, 65_535)] = 7330
    """TCP port of the WebSocket; 0 takes any free one. 7330 is what CLASP clients try first."""

    auth_port: Annotated[int, Whole(0, 65_535)] = 7350
    """TCP port of the auth server; 0: no auth server and *open mode*, where tokens and policies are no matter."""

    endpoint: Annotated[str | None, OrNone(Text(_LONGEST_TEXT_BYTES))] = None
    """Twisted's server endpoint string for the WebSocket instead of host, port and TLS; None: those."""

    auth_endpoint: Annotated[str | None, OrNone(Text(_LONGEST_TEXT_BYTES))] = None
    """The same for the auth server."""

    tls_cert: Annotated[Path | None, OrNone(FilePath())] = None
    """PEM file of the certificate and its chain, for TLS on both ports; None: no TLS."""

    tls_key: Annotated[Path | None, OrNone(FilePath())] = None
    """PEM file of the certificate's key."""

    trusted_proxies: Annotated[tuple[Network, ...], Networks()] = ()
    """The proxies whose X-Forwarded-For is believed; none, since else every client could name any address."""

    cors_origins: Annotated[tuple[str, ...] | None, OrNone(OriginList())] = None
    """Origins of the web pages that may talk to the relay, besides its own; None: every one."""

    host: Annotated[str, Text(253)] = "0.0.0.0"  # noqa: S104  a relay is there to be reached
    """Address to listen on (a DNS name has at most 253 bytes); 0.0.0.0 for all of the machine's."""

    name: Annotated[str, Text(1_024)] = "CLASP Relay"
    """The server's name in WELCOME. Bounded, so that WELCOME stays small in every frame."""

    data_dir: Annotated[Path, FilePath()] = Path("data")
    """Folder of the relay's files; made if it is missing."""

    state_path: Annotated[Path | None, OrNone(FilePath())] = None
    """The state file's own path; None: ``state.json`` in ``data_dir``."""

    auth_db: Annotated[Path | None, OrNone(FilePath())] = None
    """The users' database's own path; None: ``users.db`` in ``data_dir``."""

    app_config: Annotated[str | None, OrNone(Text(_LONGEST_TEXT_BYTES))] = None
    """The application policy: the name of a packaged one, ``none``, or a JSON file's path; None: found at the start."""

    web_root: Annotated[str | None, OrNone(Text(_LONGEST_TEXT_BYTES))] = None
    """Folder of the web app on the auth port; ``none`` for none; None: the packaged chat, where there is one."""

    admin_token: Annotated[Path | None, OrNone(FilePath())] = None
    """File of the administrator's token, made if it is missing; None: there is no such token."""

    token_ttl_s: Annotated[int, Whole(1, _LONGEST_LIFE_S)] = 86_400
    """Seconds that a token is valid: a day, after which a client asks for a new one."""

    max_guest_tokens_per_address: Annotated[int, Whole(0)] = 1_000
    """Guests' tokens that may be valid for one client address; beyond it the oldest ends. 0: any number."""

    rate_limit: Annotated[float | None, OrNone(Number(0))] = None
    """Messages a second that a session may send; 0: any number; None: the policy's ``message_rate``, or 30."""

    persist_interval_s: Annotated[float, Number(0, above=True)] = 60.0
    """Seconds between two writes of the state file: the most that a crash may cost."""

    param_ttl_s: Annotated[int, Whole(0, _LONGEST_LIFE_S)] = 0
    """Seconds that a param lives after its last access; 0 for ever, since a chat room must survive a quiet week."""

    max_params: Annotated[int, Whole(1)] = 100_000
    """Params held at most; at 290–490 B each for small ones about 50 MB."""

    max_state_bytes: Annotated[int, Whole(1)] = 256 * 1024 * 1024
    """Bytes that addresses and values may take together, since one value may have 64 KiB."""

    max_params_per_subject: Annotated[int, Whole(0)] = 10_000
    """Params that one user may have set at once, and a quarter of what one client address may, so that nobody can take
    every place; 0 for no limit; not in open mode."""

    max_bytes_per_subject: Annotated[int, Whole(0)] = 8 * 1024 * 1024
    """Bytes of addresses and values that one user may have set at once, and a quarter of what one client address may:
    it takes 32 users from 8 addresses to fill the default state; 0 for no limit; not in open mode."""

    max_sessions: Annotated[int, Whole(1)] = 1_000
    """Sessions at once; connections that are not sessions yet are capped at twice that."""

    max_sessions_per_address: Annotated[int, Whole(0)] = 250
    """Connections at once from one client address (of IPv6, one network of 64 bits), so that one machine cannot take
    every place; 0 for no limit. Clients on this machine are exempt in open mode, and where ``host`` is loopback."""

    session_timeout_s: Annotated[float, Number(0, above=True)] = 300.0
    """Seconds after which a peer that answered nothing, not even a ping, is given up."""

    drain_timeout_s: Annotated[float, Number(0)] = 5.0
    """Seconds that a stop waits for queues to empty; half of the 10 s that containers are given to stop."""

    health_port: Annotated[int | None, OrNone(Whole(0, 65_535))] = None
    """TCP port of ``/healthz``, ``/readyz`` and ``/metrics``; 0 takes any free one; None: there is none."""

    log_level: Annotated[str, Levels()] = "info"
    """What is logged: events of this level and those before it in ``LOG_LEVELS``; see ``LogLevels.parse``."""

    log_format: Annotated[str, Choice(LOG_FORMATS)] = "text"
    """How an event is written: as a line of text or of JSON."""

    config_file: Annotated[Path | None, OrNone(FilePath())] = None
    """The file that settings were read from, so that it can be told; reading it is ``options``' business."""

    outbox_bytes: Annotated[int, Whole(65_547)] = 1024 * 1024
    """Bytes that may wait for one slow session before it is dropped from; not less than one full frame."""

    def __post_init__(self) -> None:
        """Checks every field against its kind, and all of them together."""
        for name, kind in kinds().items():
            value = getattr(self, name)
            if not kind.accepts(value):
                raise ValueError(f"{name}: got {value!r}, expected {kind.expected}")
        self.check_together({field.name for field in fields(self) if getattr(self, field.name) != field.default})

    @property
    def is_open_mode(self) -> bool:
        """Whether there are no accounts: everybody may read and write everything."""
        return self.auth_port == 0

    @property
    def state_file(self) -> Path:
        """Where the params are kept."""
        return self.data_dir / "state.json" if self.state_path is None else self.state_path

    @property
    def users_file(self) -> Path:
        """Where accounts and tokens are kept."""
        return self.data_dir / "users.db" if self.auth_db is None else self.auth_db

    def check_together(self, given: Collection[str]) -> None:
        """Checks what no field can tell alone.

        Args:
            given: the fields that somebody set, be it to their defaults.

        Raises:
            Contradiction: two or three of them cannot hold together.
        """
        for one, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
            if one in given and other not in given:
                raise Contradiction("{}: given without {}; TLS takes both", one, other)
        if self.is_open_mode:
            if self.app_config not in (None, NO_POLICY):
                words = "{}: no policy holds in open mode; leave it out, or give {} a port other than 0"
                raise Contradiction(words, "app_config", "auth_port")
            if self.auth_endpoint is not None:
                raise Contradiction("{}: contradicts {} 0 (open mode); give one of them", "auth_endpoint", "auth_port")
        self._check_endpoints(given)

    def _check_endpoints(self, given: Collection[str]) -> None:
        """Checks that nothing is said twice about where to listen."""
        endpoints = {"port": self.endpoint} | ({} if self.is_open_mode else {"auth_port": self.auth_endpoint})
        for port in ("port", "auth_port"):
            endpoint = "auth_endpoint" if port == "auth_port" else "endpoint"
            if endpoints.get(port) is not None and port in given:
                raise Contradiction("{}: contradicts {}; give one of them", endpoint, port)
        if all(endpoints.values()):
            for name in ("host", "tls_cert"):
                if name in given:
                    raise Contradiction("{}: contradicts {}, which says how to listen; leave it out", name, "endpoint")
        if not any(endpoints.values()) and self.port == self.auth_port != 0:
            raise Contradiction("{}: is the same as {}; give them different ports", "auth_port", "port")


@cache
def kinds() -> dict[str, Kind]:
    """Returns the kind of every field of ``Settings``, in their order."""
    hints = get_type_hints(Settings, include_extras=True)
    return {field.name: hints[field.name].__metadata__[0] for field in fields(Settings)}
