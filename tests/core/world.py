"""A relay in memory for the tests of the core: no socket, and a clock that tests advance."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from twisted.internet.task import Clock

from clasp_relay.access.policy import Policy
from clasp_relay.core.handlers import HANDLERS
from clasp_relay.core.history.memory import MemoryHistory
from clasp_relay.core.history.rules import HistoryRules
from clasp_relay.core.ports import NOT_YET, Audience, Codec, Frame, Log, Outbox, Timer
from clasp_relay.core.records import Change, Param
from clasp_relay.core.relay import Relay, RelayOptions
from clasp_relay.core.rights.port import Permissions
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.state.params import Params
from clasp_relay.errors import CloseCode, RequestError
from clasp_relay.wire.clasp import ClaspCodec
from clasp_relay.wire.codec import encode
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import NULL, Ack, Error, Hello, Message, Publish, Set, Snapshot, Welcome
from clasp_relay.wire.values import decode_value, encode_value

CODEC = ClaspCodec()
"""What the sessions of a world speak, without a transport's framing."""

START_US = 1_700_000_000_000_000
"""The Unix time at which every world begins, in µs."""


class WorldClock:
    """The core's clock over Twisted's test clock."""

    def __init__(self) -> None:
        self.clock = Clock()

    def now_us(self) -> int:
        """Returns the world's Unix time in µs."""
        return START_US + round(self.clock.seconds() * 1e6)

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        """Calls a function once the clock was advanced that far."""
        return self.clock.callLater(delay_s, call)


def one_turn(reactor: Clock) -> None:
    """Makes the calls that are due now, but none that these schedule: one turn of the event loop."""
    calls: list[Any] = list(reactor.getDelayedCalls())
    for call in calls:
        if call.active() and call.getTime() <= reactor.seconds():
            make, args = call.func, call.args
            call.cancel()
            make(*args)


class MemoryOutbox:
    """Keeps what is sent to a session."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.closed: tuple[CloseCode, str] | None = None

    def send(self, frame: Frame) -> None:
        """Keeps a frame."""
        if self.closed is None:
            self.frames.append(frame)

    def send_snapshot(self, _key: object, frames: Iterator[bytes]) -> None:
        """Keeps the frames of a snapshot."""
        if self.closed is None:
            self.frames.extend(Frame(data) for data in frames if data != NOT_YET)

    def discard(self) -> None:
        """Drops the frames that were not read yet."""
        self.frames.clear()

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Keeps the code and the reason of the close."""
        if self.closed is None:
            self.closed = (close_code, reason)


class MemoryFanOut:
    """Sends to each outbox at once."""

    def fan_out(self, audience: Audience, frame: Frame, exclude: Outbox | None = None) -> None:
        """Sends to all outboxes but one."""
        for outbox in audience.outboxes:
            if outbox is not exclude:
                outbox.send(frame)


class SlowLog:
    """A log that records changes when a test tells it to."""

    is_immediate = False

    def __init__(self) -> None:
        self.together = False
        """Whether what is given from now on is recorded together, once it is told to."""
        self.batch = 1
        """The number of the batch to which what is given now belongs."""
        self.changes: list[Change] = []
        """All that was given to it, in order, recorded or not."""
        self._waiting: deque[tuple[int, int]] = deque()
        self._tell: Callable[[int], None] = lambda _: None
        self.refusal: RequestError | None = None
        """What every write is refused with."""
        self.recorded = 0
        """How many of the changes are recorded."""

    def watch(self, recorded: Callable[[int], None]) -> None:
        """Sets the function that is called with each recorded batch."""
        self._tell = recorded

    def append(self, changes: Sequence[Change]) -> int:
        """Keeps changes."""
        assert changes, "nothing was to be recorded"
        self.changes += changes
        batch = self.batch
        self._waiting.append((len(self.changes), batch))
        self.batch += not self.together
        return batch

    def check(self) -> None:
        """Refuses a write if ``refusal`` is set."""
        if self.refusal is not None:
            raise self.refusal

    def release(self, at_most: int = 1_000_000) -> None:
        """Records the oldest batches, at most this many."""
        while self._waiting and at_most:
            batch = self._waiting[0][1]
            self.batch += batch == self.batch
            while self._waiting and self._waiting[0][1] == batch:
                self.recorded, _ = self._waiting.popleft()
            self._tell(batch)
            at_most -= 1


class Client:
    """One session, and the messages that it gets."""

    def __init__(self, world: World, codec: Codec = CODEC) -> None:
        self._world = world
        self.outbox = MemoryOutbox()
        self.session: Session = world.relay.connect(self.outbox, "192.0.2.1", codec)

    def send(self, message: Message, qos: int = 0) -> None:
        """Sends an encoded message, as the client would."""
        self.send_bytes(encode_frame(encode(message), qos))

    def send_bytes(self, data: bytes) -> None:
        """Sends one message in the session's codec."""
        self._world.relay.receive(self.session, data)

    def hear(self) -> list[Message]:
        """Returns the messages since the last call."""
        messages = [CODEC.decode(frame.wire)[0] for frame in self.outbox.frames]
        self.outbox.frames.clear()
        return messages

    def ask(self, message: Message, qos: int = 0) -> list[Message]:
        """Sends a message and returns the messages that it leads to; earlier ones are dropped."""
        self.hear()
        self.send(message, qos)
        return self.hear()

    def leave(self) -> None:
        """Ends the connection."""
        self._world.relay.disconnect(self.session)


