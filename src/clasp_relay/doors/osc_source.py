"""One OSC client: a session of the core, and the rate at which it is sent other clients' values."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from clasp_relay.core.ports import Frame, Kind
from clasp_relay.core.session.account import MemoryKind
from clasp_relay.core.session.sessions import Session
from clasp_relay.doors.handed_outbox import HandedOutbox
from clasp_relay.doors.packet_queue import PacketQueue
from clasp_relay.errors import CloseCode
from clasp_relay.net.backlog import give_up
from clasp_relay.wire.messages import ParamFields, Publish
from clasp_relay.wire.osc.mapping import OscCodec

RESYNC_INTERVAL_S = 0.02
RESYNC_PACKETS = 10
"""Packets of a resync in each interval, 500 a second: a phone's receive buffer holds hardly more."""

MAX_HELD = 10_000
"""Values that may wait at one client; beyond it the one that has waited longest is dropped."""


class SenderAwareCodec(OscCodec):
    """Encodes like ``OscCodec``, and notes on the bytes of a delivery which client caused it."""

    sender: object = None
    """The client whose message is being handled."""
    followed: Callable[[], object] | None = None
    """Returns the client whose message, decided by another core, is being sent; None if it is no OSC client's here. Set
    in a cluster."""

    def set(self, *fields: Any) -> bytes:
        """See ``OscCodec``."""
        return Sent.of(super().set(*fields), self._cause())

    def publish(self, message: Publish) -> bytes:
        """See ``OscCodec``."""
        return Sent.of(super().publish(message), self._cause())

    def _cause(self) -> object:
        return self.sender if self.followed is None else self.followed()

    def snapshot(self, params: Iterable[ParamFields]) -> Iterator[bytes]:
        """See ``OscCodec``."""
        for param in params:
            made = Sent.of(next(iter(super().snapshot((param,)))), None)
            made.address = param.address
            yield made


class Sent(bytes):
    """A packet with the client that caused it, so that the client does not get it back."""

    sender: object
    address = ""
    """The address of a packet of a resync."""

    @classmethod
    def of(cls, packet: bytes, sender: object) -> Sent:
        """Returns a packet of a client."""
        made = cls(packet)
        made.sender = sender
        return made


