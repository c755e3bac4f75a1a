"""Measures the CPU time of one SET in the core alone, with growing state."""

from __future__ import annotations

import itertools
import struct
import time
import uuid
from collections.abc import Callable, Iterator, Mapping

from clasp_relay.core.handlers import HANDLERS
from clasp_relay.core.ports import Audience, Frame, Outbox, Timer
from clasp_relay.core.relay import Relay, RelayOptions
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.state.params import ParamLimits
from clasp_relay.errors import CloseCode
from clasp_relay.wire.clasp import ClaspCodec

_CODEC = ClaspCodec()
SUBSCRIBERS = 10
MESSAGES = 20_000


class _Nowhere:
    """An outbox and a fan-out that discard everything."""

    def send(self, frame: Frame) -> None:
        """See ``core.ports.Outbox``."""

    def send_snapshot(self, key: object, frames: Iterator[bytes]) -> None:
        """See ``core.ports.Outbox``."""

    def discard(self) -> None:
        """See ``core.ports.Outbox``."""

    def close(self, close_code: CloseCode, reason: str) -> None:
        """See ``core.ports.Outbox``."""
        raise AssertionError(f"closed with {close_code}: {reason}")

    def fan_out(self, audience: Audience, frame: Frame, exclude: Outbox | None = None) -> None:
        """See ``core.ports.FanOut``."""


class _Clock:
    """The real time; nothing is called later."""

    def now_us(self) -> int:
        """See ``core.ports.Clock``."""
        return time.time_ns() // 1000

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """See ``core.ports.Clock``."""
        raise AssertionError(f"nothing here is due in {delay_s} s: {call}")


def _frame(payload: bytes, flags: int = 0x41) -> bytes:
    return b"\x53" + bytes((flags,)) + struct.pack(">H", len(payload)) + payload


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()


def _set(address: str) -> bytes:
    return _frame(b"\x21\x07" + _text(address) + struct.pack(">d", 1.5))


def _subscribe(number: int, pattern: str) -> bytes:
    return _frame(b"\x10" + struct.pack(">I", number) + _text(pattern) + b"\xff\x00", 1)


class _World:
    """A relay with a publisher and its subscribers."""

    def __init__(self) -> None:
        options = RelayOptions(params=ParamLimits(max_params=300_000))
        self.faults: list[Exception] = []
        self.relay = Relay(
            options,
            HANDLERS,
            _Clock(),
            lambda: str(uuid.uuid4()),
            _Nowhere(),
            lambda _what, fault: self.faults.append(fault),
        )
        self.publisher = self.session()
        for _ in range(SUBSCRIBERS):
            self.relay.receive(self.session(), _subscribe(1, "/bench/0/a"))

    def session(self) -> Session:
        """Creates a live session."""
        session = self.relay.connect(_Nowhere(), "127.0.0.1", _CODEC)
        self.relay.receive(session, _frame(b"\x01\x01\xf8" + _text("bench") + _text(""), 1))
        return session

    def cost_us(self) -> float:
        """Returns the CPU time of one SET: the least of five measurements, after a warm-up."""
        data = _set("/bench/0/a")
        receive, publisher = self.relay.receive, self.publisher
        costs_s: list[float] = []
        for _ in range(6):
            began_s = time.thread_time()
            for _ in itertools.repeat(None, MESSAGES):
                receive(publisher, data)
            costs_s.append((time.thread_time() - began_s) / MESSAGES)
        assert not self.faults, self.faults
        return min(costs_s[1:]) * 1e6


def with_params(count: int) -> float:
    """Returns the cost in µs with ``count`` other params."""
    world = _World()
    for number in range(count):
        world.relay.receive(world.publisher, _set(f"/other/{number // 100}/{number}"))
    return world.cost_us()


def with_sessions(count: int) -> float:
    """Returns the cost in µs with ``count`` other sessions."""
    world = _World()
    for _ in range(count):
        world.session()
    return world.cost_us()


def with_subscriptions(count: int) -> float:
    """Returns the cost in µs with ``count`` subscriptions that do not match."""
    world = _World()
    session = world.session()
    for number in range(count):
        if number % 1_000 == 999:
            session = world.session()
        world.relay.receive(session, _subscribe(number, f"/other/{number}/*/**"))
    return world.cost_us()


GROWN: Mapping[str, Callable[[int], float]] = {
    "params": with_params,
    "sessions": with_sessions,
    "subscriptions that do not match": with_subscriptions,
}
