"""The settings of a relay: unit, default and reason per field, checked once, frozen afterwards.

A field's annotation carries its *kind* (``setting_kinds``): which values it accepts, the words for error messages, and
how a text is parsed. The command line (``command_line.options``) uses the same kinds, so each limit is in one place
only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, get_type_hints

from clasp_relay.access.addresses import Network, parse_networks
from clasp_relay.logs.levels import LOG_FORMATS, LOG_LEVELS
from clasp_relay.setting_kinds import (
    Choice,
    Contact,
    EngineUrls,
    FilePath,
    Flag,
    HostPorts,
    Kind,
    Levels,
    Namespace,
    Networks,
    Number,
    OffOr,
    OriginList,
    OrNone,
    Targets,
    Text,
    TurnUrls,
    Whole,
    Word,
)

__all__ = ["LOG_LEVELS", "Contradiction", "Settings", "kinds"]

DURABILITIES = ("power", "kill", "snapshot")
"""What an acknowledged write survives (``docs/durability.md``)."""

NOT_SHARED = (
    "cluster",
    "cluster_name",
    "cluster_creds",
    "relay_name",
    "standby",
    "state_path",
    "journal_path",
    "auth_db",
    "endpoint",
    "auth_endpoint",
    "share_port",
    "announce",
    "osc_port",
)
"""Settings that cannot be used with ``workers``, since each worker needs its own or they are chosen for it."""

MAX_WORKERS = 64
"""More workers would not help: even a machine with more cores would have only one decider."""

NO_POLICY = "none"
"""The ``app_config`` that is no policy."""

LOCAL_NETWORKS = parse_networks(
    "127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,169.254.0.0/16,fc00::/7,fe80::/10"
)
"""Loopback, private and link-local networks (RFC 6890)."""

_LONGEST_TEXT_BYTES = 4_096
"""As long as a path may be on Linux."""

_LONGEST_LIFE_S = 4_294_967_295
"""136 years, the longest that a TTL on the wire may be."""


class Contradiction(ValueError):
    """Settings that are valid one by one but not together.

    Args:
        words: what is wrong, with ``{}`` for the name of a setting.
        names: the fields for each ``{}``, in that order.
    """

    def __init__(self, words: str, *names: str) -> None:
        super().__init__(words.format(*names))
        self._words = words
        self._names = names

    def said(self, name_of: Callable[[str], str]) -> str:
        """Returns the message with other names for the fields: those of options or variables."""
        return self._words.format(*map(name_of, self._names))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a relay.

    A program that embeds the relay makes one directly: ``Settings(port=0, data_dir=Path("data"))``.

    Raises:
        ValueError: a field does not accept what it was given; the text names the field, the value and
            what was expected.
    """

    port: Annotated[int, Whole(0, 65_535)] = 7330
    """TCP port for WebSocket connections; 0 takes any free port. CLASP clients try 7330 first."""

    auth_port: Annotated[int, Whole(0, 65_535)] = 7350
    """TCP port of the auth API and the web app; 0: neither, and *open mode*, without tokens and policies."""

    endpoint: Annotated[str | None, OrNone(Text(_LONGEST_TEXT_BYTES))] = None
    """Twisted endpoint string for WebSocket connections, instead of host, port and TLS; None: those."""

    auth_endpoint: Annotated[str | None, OrNone(Text(_LONGEST_TEXT_BYTES))] = None
    """Twisted endpoint string for the auth API, instead of host, auth port and TLS; None: those."""

    tcp_port: Annotated[int | None, OrNone(Whole(0, 65_535))] = None
    """TCP port for CLASP frames, each behind its length, for boards; 0 takes any free port; None: no such port."""

    announce: Annotated[bool, Flag()] = False
    """Whether the relay is announced to the local network by mDNS."""

    mqtt_port: Annotated[int | None, OrNone(Whole(0, 65_535))] = None
    """TCP port for MQTT; 0 takes any free port; None: no such port. With it MQTT is spoken over WebSocket, too."""

    mqtts_port: Annotated[int | None, OrNone(Whole(0, 65_535))] = None
    """TCP port for MQTT over TLS, with the relay's certificate; 0 takes any free port; None: no such port."""

    mqtt_namespace: Annotated[str, Namespace()] = "/mqtt"
    """Where MQTT topics are in CLASP; ``/`` for the whole tree. The Rust relay's default."""

    mqtt_publish: Annotated[str, Choice(("retain", "set"))] = "retain"
    """Which PUBLISHes set a param: those with retain, or all, as in the Rust relay."""

    osc_port: Annotated[int | None, OrNone(Whole(0, 65_535))] = None
    """UDP port for OSC; 0 takes any free port; None: no such port."""

    osc_tcp_port: Annotated[int | None, OrNone(Whole(0, 65_535))] = None
    """TCP port for OSC with SLIP; 0 takes any free port; None: no such port."""

    osc_namespace: Annotated[str, Namespace()] = "/osc"
    """Where OSC addresses are in CLASP; ``/`` for the whole tree. The Rust relay's default."""

    osc_allow: Annotated[tuple[Network, ...], Networks()] = LOCAL_NETWORKS
    """Networks whose OSC clients are heard and answered, since the sender's address in UDP cannot be trusted."""

    osc_token: Annotated[Path | None, OrNone(FilePath())] = None
    """File with the token whose scopes OSC clients have; None: anonymous ones. ``ps`` would show a token itself."""

    osc_targets: Annotated[tuple[str, ...], Targets()] = ()
    """OSC clients that are always sent what changes, as ``HOST:PORT`` or ``HOST:PORT=PATTERN``."""

    osc_rate: Annotated[float, Number(0)] = 30.0
    """Values per second that an OSC client is sent of one address, the last one always; 0: no limit."""

    rules: Annotated[Path | None, OrNone(FilePath())] = None
    """JSON file of the rules that the relay acts by; None: none."""

    tls_cert: Annotated[Path | None, OrNone(FilePath())] = None
    """PEM file of the certificate and its chain, for TLS on both ports; None: no TLS."""

    tls_key: Annotated[Path | None, OrNone(FilePath())] = None
    """PEM file of the certificate's key."""

    trusted_proxies: Annotated[tuple[Network, ...], Networks()] = ()
    """Networks of the proxies whose X-Forwarded-For is believed. None by default: clients could claim any address."""

    cors_origins: Annotated[tuple[str, ...] | None, OrNone(OriginList())] = None
    """Origins whose web pages may talk to the relay, besides its own; None: every origin."""

    host: Annotated[str, Text(253)] = "0.0.0.0"  # noqa: S104  a relay is there to be reached
    """Address to listen on (a DNS name has at most 253 bytes); 0.0.0.0: all IPv4 addresses of the machine."""

    name: Annotated[str, Text(1_024)] = "CLASP Relay"
    """The server's name in WELCOME. Bounded, so that WELCOME stays small in every frame."""

    data_dir: Annotated[Path, FilePath()] = Path("data")
    """Folder for the relay's files; created if it is missing."""

    state_path: Annotated[Path | None, OrNone(FilePath())] = None
    """Path of the state file; None: ``state.json`` in ``data_dir``."""

    durability: Annotated[str, Choice(DURABILITIES)] = "power"
    """What an ACK means: the write survives a loss of ``power``, a ``kill`` of the process, or from the next
    ``snapshot`` on; with ``snapshot`` no journal is written."""

    journal_path: Annotated[Path | None, OrNone(FilePath())] = None
    """Path of the journal; None: ``journal.db`` in ``data_dir``."""

    journal_max_bytes: Annotated[int, Whole(1024 * 1024)] = 1024 * 1024 * 1024
    """Maximum size of the journal and its WAL; at half of it a snapshot is saved early, so that old rows can go."""

    journal_memory: Annotated[bool, Flag()] = False
    """Whether history is kept in memory, 10,000 entries of it, and no journal is written."""

    history: Annotated[int | str | None, OrNone(OffOr(Whole(1, 36_500)))] = None
    """For how many days history is kept, in place of what the policy's rules say; ``off``: not at all; None: as they
    say."""

    min_free_bytes: Annotated[int, Whole(0)] = 64 * 1024 * 1024
    """Free room on the journal's disk below which writes are refused, so that a full disk ends nothing; 0: none."""

    cluster: Annotated[tuple[str, ...], EngineUrls()] = ()
    """URLs of the NATS servers by which several relays are one; none: the relay is alone."""

    cluster_name: Annotated[str, Word()] = "clasp"
    """The cluster's name: how its stream and subjects in NATS begin."""

    cluster_creds: Annotated[Path | None, OrNone(FilePath())] = None
    """File with the credentials for NATS (``.creds``); None: those in the URLs, or none."""

    relay_name: Annotated[str | None, OrNone(Word())] = None
    """The relay's name in its cluster; None: the host's and a random tail, kept in ``data_dir``."""

    standby: Annotated[bool, Flag()] = False
    """Whether the relay takes no clients and decides only when no other relay can."""

    workers: Annotated[int, Whole(1, MAX_WORKERS)] = 1
    """How many relays run on this machine as one; 1: this one alone."""

    share_port: Annotated[bool, Flag()] = False
    """Whether other processes may listen on the same port; the system gives each connection to one of them."""

    journal_backend: Annotated[str, Choice(("sqlite",))] = "sqlite"
    """The Rust relay's choice of a database for the journal; this one has SQLite."""

    auth_db: Annotated[Path | None, OrNone(FilePath())] = None
    """Path of the user database; None: ``users.db`` in ``data_dir``."""

    app_config: Annotated[str | None, OrNone(Text(_LONGEST_TEXT_BYTES))] = None
    """The application policy: the name of a packaged one, ``none``, or a JSON file's path; None: found at the start."""

    web_root: Annotated[str | None, OrNone(Text(_LONGEST_TEXT_BYTES))] = None
    """Folder of the web app on the auth port; ``none`` for none; None: the packaged chat, where there is one."""

    admin_token: Annotated[Path | None, OrNone(FilePath())] = None
    """File with the administrator's token, created if it is missing; None: no such token."""

    turn_urls: Annotated[tuple[str, ...], TurnUrls()] = ()
    """URLs of the TURN server that clients in a call are told of; none: calls go directly or not at all."""

    turn_secret: Annotated[Path | None, OrNone(FilePath())] = None
    """File with the secret that the TURN server shares (coturn's ``static-auth-secret``)."""

    push: Annotated[str, Choice(("on", "off"))] = "on"
    """Whether browsers are told of messages and calls while no page of theirs is open (Web Push)."""

    push_contact: Annotated[str | None, OrNone(Contact())] = None
    """Whom a push service may write to about this relay (RFC 8292's ``sub``); None: nobody, which some refuse."""

    push_allow: Annotated[tuple[str, ...], HostPorts()] = ()
    """Push services that need not be on the public internet: one's own, or a test's."""

    token_ttl_s: Annotated[int, Whole(0, _LONGEST_LIFE_S)] = 86_400
    """Lifetime of a token in seconds: a day, after which a client asks for a new one; 0: a hundred years."""

    registration: Annotated[str, Choice(("open", "invite", "closed"))] = "open"
    """Who may register: everybody, whoever has an invite, or nobody."""

    guests: Annotated[str, Choice(("on", "off"))] = "on"
    """Whether guests may sign in."""

    files: Annotated[str, Choice(("on", "off"))] = "on"
    """Whether users may send files to each other."""

    files_max_file: Annotated[int, Whole(1)] = 25 * 1024 * 1024
    """Maximum size of one file, in bytes: a few photos, or a minute of video."""

    files_per_user: Annotated[int, Whole(0)] = 200 * 1024 * 1024
    """Maximum size of all files of one user, in bytes; guests have 25 MiB; 0: no limit."""

    files_max_bytes: Annotated[int, Whole(1)] = 5 * 1024 * 1024 * 1024
    """Maximum size of all files together, in bytes; half of it is kept for accounts."""

    files_days: Annotated[int, Whole(0, 36_500)] = 90
    """For how many days a file is kept after somebody read it for the last time; 0: for ever."""

    files_cache_bytes: Annotated[int, Whole(1)] = 1024 * 1024 * 1024
    """In a cluster, maximum size of the copies that a relay keeps of files in the object store, in bytes."""

    audit_days: Annotated[int, Whole(0)] = 365
    """For how many days the audit log is kept; 0: for ever."""

    max_guest_tokens_per_address: Annotated[int, Whole(0)] = 1_000
    """Maximum number of valid guest tokens for one client address; beyond it the oldest one ends. 0: no limit."""

    rate_limit: Annotated[float | None, OrNone(Number(0))] = None
    """Messages per second and session; 0: no limit; None: the policy's ``message_rate``, or 30."""

    persist_interval_s: Annotated[float, Number(0, above=True)] = 60.0
    """Seconds between two snapshots: a crash loses at most the changes of this time."""

    param_ttl_s: Annotated[int, Whole(0, _LONGEST_LIFE_S)] = 0
    """Lifetime of a param after its last access, in seconds; 0: no expiry (a chat room survives a quiet week)."""

    signal_ttl_s: Annotated[int, Whole(0, _LONGEST_LIFE_S)] = 3_600
    """Lifetime of an announced signal after its last announcement, in seconds; 0: no expiry."""

    max_params: Annotated[int, Whole(1)] = 100_000
    """Maximum number of params; small ones take 290–490 B each, so these take about 50 MB."""

    max_state_bytes: Annotated[int, Whole(1)] = 256 * 1024 * 1024
    """Maximum size of all addresses and values together, in bytes, since one value may have 64 KiB."""

    max_params_per_subject: Annotated[int, Whole(0)] = 10_000
    """Maximum number of params that one user has set, and a quarter of the maximum for one client address, so that
    nobody can take all; 0: no limit; not in open mode."""

    max_bytes_per_subject: Annotated[int, Whole(0)] = 8 * 1024 * 1024
    """Maximum size of the addresses and values that one user has set, in bytes, and a quarter of the maximum for one
    client address: 32 users at 8 addresses fill the default state; 0: no limit; not in open mode."""

    max_session_memory: Annotated[int, Whole(0)] = 4 * 1024 * 1024
    """Maximum bytes that are kept for one session beside its outbox (subscriptions, waiting snapshots, held values,
    scheduled bundles); four times that for one user and one client address; 0: no limit."""

    max_sessions: Annotated[int, Whole(0)] = 1_000
    """Maximum number of sessions; connections, sessions included, are limited to twice that. 0: no limit."""

    max_sessions_per_address: Annotated[int, Whole(0)] = 250
    """Maximum number of connections from one client address (of IPv6: one /64), so that one machine cannot take all;
    0: no limit. Clients on this machine are exempt in open mode, and where ``host`` is loopback."""

    session_timeout_s: Annotated[float, Number(0, above=True)] = 300.0
    """Seconds without data or pongs after which a connection is closed."""

    drain_timeout_s: Annotated[float, Number(0)] = 5.0
    """Maximum seconds that a stop waits until sessions have received everything; half of a container's 10 s."""

    health_port: Annotated[int | None, OrNone(Whole(0, 65_535))] = None
    """TCP port for ``/healthz``, ``/readyz`` and ``/metrics``; 0 takes any free port; None: no such port."""

    metrics_port: Annotated[int | None, OrNone(Whole(0, 65_535))] = None
    """TCP port for ``/metrics`` alone; 0 takes any free port; None: no such port."""

    log_level: Annotated[str, Levels()] = "info"
    """Log level: this one and those before it in ``LOG_LEVELS`` are logged; see ``LogLevels.parse``."""

    log_format: Annotated[str, Choice(LOG_FORMATS)] = "text"
    """Log format: lines of text, or of JSON."""

    config_file: Annotated[Path | None, OrNone(FilePath())] = None
    """The config file, for ``check-config``; ``options`` reads it."""

    outbox_bytes: Annotated[int, Whole(65_547)] = 1024 * 1024
    """Maximum bytes that wait for one slow session before frames are left out; at least one full frame."""

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
    def journal_file(self) -> Path:
        """Where changes are recorded."""
        return self.data_dir / "journal.db" if self.journal_path is None else self.journal_path

    @property
    def writes_journal(self) -> bool:
        """Whether changes are recorded in a file before they are acknowledged."""
        return self.durability != "snapshot" and not self.journal_memory

    @property
    def keeps_entries(self) -> bool:
        """Whether history can be kept, in a journal or in memory."""
        return self.writes_journal or self.journal_memory

    @property
    def asks_for_journal(self) -> bool:
        """Whether a journal was asked for by an option; then history keeps everything if there is no policy."""
        return self.journal_path is not None or self.journal_memory

    @property
    def takes_files(self) -> bool:
        """Whether users may send files to each other; in open mode nobody is a user."""
        return self.files == "on" and not self.is_open_mode

    @property
    def files_cache(self) -> Path:
        """Where copies of the files in a cluster's object store are kept."""
        return self.data_dir / "files-cache"

    @property
    def files_bucket_bytes(self) -> int:
        """Maximum size of a cluster's object store in bytes: each file takes some hundred bytes more than its size."""
        return self.files_max_bytes + self.files_max_bytes // 4 + 64 * 1024 * 1024

    @property
    def files_folder(self) -> Path:
        """Where the bytes of files are kept."""
        return self.data_dir / "files"

    @property
    def files_database(self) -> Path:
        """Where it is recorded who sent which file."""
        return self.data_dir / "files.db"

    @property
    def users_file(self) -> Path:
        """Where accounts and tokens are kept."""
        return self.data_dir / "users.db" if self.auth_db is None else self.auth_db

    def check_together(self, given: Collection[str]) -> None:
        """Checks the rules about several fields.

        Args:
            given: the fields that were set, even to their defaults.

        Raises:
            Contradiction: two or three fields contradict each other.
        """
        for one, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
            if one in given and other not in given:
                raise Contradiction("{}: needs {} as well (TLS takes a certificate and a key)", one, other)
        for one, other in (("turn_urls", "turn_secret"), ("turn_secret", "turn_urls")):
            if one in given and other not in given:
                raise Contradiction("{}: needs {} as well (clients get credentials made from the secret)", one, other)
        self._check_cluster(given)
        if self.mqtts_port is not None and self.tls_cert is None:
            raise Contradiction("{}: needs {} and {}", "mqtts_port", "tls_cert", "tls_key")
        if self.journal_memory:
            if "journal_path" in given:
                raise Contradiction("{}: conflicts with {}; give only one of them", "journal_memory", "journal_path")
            if "durability" in given and self.durability != "snapshot":
                words = "{}: writes nothing to the disk; leave {} out, or say snapshot"
                raise Contradiction(words, "journal_memory", "durability")
        if self.is_open_mode:
            if self.app_config not in (None, NO_POLICY):
                words = "{}: has no effect in open mode; leave it out, or set {} to a port other than 0"
                raise Contradiction(words, "app_config", "auth_port")
            if self.auth_endpoint is not None:
                raise Contradiction(
                    "{}: conflicts with {} 0 (open mode); give only one of them", "auth_endpoint", "auth_port"
                )
        self._check_endpoints(given)

    def _check_cluster(self, given: Collection[str]) -> None:
        """Checks that no field is set that a cluster does not support."""
        asked = "cluster"
        if self.workers > 1:
            asked = "workers"
            for name in NOT_SHARED:
                if name in given:
                    raise Contradiction("{}: conflicts with {}; leave it out", name, asked)
            health_port, metrics_port = self.health_port or 0, self.metrics_port or 0
            if health_port and metrics_port and abs(health_port - metrics_port) < self.workers:
                words = "{}: the workers have one port each from here on, and from {} on; set ports further apart"
                raise Contradiction(words, "metrics_port", "health_port")
        elif not self.cluster:
            for name in ("cluster_name", "cluster_creds", "relay_name", "standby", "files_cache_bytes"):
                if name in given:
                    raise Contradiction("{}: has no effect without {}", name, asked)
            return
        if not self.writes_journal:
            name = "journal_memory" if self.journal_memory else "durability"
            raise Contradiction("{}: needs a journal; leave {} out, or set durability to power", asked, name)

    def _check_endpoints(self, given: Collection[str]) -> None:
        """Checks that endpoints are not set together with what they replace, and that the two ports differ."""
        endpoints = {"port": self.endpoint} | ({} if self.is_open_mode else {"auth_port": self.auth_endpoint})
        for port in ("port", "auth_port"):
            endpoint = "auth_endpoint" if port == "auth_port" else "endpoint"
            if endpoints.get(port) is not None and port in given:
                raise Contradiction("{}: conflicts with {}; give only one of them", endpoint, port)
        if all(endpoints.values()):
            for name in ("host", "tls_cert"):
                if name in given:
                    raise Contradiction(
                        "{}: has no effect beside {}, which says how to listen; leave it out", name, "endpoint"
                    )
        if not any(endpoints.values()) and self.port == self.auth_port != 0:
            raise Contradiction("{}: is the same port as {}; set different ports", "auth_port", "port")


@cache
def kinds() -> dict[str, Kind]:
    """Returns the kind of every field of ``Settings``, in their order."""
    hints = get_type_hints(Settings, include_extras=True)
    return {field.name: hints[field.name].__metadata__[0] for field in fields(Settings)}
