"""Random lives of several sessions under the packaged chat policy, with messages of all kinds.

``FUZZ_EXAMPLES`` draws as many lives, others at each run; without it they are few and always the same.
"""

from __future__ import annotations

import json
import os
import unittest
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib import resources

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.permissions import EXPIRED
from clasp_relay.access.tokens import ADMIN_SCOPES, POLICY_SCOPES, TokenRecord, digest_of
from clasp_relay.core.ports import NOT_YET, Frame
from clasp_relay.core.records import ChangeKind
from clasp_relay.core.relay import RelayOptions
from clasp_relay.core.rights.memory import Reads
from clasp_relay.core.rights.port import FULL
from clasp_relay.core.state.params import ParamLimits, Params
from clasp_relay.core.state.shares import ShareLimits
from clasp_relay.errors import DecodeError, ErrorCode, RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.codec import encode
from clasp_relay.wire.constants import ALL_TYPES, TTL_ABSOLUTE, Phase, Signal
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import (
    NULL,
    Ack,
    Announce,
    Bundle,
    Error,
    Get,
    Hello,
    Message,
    Ping,
    Pong,
    Publish,
    Query,
    Replay,
    Result,
    Set,
    SignalDefinition,
    Snapshot,
    Subscribe,
    Sync,
    Unsubscribe,
)
from clasp_relay.wire.values import PyValue, decode_value
from tests.access.test_permissions import AuthWorld
from tests.core.world import CODEC, Client, MemoryOutbox, SlowLog, value

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
STEPS = 50
POLICY = json.loads((resources.files("clasp_relay.access.policies") / "chat.json").read_text())

ACCOUNTS = ("alice0001", "bob000001")
GUESTS = ("guest-0001", "guest-0002")
USERS = (*ACCOUNTS, *GUESTS, "admin")
DM = "dm-alice000-bob00000"
ROOMS = ("r1", "r2", DM)

LIMITS = ParamLimits(10_000, 6_000, 0, ShareLimits(10_000, 2_000), ShareLimits(10_000, 5_000), "admin")
"""A state that a few users fill."""

ANSWERED = (Set, Bundle)
"""What is answered with an ACK where QoS asks for it."""

_user = st.sampled_from(USERS)
_room = st.sampled_from(ROOMS)
_ROOM_KEYS = (
    "meta",
    "messages",
    "presence/{u}",
    "typing/{u}",
    "admin/{u}",
    "bans/{u}",
    "members/{u}",
    "receipts/{u}",
    "reactions/m1/+1/{u}",
    "crypto/pubkey/{u}",
    "crypto/proof/{u}",
    "crypto/keyex/{u}",
    "video/presence/{u}",
    "video/signal/{u}",
    "history/x",
)
_room_address = st.builds(
    lambda room, key, user: f"/chat/room/{room}/{key.format(u=user)}", _room, st.sampled_from(_ROOM_KEYS), _user
)
_user_address = st.builds(
    lambda form, room, user, other: form.format(r=room, u=user, o=other),
    st.sampled_from(
        (
            "/chat/registry/rooms/{r}",
            "/chat/registry/ns/a/{r}",
            "/chat/registry/ns-meta/a",
            "/chat/registry/ns-meta/a/__auth",
            "/chat/user/{u}/profile",
            "/chat/user/{u}/friends",
            "/chat/user/{u}/dms/{r}",
            "/chat/requests/{u}/{o}",
        )
    ),
    _room,
    _user,
    _user,
)
_bad_address = st.sampled_from(("/elsewhere", "none", "/chat/**", "/clasp/replay/end", "/" + "a/" * 200, ""))
_address = st.one_of(_room_address, _room_address, _room_address, _user_address, _user_address, _bad_address)

