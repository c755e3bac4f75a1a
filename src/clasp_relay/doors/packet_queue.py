"""A client's packets behind one that is being handled, and the timer that checks whether that one can go on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

LOOK_S = 0.1
"""Interval of the checks whether a packet can go on: in a cluster it may wait for its token, or for reads."""

MAX_WAITING_BYTES = 1024 * 1024
"""Limit of one client's queue in bytes. A connection is not read while packets wait, and one read has less."""

PACKET_BYTES = 128
"""Bytes that a waiting packet counts for in addition to its own."""


class PacketQueue:
    """The packets that a client sends while an earlier one is being handled.

    Args:
        reactor: for its clock.
    """

    __slots__ = ("_bytes", "_look", "_packets", "_reactor", "_timer", "is_on")

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._packets: deque[bytes] = deque()
        self._bytes = 0
        self._look: Callable[[], None] | None = None
        self._timer: IDelayedCall | None = None
        self.is_on = False
        """Whether a packet is being handled, so that later ones have to wait."""

    def begin(self, look: Callable[[], None] | None = None, delay_s: float = LOOK_S) -> None:
        """Lets later packets wait from now on, until ``end``.

        Args:
            look: a check that is called once, after ``delay_s`` seconds, and replaces an earlier one; it calls ``end``
                or ``begin``. None if something else calls ``end``.
            delay_s: the delay in seconds.
        """
        self.is_on = True
        self._forget_look()
        if look is not None:
            self._look = look
            self._timer = self._reactor.callLater(delay_s, self.look_now)

    def look_now(self) -> None:
        """Makes the check of ``begin`` now, since the packet may be able to go on; does nothing if there is none."""
        look = self._look
        self._forget_look()
        if look is not None:
            look()

    def add(self, packet: bytes, most_bytes: int) -> bool:
        """Adds a packet, unless the queue would exceed a limit in bytes; returns whether it did."""
        size = PACKET_BYTES + len(packet)
        if self._bytes + size > most_bytes:
            return False
        self._packets.append(packet)
        self._bytes += size
        return True

    def end(self) -> None:
        """Lets the waiting packets be taken."""
        self.is_on = False
        self._forget_look()

    def next(self) -> bytes | None:
        """Removes and returns the oldest packet; None for none, or while one is being handled."""
        if self.is_on or not self._packets:
            return None
        packet = self._packets.popleft()
        self._bytes -= PACKET_BYTES + len(packet)
        return packet

    def stop(self) -> None:
        """Drops all packets and the check, since the client is gone."""
        self._forget_look()
        self._packets.clear()
        self._bytes = 0

    def _forget_look(self) -> None:
        timer, self._timer, self._look = self._timer, None, None
        if timer is not None and timer.active():
            timer.cancel()