class OscOutbox(HandedOutbox):
    """A client's outbox. Implements ``core.ports.Outbox``.

    Args:
        reactor: for its clock.
        send: sends one packet.
        interval_s: the shortest time between two values of one address; 0 for no limit.
    """

    def __init__(self, reactor: IReactorTime, send: Callable[[bytes], None], interval_s: float) -> None:
        self._reactor = reactor
        self._send = send
        self._interval_s = interval_s
        self._last_s: dict[str, float] = {}
        self._held: dict[str, bytes] = {}
        self._timer: IDelayedCall | None = None
        self._resync: deque[Iterator[bytes]] = deque()
        self._resync_call: IDelayedCall | None = None
        # Addresses with values that were sent since the present resync began: its older ones must not follow.
        self._overtaken: set[str] = set()
        self.takes_snapshots = False
        """Whether the client has asked for the current params; otherwise it is sent only changes."""
        self.closed: str | None = None
        """Why the session was closed; None while it is open."""

    def deliver(self, frame: Frame) -> None:
        """Sends a delivery, unless this client caused it; delays a value that follows another one too soon."""
        packet = frame.wire
        if not packet or self.closed is not None or getattr(packet, "sender", None) is self:
            return
        if frame.kind is not Kind.PARAM:
            self._send(packet)
            return
        if self._resync:
            self._overtaken.add(frame.address)
        now_s = self._reactor.seconds()
        if frame.address in self._held or now_s - self._last_s.get(frame.address, -1e9) < self._interval_s:
            self._held[frame.address] = packet
            if len(self._held) > MAX_HELD:
                del self._held[next(iter(self._held))]
            if self._timer is None:
                due_s = self._last_s.get(frame.address, now_s) + self._interval_s
                self._timer = self._reactor.callLater(max(due_s - now_s, 0.0), self._send_held)
            return
        self._last_s[frame.address] = now_s
        if len(self._last_s) > MAX_HELD:
            del self._last_s[next(iter(self._last_s))]
        self._send(packet)

    def _send_held(self) -> None:
        """Sends the values that have waited long enough, and schedules the next call while others wait."""
        self._timer = None
        now_s = self._reactor.seconds()
        oldest_s = now_s - self._interval_s
        self._last_s = {address: sent_s for address, sent_s in self._last_s.items() if sent_s > oldest_s}
        for address in [address for address in self._held if address not in self._last_s]:
            self._last_s[address] = now_s
            self._send(self._held.pop(address))
        if self._held:
            due_s = min(map(self._last_s.__getitem__, self._held)) + self._interval_s
            # Values that are due soon after each other are sent together.
            self._timer = self._reactor.callLater(max(due_s - now_s, self._interval_s / 8), self._send_held)

    # core.ports.Outbox

    def send(self, frame: Frame) -> None:
        """See ``core.ports.Outbox``: answers are empty, deliveries to one session are not."""
        self.deliver(frame)

    def send_snapshot(self, _key: object, frames: Iterator[bytes]) -> None:
        """See ``core.ports.Outbox``; paced, and dropped if the client has not asked for it."""
        if not self.takes_snapshots or self.closed is not None:
            give_up(frames)
            return
        self._resync.append(frames)
        if self._resync_call is None:
            self._send_some()

    def close(self, _close_code: CloseCode, reason: str) -> None:
        """See ``core.ports.Outbox``: OSC has no message for it, so the client is only sent nothing more."""
        self.closed = self.closed or reason
        self.discard()

    def discard(self) -> None:
        """See ``core.ports.Outbox``."""
        self._held.clear()
        while self._resync:
            give_up(self._resync.popleft())
        for timer in (self._timer, self._resync_call):
            if timer is not None:
                timer.cancel()
        self._timer = self._resync_call = None

    def abort(self) -> None:
        """Ends the session after an internal error."""
        self.close(CloseCode.INTERNAL, "internal error")

    def _send_some(self) -> None:
        self._resync_call = None
        for _ in range(RESYNC_PACKETS):
            packet = next(self._resync[0], None)
            if packet is None:
                self._resync.popleft()
                if not self._resync:
                    self._overtaken.clear()
                    return
            elif packet and getattr(packet, "address", "") not in self._overtaken:
                self._send(packet)
        self._resync_call = self._reactor.callLater(RESYNC_INTERVAL_S, self._send_some)


class OscSource:
    """An OSC client.

    Args:
        session: its session.
        outbox: its outbox.
        reactor: for its clock.
    """

    def __init__(self, session: Session, outbox: OscOutbox, reactor: IReactorTime) -> None:
        self.session = session
        self.outbox = outbox
        self.heard_s = reactor.seconds()
        """When it was heard last."""
        self.pending: dict[IDelayedCall, int] = {}
        """The calls of bundles that wait for their time, and the memory of each."""
        self.undecided = 0
        """Messages that another core has not decided yet."""
        self.waiting = PacketQueue(reactor)
        """Packets behind a command that waits for those messages."""

    def wait(self, call: IDelayedCall, size_bytes: int) -> None:
        """Keeps a bundle until its time."""
        self.pending[call] = size_bytes
        self.session.account.add(MemoryKind.BUNDLES, size_bytes)

    def wait_no_more(self, call: IDelayedCall) -> None:
        """Removes a bundle whose time has come."""
        self.session.account.add(MemoryKind.BUNDLES, -self.pending.pop(call))

    def end(self) -> None:
        """Drops all waiting bundles and packets."""
        for call in list(self.pending):
            call.cancel()
            self.wait_no_more(call)
        self.waiting.stop()
        self.outbox.close(CloseCode.NORMAL, "the source is forgotten")
