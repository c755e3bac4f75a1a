"""The interfaces that the core is given: a clock, a log, codecs, and the outboxes of its sessions.

``net`` implements these over sockets and ``storage`` over files; the tests implement them in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

from clasp_relay.core.records import Change
from clasp_relay.errors import CloseCode
from clasp_relay.wire.messages import Message, ParamFields, Publish, SignalDefinition, Value


class Kind(IntEnum):
    """Whether a frame that waits for a slow session may be dropped (``docs/protocol.md``, Slow consumers)."""

    KEEP = 0
    """Never dropped: events, ACKs, ERRORs, answers."""

    PARAM = 1
    """Replaced by a newer one for the same address."""

    DROP = 2
    """Streams and gesture moves: dropped, oldest first."""


class Frame(NamedTuple):
    """One message in the bytes of one codec, built once and shared by all sessions that get it."""

    wire: bytes
    """The bytes for the transport, with its framing."""
    kind: Kind = Kind.KEEP
    address: str = ""


NOT_YET = b""
"""What a snapshot yields instead of a frame, to pause until a later turn; see ``Outbox.send_snapshot``."""


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Cancels the call; it must not have happened or been cancelled yet."""


class Clock(Protocol):
    """The current time, and timers."""

    def now_us(self) -> int:
        """Returns the Unix time in µs; it never goes back."""

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Calls ``call`` in ``delay_s`` seconds."""


class Codec(Protocol):
    """A protocol of sessions, as pure functions between messages and bytes.

    All sessions of one protocol share one object: a message to many of them is encoded once.
    """

    def decode(self, data: bytes, /) -> tuple[Message, int]:
        """Decodes one message of a session.

        Returns:
            The message, and its QoS: above 0 the sender waits for an ACK.

        Raises:
            DecodeError: it is not exactly one valid message.
        """

    def cost(self, data: bytes, /) -> int:
        """Estimates the cost of an undecoded message; at least 1, the cost of a usual message. Never raises."""

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

    def snapshot(self, params: Iterable[ParamFields], /) -> Iterator[bytes]:
        """Yields the messages that carry some params; an empty one if there are none."""

    def result(self, definitions: Iterable[SignalDefinition], /) -> Iterator[bytes]:
        """Yields the messages that carry some announced signals; an empty one if there are none."""


class Outbox(Protocol):
    """Sends to one session. Its methods never block and never raise; they do nothing once the session has ended."""

    def send(self, frame: Frame) -> None:
        """Queues a frame after everything that was sent to this session before."""

    def send_snapshot(self, key: object, frames: Iterator[bytes]) -> None:
        """Queues frames after everything that was sent before; they are encoded as the socket drains.

        They do not count against the bound of the queue.

        Args:
            key: identifies what they answer; a waiting snapshot with an equal key is dropped for the new one.
            frames: yields encoded messages (as ``Frame.wire``), or ``NOT_YET`` after about the work of a thousand
                params without a message. If it has a ``close``, as generators do, that is called once when the rest is
                dropped.
        """

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Closes the connection once all that was sent before was handed to the socket."""

    def discard(self) -> None:
        """Drops all that was sent but not handed to the socket yet; what is sent afterwards is sent as usual."""


class Audience:
    """The sessions of one codec that get every message at an address, kept until the subscriptions change.

    Messages for the *same object* can share one write: so keep the object, and never make a second one for the same
    sessions (``core.fanout.recipients``).

    Args:
        codec: their codec.
        outboxes: the outbox of each session, once.
    """

    __slots__ = ("__weakref__", "codec", "members", "outboxes")

    def __init__(self, codec: Codec, outboxes: tuple[Outbox, ...]) -> None:
        self.codec = codec
        self.outboxes = outboxes
        self.members = frozenset(outboxes)


class FanOut(Protocol):
    """Sends frames to many sessions."""

    def fan_out(self, audience: Audience, frame: Frame, exclude: Outbox | None = None) -> None:
        """Sends one frame to an audience, in order with every ``Outbox.send``.

        Args:
            audience: the recipients.
            frame: the message.
            exclude: an outbox that does not get it (of the sender of a PUBLISH).
        """


class Log(Protocol):
    """Where changes are recorded before they are acknowledged."""

    @property
    def is_immediate(self) -> bool:
        """Whether every change counts as recorded at once, so that no answer has to wait; constant."""

    def append(self, changes: Sequence[Change]) -> int:
        """Records changes, all or none, together with all that is appended in the same event of the loop.

        Args:
            changes: in the order in which they were applied.

        Returns:
            the number of the batch with which they are recorded, which never decreases; 0 if no answer waits for these
            changes.
        """

    def watch(self, recorded: Callable[[int], None]) -> None:
        """Sets the function that is called with the number of each recorded batch, in order; called once."""

    def check(self) -> None:
        """Refuses a client's write if it could not be recorded. Called only if not ``is_immediate``.

        Raises:
            RequestError: OVERLOADED.
        """


class ImmediateLog:
    """A log that keeps nothing: a change counts as recorded as soon as it is applied."""

    is_immediate = True

    def append(self, changes: Sequence[Change]) -> int:  # noqa: ARG002
        """See ``Log.append``."""
        return 0

    def watch(self, recorded: Callable[[int], None]) -> None:
        """Does nothing: no answer waits."""

    def check(self) -> None:
        """Refuses nothing: nothing is recorded."""
