"""What the net layer tells those who watch it."""

from __future__ import annotations

from typing import Protocol


class NetObserver(Protocol):
    """Is told what happens to connections. None of its methods may raise."""

    @property
    def traces(self) -> bool:
        """Whether it wants to be told of all that is sent; asked once for each connection."""

    def turned_away(self, address: str, why: str) -> None:
        """A connection did not become a session.

        Args:
            address: the client's.
            why: for people.
        """

    def slow(self, session: str, address: str, waiting_bytes: int) -> None:
        """More waits for a session than may: older values give way to newer ones, streams are dropped.

        Told for every frame that meets this.

        Args:
            session: its id.
            address: the client's.
            waiting_bytes: how much waits.
        """

    def sent(self, session: str, data: bytes) -> None:
        """Bytes were written to a session: WebSocket messages, several in a row. Told only when ``traces``."""


class UnwatchedNet:
    """An observer that wants to know nothing."""

    traces = False

    def turned_away(self, address: str, why: str) -> None:
        """See ``NetObserver``."""

    def slow(self, session: str, address: str, waiting_bytes: int) -> None:
        """See ``NetObserver``."""

    def sent(self, session: str, data: bytes) -> None:
        """See ``NetObserver``."""
