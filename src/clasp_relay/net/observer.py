"""What the net layer tells those who watch it, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(slots=True)
class Counters:
    """What was sent and received since the start, and what slow sessions missed, all connections together.

    Attributes:
        coalesced: frames that a newer value of the same address replaced.
        dropped: streams and gesture moves that were left out.
        slow_closes: sessions that were ended as too slow.
        received_bytes: what came, the upgrade and control frames included.
        sent_bytes: WebSocket messages that were handed to transports.
        turned_away: connections that did not become sessions, since there were too many or of a wrong origin.
        texts: text messages, each the end of its session.
    """

    coalesced: int = 0
    dropped: int = 0
    slow_closes: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
    turned_away: int = 0
    texts: int = 0
