"""The messages of CLASP as Python objects.

A *value* is always in its encoded form: the type byte and the data, byte for byte as its sender wrote it
(``docs/protocol.md``, Values). ``wire.values`` decodes it where needed.

SET and PUBLISH are ``NamedTuple``, because nearly all messages are one of them and a frozen dataclass of their size
takes more than twice as long to build. All others are frozen dataclasses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from clasp_relay.wire.constants import ALL_TYPES, Phase, Signal

Value: TypeAlias = bytes
"""An encoded value: type byte and data."""

NULL: Value = b"\x00"
"""The encoded null. A SET of it deletes."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of a session. ``token`` is empty for none."""

    version: int
    features: int
    name: str
    token: str = ""


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to HELLO; ``time_us`` is the server's Unix time."""

    version: int
    features: int
    time_us: int
    session: str
    name: str
    token: str = ""


@dataclass(frozen=True, slots=True)
class SignalDefinition:
    """The definition of one signal in an ANNOUNCE. A RESULT has only its address, signal, datatype and access."""

    address: str
    signal: Signal
    datatype: str | None = None
    access: str | None = None
    unit: str | None = None
    range: tuple[float, float] | None = None
    default: Value | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Announce:
    """Signal definitions of a namespace."""

    namespace: str
    signals: tuple[SignalDefinition, ...] = ()


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Asks for everything that matches ``pattern``. It replaces the session's subscription with the same ``id``.

    ``types`` is a mask (bit n = ``Signal`` n), normalised so that «no filter» is ``ALL_TYPES``.
    ``max_rate`` is in messages a second and address, ``epsilon`` the smallest numeric change that is sent.
    """

    id: int
    pattern: str
    types: int = ALL_TYPES
    max_rate: int | None = None
    epsilon: float | None = None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Ends the subscription with that id."""

    id: int


class Publish(NamedTuple):
    """A signal. ``samples`` are big-endian doubles as their sender wrote them, 8 bytes each.

    Every signal has a ``phase``, which is passed on as sent; only a gesture's has a meaning.
    """

    address: str
    signal: Signal = Signal.EVENT
    phase: Phase = Phase.START
    value: Value | None = None
    samples: bytes | None = None
    timestamp_us: int | None = None
    id: int | None = None
    rate: int | None = None


class Set(NamedTuple):
    """Stores ``value`` at ``address``; null deletes.

    ``revision`` is the one that the writer expects to be current; in a SET from the relay it is the new one.
    ``ttl`` is as on the wire: 0 never, bit 31 (``TTL_ABSOLUTE``) from the write, else sliding; in seconds.
    """

    address: str
    value: Value
    revision: int | None = None
    lock: bool = False
    unlock: bool = False
    ttl: int | None = None


@dataclass(frozen=True, slots=True)
class Get:
    """Asks for one param."""

    address: str


class ParamFields(Protocol):
    """What a SNAPSHOT carries of a param. A relay's own params have it, too, so that none is copied to be encoded."""

    @property
    def address(self) -> str:
        """Its address."""

    @property
    def value(self) -> Value:
        """Its value."""

    @property
    def revision(self) -> int:
        """Its revision."""

    @property
    def writer(self) -> str | None:
        """The session that wrote it; None for none."""

    @property
    def timestamp_us(self) -> int | None:
        """When it was written, in Unix time; None if that is not known."""


class SnapshotParam(NamedTuple):
    """One param of a SNAPSHOT: see ``ParamFields``."""

    address: str
    value: Value
    revision: int
    writer: str | None = None
    timestamp_us: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Current params."""

    params: tuple[SnapshotParam, ...] = ()


@dataclass(frozen=True, slots=True)
class Replay:
    """Asks for history."""

    pattern: str
    from_us: int | None = None
    to_us: int | None = None
    limit: int | None = None
    types: int = ALL_TYPES


@dataclass(frozen=True, slots=True)
class Bundle:
    """Several messages that are applied together; at ``timestamp_us`` if that is in the future."""

    messages: tuple[Message, ...] = ()
    timestamp_us: int | None = None


@dataclass(frozen=True, slots=True)
class Sync:
    """Clock sync, in µs: the client's t1, the server's arrival and departure times."""

    t1_us: int
    t2_us: int | None = None
    t3_us: int | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a PONG, in order."""


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to PING."""


@dataclass(frozen=True, slots=True)
class Ack:
    """A SET, BUNDLE or ANNOUNCE with QoS was accepted."""

    address: str | None = None
    revision: int | None = None
    locked: bool | None = None
    holder: str | None = None
    correlation_id: int | None = None


@dataclass(frozen=True, slots=True)
class Error:
    """A message was refused; ``error`` is an ``errors.ErrorCode`` when the relay sends it."""

    error: int
    message: str
    address: str | None = None
    correlation_id: int | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """Asks for the announced signals that match a pattern."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Result:
    """Announced signals."""

    signals: tuple[SignalDefinition, ...] = ()


Message: TypeAlias = (
    Hello
    | Welcome
    | Announce
    | Subscribe
    | Unsubscribe
    | Publish
    | Set
    | Get
    | Snapshot
    | Replay
    | Bundle
    | Sync
    | Ping
    | Pong
    | Ack
    | Error
    | Query
    | Result
)