class World:
    """A relay and its clock.

    Args:
        options: what the relay is told about itself.
        permissions: who may do what; everybody everything when not given.
        clock: one that others use too.
        log: where changes are recorded; at once when not given.
        history: what is kept of the past, in memory where no log is given; nothing when not given.
        max_entries: how much of it.
    """

    def __init__(
        self,
        options: RelayOptions | None = None,
        permissions: Permissions | None = None,
        clock: WorldClock | None = None,
        log: Log | None = None,
        history: HistoryRules | None = None,
        max_entries: int = 10_000,
    ) -> None:
        self.clock = clock or WorldClock()
        memory = MemoryHistory(self.clock.now_us, max_entries) if history is not None and log is None else None
        self.faults: list[tuple[str, Exception]] = []
        self._made = 0
        self.relay = Relay(
            options or RelayOptions(),
            HANDLERS,
            self.clock,
            self._new_id,
            MemoryFanOut(),
            lambda what, fault: self.faults.append((what, fault)),
            permissions,
            log=log or memory,
            history=history,
            reader=memory,
        )
        if memory is not None:
            assert self.relay.keeping is not None
            memory.attach(self.relay.keeping)

    def connect(self) -> Client:
        """Connects without saying HELLO."""
        return Client(self)

    def join(self, token: str = "") -> Client:
        """Connects, sends HELLO, and checks the WELCOME."""
        client = self.connect()
        client.send(Hello(1, 0xE0, "test", token))
        first, *rest = client.hear()
        assert isinstance(first, Welcome), first
        assert all(isinstance(message, Snapshot) for message in rest), rest
        return client

    def settle(self) -> None:
        """Runs turns until all work is done, without advancing the clock."""
        while self.relay.work:
            self.one_turn()

    def one_turn(self) -> None:
        """Runs one turn."""
        one_turn(self.clock.clock)

    def read_in_a_bundle(self, address: str, turns: int = 20) -> list[bool]:
        """Reserves an address for some turns, as a bundle does that is being decided and has read it.

        Returns:
            a list that gets one entry at the end of these turns: whether the param was still set.
        """
        reserved = self.relay.params.reserved
        was_set: list[bool] = []

        def decide(turns_left: int) -> None:
            if turns_left:
                self.clock.call_later(0, lambda: decide(turns_left - 1))
                return
            was_set.append(self.relay.params.get(address) is not None)
            reserved.end_reads()

        reserved.read(address)
        decide(turns)
        return was_set

    def advance(self, seconds: float) -> None:
        """Advances the clock, with the sweeps that the service makes twice a second."""
        while seconds > 0.5:
            self.clock.clock.advance(0.5)
            self.relay.sweep()
            seconds -= 0.5
        self.clock.clock.advance(seconds)
        self.relay.sweep()

    def turn(self, times: int = 1_000) -> None:
        """Runs turns until no call is due now."""
        while times and any(
            call.getTime() <= self.clock.clock.seconds() for call in self.clock.clock.getDelayedCalls()
        ):
            self.clock.clock.advance(0)
            times -= 1

    def _new_id(self) -> str:
        self._made += 1
        return f"00000000-0000-4000-8000-{self._made:012d}"


def memory_session(session_id: str = "id", subject: str = "", token: bytes = b"") -> Session:
    """Returns a session that belongs to no relay."""
    session = Session(session_id, MemoryOutbox(), "192.0.2.1", CODEC)
    session.identity = Identity(subject, token)
    return session


def written(
    params: Params,
    param: Param,
    *,
    lock: bool = False,
    unlock: bool = False,
    stamp: str | None = None,
) -> Change:
    """Returns the change that a write of a param would be decided as."""
    due_us = None if param.value == NULL else params.due_us(param.ttl, param.timestamp_us)
    takes_lock = lock and not unlock and param.value != NULL
    return Change(
        param,
        lock=lock,
        unlock=unlock,
        ttl=param.ttl,
        takes_lock=takes_lock,
        stamp=stamp,
        due_us=due_us,
    )


def rules_of(*entries: Mapping[str, object]) -> HistoryRules:
    """Returns the history rules of a policy."""
    return Policy.from_document({"history": [dict(entry) for entry in entries]}).history_rules()


KEPT = {"path": "/kept/**", "signals": ["event", "stream", "gesture"]}
"""A history rule about signals alone."""


def value(obj: object) -> bytes:
    """Encodes a value."""
    return encode_value(obj)


def heard(messages: list[Message]) -> list[tuple[str, object]]:
    """Returns address and value of each SET and PUBLISH and of each param of a SNAPSHOT, in order."""
    found: list[tuple[str, object]] = []
    for message in messages:
        if isinstance(message, Snapshot):
            found += [(param.address, decode_value(param.value)) for param in message.params]
        elif isinstance(message, Set | Publish):
            found.append((message.address, None if message.value is None else decode_value(message.value)))
    return found


def revisions(messages: list[Message]) -> list[int | None]:
    """Returns the revision of each SET and ACK, in order."""
    return [message.revision for message in messages if isinstance(message, Set | Ack)]


def codes(messages: list[Message]) -> list[int]:
    """Returns the code of each ERROR, in order."""
    return [message.error for message in messages if isinstance(message, Error)]
