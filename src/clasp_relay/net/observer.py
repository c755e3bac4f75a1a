"""The interface by which the net layer reports what happens, and its counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class NetObserver(Protocol):
    """Gets reports about connections. None of its methods may raise."""

    @property
    def traces(self) -> bool:
        """Whether it wants reports of all that is sent; read once for each connection."""

    def turned_away(self, address: str, why: str) -> None:
        """A connection did not become a session.

        Args:
            address: the client's address.
            why: the reason, for people.
        """

    def slow(self, session: str, address: str, waiting_bytes: int) -> None:
        """A session's queue is over its bound: newer values replace older ones, streams are dropped.

        Reported for every frame that is queued then.

        Args:
            session: its id.
            address: the client's address.
            waiting_bytes: the bytes in the queue.
        """

    def sent(self, session: str, data: bytes) -> None:
        """Bytes were written to a session: one or several WebSocket messages. Reported only when ``traces``."""


class UnwatchedNet:
    """An observer that ignores all reports."""

    traces = False

    def turned_away(self, address: str, why: str) -> None:
        """See ``NetObserver``."""

    def slow(self, session: str, address: str, waiting_bytes: int) -> None:
        """See ``NetObserver``."""

    def sent(self, session: str, data: bytes) -> None:
        """See ``NetObserver``."""


@dataclass(slots=True)
class Counters:
    """The counters of the net layer since the start, for all connections together.

    Attributes:
        coalesced: frames that a newer value of the same address replaced.
        dropped: streams and gesture moves that were left out.
        slow_closes: sessions that were ended as too slow.
        received_bytes: received bytes, the upgrade and control frames included.
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
