"""The interface by which the relay reports what happens, and the relay's counters.

Both are made for the hot path: a counter costs one addition per message or per fan-out, never one per subscriber, and a
report of every message costs one read of an attribute while no observer wants it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, get_args

from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.messages import Message

if TYPE_CHECKING:
    from clasp_relay.core.session.sessions import Session


class Observer(Protocol):
    """Gets reports of what happens. None of its methods may raise."""

    @property
    def watches(self) -> bool:
        """Whether it wants a report of every operation; read for each message."""

    @property
    def traces(self) -> bool:
        """Whether it wants a report of every frame; read for each frame."""

    def began(self, session: Session) -> None:
        """A session's HELLO was accepted."""

    def ended(self, session: Session, cause: str) -> None:
        """A session has ended, also one without a HELLO (its ``hello_us`` is 0 then); reported once.

        Args:
            session: the session.
            cause: the cause, as text for people; may contain text that the client chose.
        """

    def refused(self, session: Session, refusal: RequestError) -> None:
        """A message of a live session was refused."""

    def limited(self, session: Session) -> None:
        """A message was dropped, since its session sends too many."""

    def operation(self, session: Session, message: Message) -> None:
        """A message is about to be handled. Called only if ``watches``."""

    def frame(self, session: Session, data: bytes) -> None:
        """A frame was received, well-formed or not. Called only if ``traces``."""


class Unwatched:
    """An observer that ignores all reports."""

    watches = False
    traces = False

    def began(self, session: Session) -> None:
        """See ``Observer``."""

    def ended(self, session: Session, cause: str) -> None:
        """See ``Observer``."""

    def refused(self, session: Session, refusal: RequestError) -> None:
        """See ``Observer``."""

    def limited(self, session: Session) -> None:
        """See ``Observer``."""

    def operation(self, session: Session, message: Message) -> None:
        """See ``Observer``."""

    def frame(self, session: Session, data: bytes) -> None:
        """See ``Observer``."""


class Counts:
    """The relay's counters since its start, for all sessions together."""

    __slots__ = ("began", "errors", "limited", "received", "sent", "undecodable")

    def __init__(self) -> None:
        self.began = 0
        """Sessions whose HELLO was accepted."""
        self.received: dict[type[Message], int] = dict.fromkeys(get_args(Message), 0)
        """Messages by their type; those that were refused afterwards are among them."""
        self.sent = [0] * 256
        """Answers by their message code; messages to subscribers are counted by ``Recipients``."""
        self.errors: dict[ErrorCode, int] = dict.fromkeys(ErrorCode, 0)
        """ERRORs that were sent, by their code."""
        self.undecodable: dict[ErrorCode, int] = {ErrorCode.FRAME: 0, ErrorCode.MESSAGE: 0}
        """Undecodable input, by the ERROR code that was sent."""
        self.limited = 0
        """Messages that were dropped, since their session sends too many."""