_OBJECTS: tuple[PyValue, ...] = (
    None,
    1,
    "text",
    {},
    {"isPublic": False},
    {"passwordHash": "p"},
    {"hash": "p"},
    {"history": False},
    {"dmUsers": ["alice0001", "bob000001"]},
    {"type": "delete", "msgId": "m1", "targetId": "m1"},
    *({"creatorId": user, "fromId": user, "userId": user, "msgId": "m1"} for user in USERS),
    "x" * 400,
)
_value = st.sampled_from(tuple(value(each) for each in _OBJECTS))
_ttl = st.sampled_from((None, None, 0, 1, 3 | TTL_ABSOLUTE, 90))
_set = st.builds(
    Set,
    _address,
    _value,
    st.sampled_from((None, None, None, 0, 1, 2)),
    st.sampled_from((False, False, False, True)),
    st.sampled_from((False, False, False, True)),
    _ttl,
)
_publish = st.one_of(
    st.builds(
        lambda address, signal, sent: Publish(address, signal, value=sent), _address, st.sampled_from(Signal), _value
    ),
    st.builds(
        lambda address, phase, sent, number: Publish(address, Signal.GESTURE, phase, sent, id=number),
        _address,
        st.sampled_from(Phase),
        _value,
        st.integers(1, 2),
    ),
)
_member = st.one_of(_set, _set, _publish)
_pattern = st.one_of(
    st.sampled_from(("/chat/room/**", "/chat/registry/**", "/chat/room/*/meta", "/chat/room/r1/**", "/**", "bad")),
    st.builds(lambda user: f"/chat/user/{user}/**", _user),
    st.builds(lambda user: f"/chat/requests/{user}/**", _user),
    st.builds(lambda room: f"/chat/room/{room}/presence/*", _room),
    _room_address,
)
_subscribe = st.builds(
    Subscribe,
    st.integers(1, 4),
    _pattern,
    st.sampled_from((ALL_TYPES, ALL_TYPES, 1, 2)),
    st.sampled_from((None, None, 1, 10)),
    st.sampled_from((None, None, 2.0)),
)
_announce = st.builds(
    lambda addresses: Announce("/chat", tuple(SignalDefinition(each, Signal.EVENT, "f32") for each in addresses)),
    st.lists(st.one_of(_address, _pattern), max_size=3),
)
_message: st.SearchStrategy[Message] = st.one_of(
    _set,
    _set,
    _set,
    _publish,
    _publish,
    _subscribe,
    _subscribe,
    st.builds(Unsubscribe, st.integers(1, 4)),
    st.builds(Get, _address),
    st.builds(Query, _pattern),
    _announce,
    st.builds(Replay, _pattern, limit=st.sampled_from((None, 1))),
    st.builds(Sync, st.integers(0, 9)),
    st.just(Pong()),
    st.builds(Hello, st.just(1), st.just(0), st.just("again")),
    st.builds(Ack, st.none()),
)
_members = st.lists(_member, min_size=1, max_size=5)
_qos = st.sampled_from((0, 1, 1, 2))
_number = st.integers(0, 99)


class WatchedOutbox(MemoryOutbox):
    """A way out that looks at every frame in the moment in which it is sent.

    Args:
        check: is given each message, whether it goes out live, and the key of the answer that it is part of.
    """

    def __init__(self, check: Callable[[Message, bool, object], None]) -> None:
        super().__init__()
        self._check = check

    def send(self, frame: Frame) -> None:
        """Looks at a frame and keeps it."""
        if self.closed is None:
            self._check(CODEC.decode(frame.wire)[0], True, None)
        super().send(frame)

    def send_snapshot(self, key: object, frames: Iterator[bytes]) -> None:
        """Looks at the frames of an answer, each when it is encoded, and keeps them."""
        for data in frames:
            if data != NOT_YET and self.closed is None:
                self._check(CODEC.decode(data)[0], False, key)
                self.frames.append(Frame(data))


class Sent:
    """A message that was sent, with a PING behind it, and the answers between those of the PINGs.

    Args:
        message: what was sent; None for bytes that are no message.
        qos: as it was sent.
    """

    def __init__(self, message: Message | None, qos: int) -> None:
        self.message = message
        # An ANNOUNCE in binary is acknowledged whatever its QoS.
        self.is_owed = message is None or isinstance(message, Announce) or (qos > 0 and isinstance(message, ANSWERED))
        self.acks: list[Ack] = []
        self.errors: list[Error] = []

    def fault(self, late_errors: int) -> str | None:
        """Returns what is wrong with the answers, where so many ERRORs may be about bundles of before."""
        answers = len(self.acks) + len(self.errors)
        if self.is_owed and not answers:
            return f"{self.message} has no answer"
        if answers > 1 + late_errors or len(self.acks) > self.is_owed:
            return f"{self.message} has {self.acks} and {self.errors}"
        if self.acks and self.acks[0].address != _acked_address(self.message):
            return f"{self.message} has {self.acks}"
        return None


