"""What the relay tells those who watch it, and the numbers that it keeps of itself.

Both are made for a hot path: a number costs one addition per message or per fan-out, never one per
subscriber, and what is told of every message costs one look at an attribute while nobody wants it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, get_args

from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.messages import Message

if TYPE_CHECKING:
    from clasp_relay.core.session.sessions import Session


class Observer(Protocol):
    """Is told what happens. None of its methods may raise."""

    @property
    def watches(self) -> bool:
        """Whether it wants to be told of every operation; asked for each message."""

    @property
    def traces(self) -> bool:
        """Whether it wants to be told of every frame; asked for each frame."""

    def began(self, session: Session) -> None:
        """A session's HELLO was accepted."""

    def ended(self, session: Session, cause: str) -> None:
        """A session has ended, be it before its HELLO (its ``hello_us`` is 0 then); told once.

        Args:
            session: which.
            cause: why, for people; may hold words that the client chose.
        """

    def refused(self, session: Session, refusal: RequestError) -> None:
        """A message of a live session was refused."""

    def limited(self, session: Session) -> None:
        """A message was dropped, since its session sends too many."""

    def operation(self, session: Session, message: Message) -> None:
        """A message is about to be handled. Told only when ``watches``."""

    def frame(self, session: Session, data: bytes) -> None:
        """A frame came, well-formed or not. Told only when ``traces``."""


class Unwatched:
    """An observer that wants to know nothing."""

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
    """What the relay has done since its start, all sessions together."""

    __slots__ = ("began", "errors", "limited", "received", "sent", "undecodable")

    def __init__(self) -> None:
        self.began = 0
        """Sessions whose HELLO was accepted."""
        self.received: dict[type[Message], int] = dict.fromkeys(get_args(Message), 0)
        """Messages by their type; those that were refused afterwards are among them."""
        self.sent = [0] * 256
        """Answers by their message code; what subscribers get is counted by ``Deliveries``."""
        self.errors: dict[ErrorCode, int] = dict.fromkeys(ErrorCode, 0)
        """ERRORs that were sent, by their code."""
        self.undecodable: dict[ErrorCode, int] = {ErrorCode.FRAME: 0, ErrorCode.MESSAGE: 0}
        """What could not be decoded, by the ERROR that it led to."""
        self.limited = 0
        """Messages that were dropped, since their session sends too many."""
