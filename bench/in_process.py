"""A relay and its clients in one process, without sockets: for measurements that count and do not take times.

It works with the modules of every version since 9d05226.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Connection

from bench.client import UPGRADE, Client, head
from clasp_relay.access.permissions import TokenPermissions
from clasp_relay.access.policy import Policy
from clasp_relay.access.tokens import POLICY_SCOPES, TokenTable, digest_of
from clasp_relay.clock import ReactorClock
from clasp_relay.core import handlers
from clasp_relay.core.relay import Relay, RelayOptions
from clasp_relay.net.turn import TurnWriter
from clasp_relay.storage.users import TokenRecord

OPEN, POLICY = "open", "chat policy"
"""The modes of a relay."""

_MASK = b"abcd"


class _Timer:
    """A call that is made in the next turn, or never.

    Args:
        due: the timers of the next turn.
        call: the call.
    """

    def __init__(self, due: dict[_Timer, None], call: Callable[[], object]) -> None:
        self._due = due
        self.call = call

    def active(self) -> bool:
        """Tells whether the call is to be made in the next turn."""
        return self in self._due

    def cancel(self) -> None:
        """Forgets the call."""
        self._due.pop(self, None)

    def reset(self, delay_s: float) -> None:
        """Has the call made in the next turn if it is due then; there is no later."""
        self.cancel()
        if not delay_s:
            self._due[self] = None


class _Reactor:
    """A reactor whose clock does not advance within a turn, so that no turn is too long, however slow counting is.

    Twisted's ``MemoryReactorClock`` would be counted as a part of the relay; code in this folder is not counted.
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        self.turn_end_s = 1.0
        """See ``net.reactor``."""
        self._due: dict[_Timer, None] = {}
        self._wall_us = itertools.count(1_700_000_000_000_000, 10)

    def seconds(self) -> float:
        """Returns the time at which this turn began."""
        return self._now_s

    def wall_s(self) -> float:
        """Returns a Unix time, 10 µs later at each call."""
        return next(self._wall_us) / 1e6

    def callLater(self, delay_s: float, call: Callable[..., object], *args: object) -> _Timer:  # noqa: N802
        """See ``_Timer.reset``."""
        timer = _Timer(self._due, lambda: call(*args))
        timer.reset(delay_s)
        return timer

    def addWriter(self, transport: Any) -> None:  # noqa: N802
        """Has a transport write in the next turn."""
        self.callLater(0, transport.doWrite)

    def removeWriter(self, transport: Any) -> None:  # noqa: N802
        """Does nothing: a transport writes once for each call of ``addWriter``."""

    addReader = removeReader = removeWriter  # noqa: N815

    def turn(self) -> None:
        """Makes calls, turn by turn, until none is due."""
        while self._due:
            self._now_s += 0.001
            self.turn_end_s = self._now_s + 1
            for timer in list(self._due):
                if timer.active():
                    timer.cancel()
                    timer.call()


class _Socket:
    """A socket that accepts all data."""

    def send(self, data: bytes) -> int:
        """Returns the number of accepted bytes."""
        return len(data)


class _Transport(Connection):
    """Twisted's TCP connection, with a socket in memory and a client address of its own."""

    socket: Any

    def __init__(self, reactor: Any, number: int) -> None:
        FileDescriptor.__init__(self, reactor)
        self._host = f"10.0.{number >> 8}.{number & 255}"
        self.connected = True
        self.socket = _Socket()
        self.protocol = Protocol()

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: N802
        """Does nothing."""

    def setTcpKeepAlive(self, enabled: bool) -> None:  # noqa: N802
        """Does nothing."""

    def getPeer(self) -> IPv4Address:  # noqa: N802
        """Returns the client's address."""
        return IPv4Address("TCP", self._host, 1)

    def getHost(self) -> IPv4Address:  # noqa: N802
        """Returns the relay's address."""
        return IPv4Address("TCP", "192.0.2.1", 7330)


class Member(Client):
    """A client; the frames that it sends stay in ``said`` until ``World.read`` delivers them."""

    def __init__(self, user: str, protocol: Any) -> None:
        self.user = user
        self.protocol = protocol
        self.said = UPGRADE

    def write(self, frame: bytes) -> None:
        """Sends a frame, masked as browsers do it."""
        masked = bytes(byte ^ mask for byte, mask in zip(frame, itertools.cycle(_MASK)))
        self.said += head(frame) + _MASK + masked


class World:
    """A relay and its clients, all in one process.

    Args:
        mode: whether the relay is open or has the chat policy.
    """

    def __init__(self, mode: str) -> None:
        self._mode = mode
        reactor: Any = _Reactor()
        self._reactor: _Reactor = reactor
        clock = ReactorClock(reactor, reactor.wall_s, reactor.seconds)
        self._tokens = TokenTable(reactor, reactor.wall_s)
        self.writer = TurnWriter(reactor)
        """The writer of all sessions, which counts the bytes."""
        self._faults: list[tuple[str, Exception]] = []
        given: dict[str, Any] = {
            "options": RelayOptions(),
            "clock": clock,
            "new_id": map("00000000-0000-4000-8000-{:012d}".format, itertools.count()).__next__,
            "fan_out": self.writer,
            "report_fault": lambda *fault: self._faults.append(fault),
        }
        if mode == POLICY:
            given["permissions"] = TokenPermissions(self._tokens, Policy.packaged("chat"), clock.now_us)
        if "handlers" in inspect.signature(Relay).parameters:
            given["handlers"] = handlers.HANDLERS
        self._relay = Relay(**given)
        self._factory = _factory_class()(self._relay, self.writer, reactor)
        self.members: list[Member] = []
        """All of them, in the order in which they joined."""

    def join(self, room: int) -> Member:
        """Connects a client, which enters a room."""
        number = len(self.members)
        user = f"user-{number}"
        self._tokens.add(TokenRecord(digest_of(user), user, user, False, POLICY_SCOPES, 0, None))
        protocol = self._factory.buildProtocol(None)
        protocol.makeConnection(_Transport(self._reactor, number))
        member = Member(user, protocol)
        self.members.append(member)
        self.read()
        member.hello(user if self._mode == POLICY else "")
        self.read()
        if self._mode == POLICY:
            member.set_name(f"/chat/room/{room}/presence/{user}", user)
            self.read()
        return member

    def event(self, room: int) -> str:
        """Returns the address of a room's messages."""
        return f"/chat/room/{room}/messages" if self._mode == POLICY else f"/bench/{room}/a"

    def param(self, member: Member) -> str:
        """Returns the address of a param that only this client writes."""
        return f"/chat/room/0/reactions/a/x/{member.user}" if self._mode == POLICY else f"/bench/0/{member.user}"

    def read(self) -> None:
        """Delivers the clients' frames, and runs turns until all are handled; none may be refused."""
        for member in self.members:
            said, member.said = member.said, b""
            if said:
                member.protocol.dataReceived(said)
        self._reactor.turn()
        assert not self._faults, self._faults
        assert not any(self._relay.counts.errors.values()), self._relay.counts.errors


def _factory_class() -> Any:
    """Returns the factory of connections, which earlier versions have in a module of its own."""
    try:
        module = importlib.import_module("clasp_relay.net.factory")
    except ModuleNotFoundError:
        module = importlib.import_module("clasp_relay.net.websocket")
    return module.ClaspFactory
