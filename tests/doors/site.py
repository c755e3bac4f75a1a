"""A relay in memory with clients at its doors, and one CLASP session beside them."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.testing import MemoryReactorClock

from clasp_relay.core.handlers import HANDLERS
from clasp_relay.core.history.memory import MemoryHistory
from clasp_relay.core.history.rules import HistoryRules
from clasp_relay.core.relay import Relay, RelayOptions
from clasp_relay.core.rights.port import Permissions
from clasp_relay.core.state.params import ParamLimits
from clasp_relay.net.admission import NetLimits
from clasp_relay.net.observer import UnwatchedNet
from clasp_relay.net.turn import TurnWriter
from clasp_relay.net.websocket import ClaspFactory
from clasp_relay.wire.codec import decode, encode
from clasp_relay.wire.frame import decode_frame, encode_frame
from clasp_relay.wire.messages import Hello, Message
from clasp_relay.wire.values import decode_value
from tests.cluster.world import Cluster, Member
from tests.core.world import WorldClock
from tests.net.helpers import ENDLESS, UPGRADE, Client, Pipe, client_frame


class Observer(UnwatchedNet):
    """Notes who was turned away."""

    def __init__(self) -> None:
        self.turned: list[tuple[str, str]] = []
        self.traced: list[bytes] = []

    def turned_away(self, address: str, why: str) -> None:
        """Notes it."""
        self.turned.append((address, why))

    def sent(self, session: str, data: bytes) -> None:
        """Notes it."""
        self.traced.append(data)


class AnyDoorFactory(Protocol):
    """What makes the connections of a door."""

    def buildProtocol(self, addr: Any) -> Any:
        """Makes one."""


class Site:
    """A relay whose doors are in memory.

    Args:
        limits: what connections may use.
        message_rate: messages a second and burst.
        permissions: who may do what; everybody may everything without.
        history: what is kept of the past; nothing without.
        memory: what another relay has kept, which this one goes on with.
    """

    def __init__(
        self,
        limits: NetLimits | None = None,
        message_rate: tuple[float, float] | None = None,
        permissions: Permissions | None = None,
        history: HistoryRules | None = None,
        memory: MemoryHistory | None = None,
    ) -> None:
        self.reactor = MemoryReactorClock()
        self.clock = WorldClock()
        self.clock.clock = self.reactor
        self.writer = TurnWriter(self.reactor)
        ids = iter(f"{number:08d}-0000-4000-8000-000000000000" for number in range(10_000))
        self.faults: list[Exception] = []
        if history is not None and memory is None:
            memory = MemoryHistory(self.clock.now_us, 1_000)
        self.memory = memory
        self.relay = Relay(
            RelayOptions(message_rate=message_rate, params=ParamLimits()),
            HANDLERS,
            self.clock,
            lambda: next(ids),
            self.writer,
            lambda _what, fault: self.faults.append(fault),
            permissions,
            log=memory,
            history=history,
            reader=memory,
        )
        if memory is not None:
            assert self.relay.keeping is not None
            memory.attach(self.relay.keeping)
        self.observer = Observer()
        self.gate = ClaspFactory(self.relay, self.writer, self.reactor, limits, observer=self.observer)

    def clasp(self, name: str = "clasp") -> Client:
        """Returns a CLASP session over WebSocket, past HELLO."""
        client = Client(self, self.gate.buildProtocol(None), Pipe(self.reactor))  # type: ignore[arg-type]  # a site, too
        client.send(UPGRADE)
        self.say(client, Hello(1, 0, name, name))
        client.clear()
        return client

    def say(self, client: Client, *messages: Message, qos: int = 0) -> None:
        """Has a CLASP session send messages, and lets the event loop turn."""
        client.send(*(client_frame(encode_frame(encode(message), qos)) for message in messages))
        self.turn()

    def value(self, address: str) -> object:
        """Returns what is set."""
        param = self.relay.params.get(address)
        return None if param is None else decode_value(param.value)

    def turn(self, seconds: float = 0) -> None:
        """Lets the event loop turn, and all that is due within it."""
        for _ in range(4):
            self.reactor.advance(0)
        while seconds > 0:
            self.reactor.advance(min(1, seconds))
            seconds -= 1

    def connect(self, factory: AnyDoorFactory, host: str = "192.0.2.1", room_bytes: int = ENDLESS) -> DoorClient:
        """Opens a TCP connection at a door."""
        return DoorClient(self, factory.buildProtocol(None), Pipe(self.reactor, room_bytes, host))


class MemberSite(Site):
    """A relay of a cluster in memory, whose doors are in memory, too.

    Args:
        member: the relay; its cluster is a ``door_cluster``.
    """

    def __init__(self, member: Member) -> None:
        clock, writer = member.clock, member.fan_out
        assert isinstance(clock, MemoryReactorClock), "doors need a reactor"
        assert isinstance(writer, TurnWriter), "doors need what writes at the end of a turn"
        self.cluster = member.cluster
        self.reactor, self.writer, self.relay = clock, writer, member.relay
        self.faults = []
        self.memory = None
        self.observer = Observer()
        self.gate = ClaspFactory(self.relay, self.writer, self.reactor, observer=self.observer)

    def turn(self, seconds: float = 0) -> None:
        """Lets the event loop turn, and all that is due within it."""
        self.cluster.turn()
        if seconds:
            self.cluster.advance(seconds)


def told(client: Client) -> list[Message]:
    """Returns what a CLASP session got, and forgets it."""
    client.turn()
    found = [decode(decode_frame(data).payload) for opcode, data in client.frames if opcode == 2]
    client.clear()
    return found


def door_cluster() -> Cluster:
    """Returns a cluster whose relays may have doors; none has begun."""
    reactor = MemoryReactorClock()
    return Cluster(reactor, lambda: TurnWriter(reactor))


class DoorClient:
    """A client's side of a TCP connection at a door."""

    def __init__(self, site: Site, protocol: Any, pipe: Pipe) -> None:
        self.site = site
        self.protocol = protocol
        self.pipe = pipe
        pipe.protocol = protocol
        protocol.makeConnection(pipe)

    def send(self, *data: bytes) -> None:
        """Sends bytes, unless the connection is gone, and lets the event loop turn."""
        for each in data:
            if self.pipe.connected:
                self.protocol.dataReceived(each)
        self.site.turn()
        self.pipe.drain(0)

    def heard(self) -> bytes:
        """Returns the bytes that came since the last call."""
        self.site.turn()
        self.pipe.drain(0)
        data = bytes(self.pipe.taken)
        self.pipe.taken.clear()
        return data

    @property
    def is_closed(self) -> bool:
        """Whether the relay has ended the connection."""
        self.site.turn()
        return not self.pipe.connected or bool(self.pipe.disconnecting)