class Reader(Client):
    """A session, what it sent, and what it heard.

    Args:
        world: the relay.
        name: whose session it is.
        faults: where it is noted what should not have been.
    """

    def __init__(self, world: AuthWorld, name: str, faults: list[str]) -> None:
        super().__init__(world)
        self.world = world
        self.name = name
        self.faults = faults
        self.outbox = self.session.outbox = WatchedOutbox(self.check)
        self.sent: deque[Sent] = deque()
        self.late_errors = 0
        """How many bundles may still be refused when they are due."""
        self.asked: list[Pattern] = []
        """Patterns of QUERYs and REPLAYs."""
        self.revisions: dict[str, int] = {}

    def say(self, message: Message | None, qos: int, data: bytes) -> None:
        """Sends a message, and a PING that fences its answers off."""
        if isinstance(message, Query | Replay) and message.pattern.startswith("/"):
            self.asked.append(Pattern.parse(message.pattern))
        if isinstance(message, Bundle) and message.timestamp_us is not None:
            self.late_errors += 1
        self.sent.append(Sent(message, qos))
        self.send_bytes(data)
        self.send(Ping())

    def listen(self) -> None:
        """Compares what came with what was sent."""
        messages = self.hear()
        if self.outbox.closed and messages and isinstance(messages[-1], Error):
            messages.pop()  # why the session was ended
        for message in messages:
            if isinstance(message, Pong):
                self.end_of_answers()
            elif isinstance(message, Error) and not self.sent:
                self.late_errors -= 1
            elif isinstance(message, Error):
                self.sent[0].errors.append(message)
            elif isinstance(message, Ack):
                self.sent[0].acks.append(message)
            self.compare_revisions(message)
            if self.late_errors < 0:
                self.faults.append(f"{self.name} was sent an ERROR for nothing: {message}")

    def end_of_answers(self) -> None:
        """A PONG came: the oldest message is answered."""
        if not self.sent:
            self.faults.append("a PONG for nothing")
            return
        sent = self.sent.popleft()
        fault = sent.fault(self.late_errors)
        if fault is not None:
            self.faults.append(fault)
        self.late_errors -= max(0, len(sent.acks) + len(sent.errors) - 1)

    def compare_revisions(self, message: Message) -> None:
        """Notes a revision that is older than one before."""
        told = message.params if isinstance(message, Snapshot) else (message,) if isinstance(message, Set) else ()
        for one in told:
            if one.value == NULL and not one.revision:
                continue  # a GET of what is not set or not seen
            if (one.revision or 0) < self.revisions.get(one.address, 0):
                self.faults.append(f"{self.name} heard {one} after revision {self.revisions[one.address]}")
            self.revisions[one.address] = one.revision or 0

    def check(self, message: Message, is_live: bool, key: object) -> None:
        """Notes what this session may not see in this moment, by an answer that nothing remembered."""
        get = Pattern.parse(key[1]) if isinstance(key, tuple) and key[0] == "get" else None
        patterns = [get] if get else [one.pattern for one in self.session.subscriptions.values()] + self.asked
        if isinstance(message, Set | Publish):
            self.check_one(message.address, message.value, patterns, is_live=is_live)
        elif isinstance(message, Snapshot):
            for param in message.params:
                if get is None or param.revision:
                    self.check_one(param.address, param.value, patterns, is_live=False)
        elif isinstance(message, Result):
            for signal in message.signals:
                self.check_one(signal.address, None, self.asked, is_live=False)

    def check_one(self, address: str, sent: bytes | None, patterns: Sequence[Pattern], *, is_live: bool) -> None:
        """Asks anew whether one address may be seen through one of some patterns."""
        relay, who = self.world.relay, self.session.identity
        if address.startswith("/clasp/") or relay.permissions.sees_all(who, address, Reads()):
            return
        try:
            relay.permissions.check_get(who, address)
        except RequestError:
            self.faults.append(f"{self.name} heard of {address}, which is out of its scope")
        rule = relay.permissions.visibility_rule(address, is_live)
        if rule is None:
            return
        seen = []
        for pattern in patterns:
            if "*" in address or pattern.matches(address):
                by = pattern if rule.depends_on_pattern else None
                fixed = rule.fixed
                verdict = fixed or rule.judge(who.subject, address, by, relay.params, self.world.clock.now_us())
                seen.append(verdict.hidden_keys)
        shown = None if sent is None else decode_value(sent)
        keys = shown.keys() if isinstance(shown, dict) else FULL
        if not any(hidden is not None and not hidden & keys for hidden in seen):
            self.faults.append(f"{self.name} heard {shown} of {address}, seen as {seen}, live: {is_live}")


def _acked_address(message: Message | None) -> str | None:
    if isinstance(message, Announce):
        return message.namespace
    return message.address if isinstance(message, Set) else None


