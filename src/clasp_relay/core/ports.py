"""What the core is given: a clock, a session's way out, and the way out to many sessions at once.

``net`` implements these over sockets, the tests implement them in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import NamedTuple, Protocol

from clasp_relay.errors import CloseCode


class Kind(IntEnum):
    """What may happen to a frame that waits for a slow session (``docs/protocol.md``, Slow consumers)."""

    KEEP = 0
    """Never dropped: events, ACKs, ERRORs, answers."""

    PARAM = 1
    """A newer one for the same address takes its place."""

    DROP = 2
    """Streams and gesture moves: dropped, oldest first."""


class Frame(NamedTuple):
    """One encoded CLASP frame on its way out, built once and shared by all who get it."""

    data: bytes
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


class Outbox(Protocol):
    """One session's way out. Never waits, never raises; does nothing once the session is gone."""

    def send(self, frame: Frame) -> None:
        """Puts a frame behind everything that was sent to this session before."""

    def send_snapshot(self, key: object, frames: Iterator[bytes]) -> None:
        """Puts frames behind everything before, to be encoded as the socket drains.

        They do not count against the bound of what may wait.

        Args:
            key: what they answer; a waiting snapshot with an equal key is given up for the new one.
            frames: yields encoded CLASP frames, or ``NOT_YET`` where it has worked for as long as some thousand
                params take and there is no frame yet.
        """

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Closes the WebSocket once all that was sent before is on its way."""


class Audience:
    """The sessions that get everything at one address, made once and kept until that changes.

    Messages for the *same object* can share one write; so keep the object, and make no second one of the same
    sessions (``core.fanout.audiences``).

    Args:
        outboxes: each session's way out, once.
    """

    __slots__ = ("__weakref__", "members", "outboxes")

    def __init__(self, outboxes: tuple[Outbox, ...]) -> None:
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
