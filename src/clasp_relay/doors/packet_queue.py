"""Packets of one client that wait behind one before them, and the one timer that looks whether that one can go on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

LOOK_S = 0.1
"""How often it is looked whether what a client waits for is there: in a cluster its token, or that reads go on."""

MAX_WAITING_BYTES = 1024 * 1024
"""What may wait of one client. Over a connection no more is read while something waits, and one read brings less."""

PACKET_BYTES = 128
"""What a packet that waits counts for beside its bytes."""


class PacketQueue:
    """What one client sends while a packet before it is at work.

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
        """Whether a packet is at work, so that what comes has to wait."""

    def begin(self, look: Callable[[], None] | None = None, delay_s: float = LOOK_S) -> None:
        """Has what comes wait from now on, until ``end``.

        Args:
            look: called once, after ``delay_s`` seconds, instead of what was to be called before; it calls ``end`` or
                ``begin``. None where something else calls ``end``.
            delay_s: how long it waits for that.
        """
        self.is_on = True
        self._forget_look()
        if look is not None:
            self._look = look
            self._timer = self._reactor.callLater(delay_s, self.look_now)

    def look_now(self) -> None:
        """Calls at once what ``begin`` was given, since what it waits for may be there; nothing where that is None."""
        look = self._look
        self._forget_look()
        if look is not None:
            look()

    def add(self, packet: bytes, most_bytes: int) -> bool:
        """Adds a packet, unless all that waits would be more than a bound; returns whether it did."""
        size = PACKET_BYTES + len(packet)
        if self._bytes + size > most_bytes:
            return False
        self._packets.append(packet)
        self._bytes += size
        return True

    def end(self) -> None:
        """What waits may be taken."""
        self.is_on = False
        self._forget_look()

    def next(self) -> bytes | None:
        """Returns the packet that waits longest, which waits no more; None for none, or while one is at work."""
        if self.is_on or not self._packets:
            return None
        packet = self._packets.popleft()
        self._bytes -= PACKET_BYTES + len(packet)
        return packet

    def stop(self) -> None:
        """The client is gone, and nothing is looked for any more."""
        self._forget_look()
        self._packets.clear()
        self._bytes = 0

    def _forget_look(self) -> None:
        timer, self._timer, self._look = self._timer, None, None
        if timer is not None and timer.active():
            timer.cancel()