class SessionsMachine(RuleBasedStateMachine):
    """Several sessions do anything, in any order, while time passes and the log records late or refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Reader] = []
        self.faults: list[str] = []

    @initialize(is_slow=st.booleans(), is_full=st.booleans())
    def begin(self, is_slow: bool, is_full: bool) -> None:
        """A relay with a room, and one session of each user."""
        self.log = SlowLog() if is_slow else None
        options = RelayOptions(params=LIMITS if is_full else ParamLimits(), session_memory_bytes=40_000)
        self.world = AuthWorld(POLICY, options, self.log)
        self.relay = self.world.relay
        self.world.tokens.on_end(lambda one, _why: self.relay.end_token(one.subject, one.digest, EXPIRED))
        for name in USERS:
            self.add_token(name)
            self.join(USERS.index(name))
        owner = self.readers[0]
        self.say(owner, Set("/chat/room/r1/meta", value({"creatorId": owner.name})), 1)
        for reader in self.readers[:3]:
            self.say(reader, Subscribe(9, "/chat/room/**"), 0)
            self.say(reader, Set(f"/chat/room/r1/presence/{reader.name}", value({})), 1)

    def add_token(self, name: str) -> None:
        """Makes a token valid: a user's name."""
        scopes = ADMIN_SCOPES if name == "admin" else POLICY_SCOPES
        digest = digest_of(name)
        if not self.world.tokens.is_valid(digest):
            self.world.tokens.add(TokenRecord(digest, name, name, name in GUESTS, scopes, 0, None))

    def say(self, reader: Reader, message: Message, qos: int) -> None:
        """Sends a message."""
        reader.say(message, qos, encode_frame(encode(message), qos))

    def reader(self, number: int) -> Reader:
        """Returns one of the sessions; a new one where there is none."""
        if not self.readers:
            self.join(number)
        return self.readers[number % len(self.readers)]

    @rule(number=_number)
    def join(self, number: int) -> None:
        """A session begins, with a good token."""
        if len(self.readers) < 8:
            name = USERS[number % len(USERS)]
            self.add_token(name)
            reader = Reader(self.world, name, self.faults)
            self.readers.append(reader)
            reader.send(Hello(1, 0xE0, "test", name))

    @rule(token=st.sampled_from(("", "bad", "expired")), message=st.one_of(st.none(), _message))
    def fail_to_join(self, token: str, message: Message | None) -> None:
        """A session begins with a bad token, or with another message."""
        reader = Reader(self.world, token, self.faults)
        reader.send(Hello(1, 0, "test", token) if message is None or isinstance(message, Hello) else message)
        assert reader.outbox.closed is not None or token == "", "a stranger got in"
        reader.leave()

    @rule(number=_number, message=_message, qos=_qos)
    def send(self, number: int, message: Message, qos: int) -> None:
        """A session sends a message of any kind."""
        self.say(self.reader(number), message, qos)

    @rule(number=_number, message=_set, qos=_qos)
    def write_own(self, number: int, message: Set, qos: int) -> None:
        """A session writes what its user may write, more often than by chance."""
        reader = self.reader(number)
        address = message.address
        for user in USERS:
            address = address.replace(user, reader.name)
        self.say(reader, message._replace(address=address, revision=None), qos)

    @rule(
        number=_number,
        members=_members,
        qos=_qos,
        after_us=st.sampled_from((None, None, -1, 300_000, 4_000_000, 1 << 40)),
    )
    def send_bundle(self, number: int, members: Sequence[Message], qos: int, after_us: int | None) -> None:
        """A session sends a short bundle, some of them for later."""
        due_us = None if after_us is None else self.world.clock.now_us() + after_us
        self.say(self.reader(number), Bundle(tuple(members), due_us), qos)

    @rule(number=_number, members=_members, count=st.integers(17, 120), is_later=st.booleans(), qos=_qos)
    def send_long_bundle(self, number: int, members: Sequence[Message], count: int, is_later: bool, qos: int) -> None:
        """A session sends a bundle that is done in pieces; of the own, so that most are accepted."""
        reader = self.reader(number)
        own: list[Message] = []
        for place in range(count):
            member = members[place % len(members)]
            if isinstance(member, Set) and place < count - 1:
                member = Set(f"/chat/user/{reader.name}/own/{place % 40}", member.value, ttl=member.ttl)
            elif isinstance(member, Publish):
                member = Publish("/chat/room/r1/messages", value=value({"msgId": str(place)}))
            own.append(member)
        due_us = self.world.clock.now_us() + 700_000 if is_later else None
        self.say(reader, Bundle(tuple(own), due_us), qos)

    @rule(
        number=_number, message=_message, qos=_qos, at=st.integers(0, 60), byte=st.integers(0, 255), cut=st.booleans()
    )
    def send_damaged(self, number: int, message: Message, qos: int, at: int, byte: int, cut: bool) -> None:
        """A session sends a frame with a byte that is another one, or without its end."""
        data = bytearray(encode_frame(encode(message), qos))
        at %= len(data)
        if cut:
            del data[at:]
        else:
            data[at] = byte
        read: Message | None = None
        try:
            read, qos = CODEC.decode(bytes(data))
        except DecodeError:
            qos = 0
        if not isinstance(read, Ping):
            self.reader(number).say(read, qos, bytes(data))

    @rule(number=_number)
    def leave(self, number: int) -> None:
        """A connection ends."""
        reader = self.reader(number)
        reader.leave()

    @rule(name=_user)
    def end_token(self, name: str) -> None:
        """A token ends, and is valid again for those who come later."""
        self.world.tokens.revoke([digest_of(name)])

    @rule(seconds=st.sampled_from((0.1, 0.5, 1.0, 5.0, 40.0, 90.0)))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.world.advance(seconds)

    @rule(times=st.integers(1, 3))
    def turn(self, times: int) -> None:
        """The loop turns."""
        for _ in range(times):
            self.world.one_turn()

    @rule()
    def settle(self) -> None:
        """The loop turns until all work is done."""
        for _ in range(2_000):
            if not self.relay.work:
                break
            self.world.one_turn()
        assert not self.relay.work, "work goes on for ever"
        assert not self.relay.params.reserved.is_used

    @precondition(lambda self: self.log is not None)
    @rule(at_most=st.integers(1, 20))
    def record(self, at_most: int) -> None:
        """The log records some of what it was given."""
        assert self.log is not None
        self.log.release(at_most)

    @precondition(lambda self: self.log is not None)
    @rule(refuses=st.booleans())
    def refuse(self, refuses: bool) -> None:
        """The log refuses writes, or takes them again."""
        assert self.log is not None
        self.log.refusal = RequestError(ErrorCode.OVERLOADED, "the disk is slow") if refuses else None

    @invariant()
    def holds(self) -> None:
        """Nothing failed, and nobody heard what is not theirs, or answers that are not theirs."""
        for reader in self.readers:
            reader.listen()
        self.readers = [reader for reader in self.readers if reader.session.is_live]
        if hasattr(self, "world"):
            assert not self.world.faults, self.world.faults
            assert not self.faults, self.faults
            self.check_log()

    def check_log(self) -> None:
        """What the log was given makes the same state again, whenever no bundle is half carried out."""
        if self.log is None or self.relay.params.reserved.is_used:
            return
        again, waiting = Params(self.relay.options.params), set[int]()
        for change in self.log.changes:
            if change.kind is ChangeKind.SCHEDULED:
                waiting.add(change.number)
            elif change.kind is ChangeKind.DUE:
                waiting.remove(change.number)
            elif change.kind is not ChangeKind.EVENT:
                again.apply(change)
        assert _kept(again) == _kept(self.relay.params)
        assert waiting == set(self.relay.schedule._waiting)

    def teardown(self) -> None:
        """All is answered; then all sessions end, and nothing is left of them."""
        if not hasattr(self, "world"):
            return
        for _ in range(3):
            self.settle()
            if self.log is not None:
                self.log.release()
            self.world.turn()
        self.holds()
        unanswered = [(reader.name, sent.message) for reader in self.readers for sent in reader.sent]
        assert not unanswered, unanswered
        for reader in self.readers:
            reader.leave()
        self.settle()
        self.world.advance(6)
        self.settle()
        accounts = self.relay.accounts
        assert not any(accounts.bytes), accounts.bytes
        assert not accounts._by_subject
        assert not accounts._by_origin
        assert not len(self.relay.schedule)
        assert not self.relay.params.locks._holders
        self.readers = []
        self.holds()


def _kept(params: Params) -> tuple[object, ...]:
    image = params.image()
    return sorted(image.params), dict(image.ended), image.expires_us, params.state_bytes, params.locks._holders


SessionsMachine.TestCase.settings = settings(
    max_examples=EXAMPLES or 40, stateful_step_count=STEPS, derandomize=not EXAMPLES
)


class SessionsFuzzTests(SynchronousTestCase):
    def test_relay_keeps_its_promises_whatever_sessions_send(self) -> None:
        """Answers, order, revisions, rights, accounts and the log: after every step of random lives."""
        result = unittest.TestResult()
        SessionsMachine.TestCase().run(result)
        self.assertEqual([text for _, text in result.errors + result.failures], [])
        self.assertEqual(result.testsRun, 1)
