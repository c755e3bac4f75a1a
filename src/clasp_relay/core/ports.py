"""What the core is given from outside: a clock, a log, codecs, and the ways out to its sessions.

``net`` implements these over sockets and ``storage`` over files; the tests implement them in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

from clasp_relay.core.records import Change
from clasp_relay.errors import CloseCode
from clasp_relay.wire.messages import Message, Publish, SignalDefinition, SnapshotParam, Value


class Kind(IntEnum):
    """What may happen to a frame that waits for a slow session (``docs/protocol.md``, Slow consumers)."""

    KEEP = 0
    """Never dropped: events, ACKs, ERRORs, answers."""

    PARAM = 1
    """A newer one for the same address takes its place."""

    DROP = 2
    """Streams and gesture moves: dropped, oldest first."""


class Frame(NamedTuple):
    """One message in the bytes of one codec, built once and shared by all sessions that get it."""

    wire: bytes
    """What goes to the transport, its framing included."""
    kind: Kind = Kind.KEEP
    address: str = ""


NOT_YET = b""
"""What a snapshot yields in the place of a frame, so that others have their turn; see ``Outbox.send_snapshot``."""


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Forgets the call; it must not have happened or been cancelled yet."""


class Clock(Protocol):
    """Time, as the core knows it."""

    def now_us(self) -> int:
        """Returns the Unix time in µs; it never goes back."""

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Makes ``call`` in ``delay_s`` seconds."""


class Codec(Protocol):
    """A protocol that sessions speak, as pure functions between messages and bytes.

    All sessions of one protocol share one object: a message to many of them is encoded once.
    """

    def decode(self, data: bytes, /) -> tuple[Message, int]:
        """Decodes what a session sent.

        Returns:
            The message, and its QoS: above 0 the sender waits for an ACK.

        Raises:
            DecodeError: it is not exactly one valid message.
        """

    def cost(self, data: bytes, /) -> int:
        """Estimates what a message costs before it is decoded, in usual messages; at least 1, and never raises."""

    def set(self, address: str, value: Value, revision: int, lock: bool, unlock: bool, ttl: int | None, /) -> bytes:
        """Encodes a change for subscribers, from the fields of ``messages.Set``."""

    def publish(self, message: Publish, /) -> bytes:
        """Encodes a signal for subscribers."""

    def ack(
        self,
        address: str | None = None,
        revision: int | None = None,
        locked: bool | None = None,
        holder: str | None = None,
        /,
    ) -> bytes:
        """Encodes an ACK, from the fields of ``messages.Ack``."""

    def encode(self, message: Message, /) -> bytes:
        """Encodes any other answer."""

    def snapshot(self, params: Iterable[SnapshotParam], /) -> Iterator[bytes]:
        """Yields the messages that carry some params; one without any when there are none."""

    def result(self, definitions: Iterable[SignalDefinition], /) -> Iterator[bytes]:
        """Yields the messages that carry some announced signals; one without any when there are none."""


class Outbox(Protocol):
    """One session's way out. Never waits, never raises; does nothing once the session is gone."""

    def send(self, frame: Frame) -> None:
        """Puts a frame behind everything that was sent to this session before."""

    def send_snapshot(self, key: object, frames: Iterator[bytes]) -> None:
        """Puts frames behind everything before, to be encoded as the socket drains.

        They do not count against the bound of what may wait.

        Args:
            key: what they answer; a waiting snapshot with an equal key is given up for the new one.
            frames: yields encoded messages (as ``Frame.wire``), or ``NOT_YET`` where it has worked for as long as
                some thousand params take and there is no message yet. If it has a ``close``, as generators do, that is
                called once when the rest is not wanted any more.
        """

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Closes the connection once all that was sent before is on its way."""

    def discard(self) -> None:
        """Drops all that was sent and is not on its way yet; what is sent afterwards follows as usual."""


class Audience:
    """Sessions of one codec that get everything at one address, made once and kept until that changes.

    Messages for the *same object* can share one write; so keep the object, and make no second one of the same
    sessions (``core.fanout.recipients``).

    Args:
        codec: what they speak.
        outboxes: each session's way out, once.
    """

    __slots__ = ("__weakref__", "codec", "members", "outboxes")

    def __init__(self, codec: Codec, outboxes: tuple[Outbox, ...]) -> None:
        self.codec = codec
        self.outboxes = outboxes
        self.members = frozenset(outboxes)


class FanOut(Protocol):
    """The way out to many sessions."""

    def fan_out(self, audience: Audience, frame: Frame, exclude: Outbox | None = None) -> None:
        """Sends one frame to all of an audience, in order with every ``Outbox.send``.

        Args:
            audience: who gets it.
            frame: what they get.
            exclude: one who does not (the sender of a PUBLISH).
        """


class Log(Protocol):
    """Where changes are recorded before they are acknowledged."""

    @property
    def is_immediate(self) -> bool:
        """Whether every change counts as recorded at once, so that nothing has to wait; always the same."""

    def append(self, changes: Sequence[Change]) -> int:
        """Records changes, all or none, and with them all that is appended in the same event of the loop.

        Args:
            changes: in the order in which they were applied.

        Returns:
            the number of the batch with which they are recorded, never less than those before; 0 where nobody waits
            for these changes.
        """

    def watch(self, recorded: Callable[[int], None]) -> None:
        """Is told, once, what is to be called with each batch that is recorded, in their order."""

    def check(self) -> None:
        """Refuses what a client wants to write, where it could not be recorded. Asked only where not immediate.

        Raises:
            RequestError: OVERLOADED.
        """


class ImmediateLog:
    """A log that keeps nothing: a change counts as recorded in the moment in which it is applied."""

    is_immediate = True

    def append(self, changes: Sequence[Change]) -> int:  # noqa: ARG002
        """See ``Log.append``."""
        return 0

    def watch(self, recorded: Callable[[int], None]) -> None:
        """Nobody waits for anything."""

    def check(self) -> None:
        """Nothing is recorded, so nothing is refused."""
