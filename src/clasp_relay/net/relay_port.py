"""What the net layer needs of the relay."""

from __future__ import annotations

from typing import Protocol, TypeVar

from clasp_relay.core.ports import Codec, Outbox


class SessionPort(Protocol):
    """A session, as far as its connection looks at it."""

    @property
    def id(self) -> str:
        """What the session is called in the log."""

    @property
    def is_live(self) -> bool:
        """Whether HELLO was accepted and WELCOME sent."""


S = TypeVar("S", bound=SessionPort)


class RelayPort(Protocol[S]):
    """The relay. None of its methods raises."""

    def connect(self, outbox: Outbox, peer: str, codec: Codec) -> S:
        """Begins a session.

        Args:
            outbox: its way out.
            peer: the client's address.
            codec: the protocol that it speaks.
        """

    def receive(self, session: S, data: bytes) -> None:
        """Takes one message, in the session's codec."""

    def disconnect(self, session: S, cause: str) -> None:
        """Ends a session; harmless when it has ended already.

        Args:
            session: which.
            cause: why, for people.
        """
