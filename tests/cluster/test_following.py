"""A relay that follows, as its clients see it."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.batches import Answered, Batch, Claimed, Ended, Group, Item, LinkBegan, encode_ack
from clasp_relay.cluster.following import GIVEN_UP_AT_ONCE, MAX_WAITING_BYTES, Following
from clasp_relay.cluster.ledger import Ledger
from clasp_relay.cluster.packets import Asked, Packet
from clasp_relay.core.handlers import HANDLERS
from clasp_relay.core.records import Change, Param
from clasp_relay.core.relay import Relay, RelayOptions
from clasp_relay.core.session.account import Account, Accounts
from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.wire.codec import encode
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import Ack, Error, Get, Hello, Message, Ping, Set, Snapshot, Welcome
from tests.cluster.policy_world import PolicyCluster
from tests.cluster.world import Client, MemoryJournal
from tests.core.world import CODEC, START_US, MemoryFanOut, MemoryOutbox, WorldClock, codes, value


class FollowingTests(SynchronousTestCase):
    """What is sent to the decider, and what becomes of it."""

    def setUp(self) -> None:
        """Makes a relay whose decider is this test."""
        world = WorldClock()
        self.clock: Clock = world.clock
        self.packets: list[Packet] = []
        self.following = Following(
            "one.1", "one", Ledger(), self.clock.seconds, self.packets.append, self.clock.callLater
        )
        self.relay = Relay(
            RelayOptions(),
            self.following.handlers(HANDLERS),
            world,
            lambda: f"session-{len(self.packets)}",
            MemoryFanOut(),
            lambda _what, fault: self.fail(str(fault)),
            log=MemoryJournal(self.clock),
        )
        self.following.attach(self.relay)
        self.following.refuses = None
        self._seq = 0
        self.apply(Claimed("two.1", "two", True, b""), LinkBegan("one.1", "one"))
        self.outbox = MemoryOutbox()
        self.session = self.relay.connect(self.outbox, "192.0.2.1", CODEC)
        self.send(Hello(1, 0, "test", ""))
        self.turn()
        self.hear()
        self.packets.clear()

    def apply(self, *items: Item) -> None:
        """The log goes on."""
        self._seq += 1
        batch = Batch(1, b"", 0, 0, items)
        self.following.take_batch(self._seq, b"", batch, is_recorded=False)
        self.turn()

    def send(self, message: Message, qos: int = 0) -> None:
        """The client sends something."""
        self.relay.receive(self.session, encode_frame(encode(message), qos))

    def turn(self) -> None:
        """Lets turns pass."""
        for _ in range(20):
            self.clock.advance(0)

    def hear(self) -> list[Message]:
        """Returns what the client has got."""
        messages = [CODEC.decode(frame.wire)[0] for frame in self.outbox.frames]
        self.outbox.frames.clear()
        return messages

    def asked(self) -> list[tuple[int, int]]:
        """Returns numbers and kinds of what was sent to the decider."""
        self.turn()
        entries = [(entry.number, entry.kind) for packet in self.packets for entry in packet.entries]
        self.packets.clear()
        return entries

    def test_what_was_asked_in_a_turn_is_one_packet(self) -> None:
        """It is numbered within its session."""
        for number in range(3):
            self.send(Set("/a", value(number)), 1)
        self.turn()
        self.assertEqual(len(self.packets), 1)
        self.assertEqual([entry.number for entry in self.packets[0].entries], [2, 3, 4])
        self.assertEqual(self.hear(), [])

    def test_all_that_is_not_done_is_sent_to_the_next_decider(self) -> None:
        """And nothing else."""
        for number in range(3):
            self.send(Set("/a", value(number)), 1)
        self.turn()
        self.packets.clear()
        self.apply(Answered(self.session.id, 2, ((2, encode_ack("/a", 1, None, None)),)))
        self.apply(Claimed("three.1", "three", False, b""))
        self.assertEqual(self.asked(), [(3, int(Asked.MESSAGE)), (4, int(Asked.MESSAGE))])
        self.assertEqual(self.hear(), [Ack("/a", 1)])

    def test_a_write_that_waits_for_too_long_is_refused(self) -> None:
        """Whether it was done is not known, if it was sent; then reads go on."""
        self.send(Set("/a", value(1)), 1)
        self.send(Ping())
        self.turn()
        self.clock.advance(4.9)
        self.following.give_up_old(self.clock.seconds())
        self.assertEqual(self.hear(), [])
        self.clock.advance(0.2)
        self.following.give_up_old(self.clock.seconds())
        error, pong = self.hear()
        assert isinstance(error, Error)
        self.assertEqual((error.error, error.address), (ErrorCode.OVERLOADED, "/a"))
        self.assertIn("unknown", error.message)
        self.assertEqual(type(pong).__name__, "Pong")

    def test_what_was_given_up_is_not_answered_again(self) -> None:
        """A client that counts answers would take it for the next one's."""
        self.send(Set("/a", value(1)), 1)
        self.turn()
        self.clock.advance(5.1)
        self.following.give_up_old(self.clock.seconds())
        self.send(Set("/b", value(1)), 1)
        self.hear()
        self.apply(
            Answered(self.session.id, 3, ((2, encode_ack("/a", 1, None, None)), (3, encode_ack("/b", 1, None, None))))
        )
        self.assertEqual(self.hear(), [Ack("/b", 1)])

    def test_a_write_that_was_never_sent_was_surely_not_done(self) -> None:
        """There was nobody to send it to."""
        self.following.ledger.decider = ""
        self.send(Set("/a", value(1)), 1)
        self.turn()
        self.clock.advance(5.1)
        self.following.give_up_old(self.clock.seconds())
        (error,) = self.hear()
        assert isinstance(error, Error)
        self.assertIn("not done", error.message)
        self.apply(Claimed("three.1", "three", False, b""))
        self.assertEqual(self.asked(), [(1, int(Asked.BEGIN))])

    def test_writes_are_refused_at_once_where_nothing_can_reach_the_decider(self) -> None:
        """They were surely not done."""
        self.following.is_cut_off = True
        self.send(Set("/a", value(1)), 1)
        self.assertEqual(codes(self.hear()), [ErrorCode.OVERLOADED])
        self.assertEqual(self.asked(), [])

    def test_too_much_may_not_wait(self) -> None:
        """The memory is bounded."""
        for _ in range(MAX_WAITING_BYTES // 60_000 + 2):
            self.send(Set("/a", value("x" * 60_000)), 1)
        self.assertEqual(set(codes(self.hear())), {ErrorCode.OVERLOADED})
        self.turn()
        self.assertGreater(len(self.packets), 10)

    def limit(self, size_bytes: int) -> Account:
        """Has no more kept for the session than that; returns its account."""
        account = self.session.account = Accounts(size_bytes).open("", "")
        return account

    def test_one_session_may_not_have_too_much_wait(self) -> None:
        """Its memory is its own, and given back whatever becomes of what waits."""
        for way in ("done", "given up", "ended", "begun anew"):
            with self.subTest(way):
                self.setUp()
                account = self.limit(100_000)
                for _ in range(200):
                    self.send(Set("/a", value("x" * 1_000)), 1)
                refused = codes(self.hear())
                self.assertEqual(set(refused), {ErrorCode.LIMIT})
                self.assertGreater(len(refused), 100)
                self.assertGreater(account.bytes, 90_000)
                if way == "done":
                    self.apply(Answered(self.session.id, 1 + 200 - len(refused), ()))
                elif way == "given up":
                    self.clock.advance(5.1)
                    self.following.give_up_old(self.clock.seconds())
                elif way == "ended":
                    self.apply(Ended(self.session.id, int(CloseCode.POLICY_VIOLATION), "gone"))
                else:
                    self.following.begin_anew("one.2")
                self.assertEqual(account.bytes, 0)

    def test_many_writes_that_waited_for_too_long_are_refused_some_at_a_time(self) -> None:
        """Each tick refuses a few, of all sessions in turn: nobody waits until a flood is through."""
        count = 5_000
        for _ in range(count):
            self.send(Set("/a", value(1)), 1)
        self.turn()
        other, outbox = self.session, self.outbox
        self.outbox = MemoryOutbox()
        self.session = self.relay.connect(self.outbox, "192.0.2.2", CODEC)
        self.send(Hello(1, 0, "test", ""))
        self.send(Set("/b", value(1)), 1)
        self.turn()
        self.hear()
        self.clock.advance(5.1)
        for _ in range(2):
            self.following.give_up_old(self.clock.seconds())
        self.assertEqual(codes(self.hear()), [ErrorCode.OVERLOADED])
        self.session, self.outbox = other, outbox
        self.assertEqual(len(self.hear()), 2 * GIVEN_UP_AT_ONCE - 1)
        for _ in range(count // GIVEN_UP_AT_ONCE):
            self.following.give_up_old(self.clock.seconds())
        self.assertEqual(len(self.hear()), count - 2 * GIVEN_UP_AT_ONCE + 1)
        self.assertIsNotNone(self.following.oldest_s, "that the session has begun is not known yet")

    def test_a_session_that_was_ended_by_the_decider_ends_here(self) -> None:
        """With its reason."""
        self.send(Set("/a", value(1)), 1)
        self.apply(Ended(self.session.id, int(CloseCode.POLICY_VIOLATION), "revoked"))
        self.assertEqual(self.outbox.closed, (CloseCode.POLICY_VIOLATION, "revoked"))
        self.assertIsNone(self.following.oldest_s)

    def test_reads_renew_life_times_once_a_second(self) -> None:
        """Of params that have one; the decider is told of the address alone."""
        self.apply(Answered(self.session.id, 1, ()), Group.of((written("/timed", 60), written("/ever", None))))
        for address in ("/timed", "/ever", "/nothing", "/timed"):
            self.send(Get(address))
        self.turn()
        (packet,) = self.packets
        self.assertEqual([(each.kind, each.text) for each in packet.entries], [(int(Asked.READ), "/timed")])
        self.packets.clear()
        self.clock.advance(1.1)
        self.send(Get("/timed"))
        self.assertEqual(self.asked(), [(0, int(Asked.READ))])

    def test_nothing_to_clear_is_done_at_once(self) -> None:
        """The decider is not asked."""
        told: list[bool] = []
        self.following.clear([], told.append)
        self.assertEqual((told, self.asked()), ([True], []))

    def test_it_begins_anew_when_it_was_given_up(self) -> None:
        """Its sessions end; what they asked is not sent any more."""
        self.send(Set("/a", value(1)), 1)
        self.following.begin_anew("one.2")
        self.assertIsNotNone(self.outbox.closed)
        self.turn()
        (packet,) = self.packets
        self.assertEqual((packet.link, packet.is_first, packet.is_new, packet.entries), ("one.2", True, True, ()))


def written(address: str, ttl: int | None) -> Change:
    """Returns a write."""
    due_us = None if ttl is None else START_US + ttl * 1_000_000
    return Change(Param(address, value(1), 1, "", START_US, ttl), due_us=due_us)


class TokenTests(SynchronousTestCase):
    """Newcomers whose token another relay has issued."""

    def setUp(self) -> None:
        """Two relays."""
        self.cluster = PolicyCluster({"scopes": ["read:/**", "write:/**"]})
        self.cluster.issue("ann")
        _, self.follower = self.cluster.pair()

    def hello(self, token: str, door: str = "") -> Client:
        """Returns somebody who has said HELLO."""
        client = Client(self.follower)
        client.session.door = door
        client.send(Hello(1, 0xE0, "test", token))
        return client

    def test_a_token_that_is_not_known_yet_is_waited_for(self) -> None:
        """What its session sends meanwhile waits, too."""
        client = self.hello("new")
        client.send(Get("/a"))
        self.cluster.advance(0.2)
        self.assertEqual(client.hear(), [])
        self.cluster.issue("new")
        self.cluster.advance(0.1)
        self.assertEqual([type(each) for each in client.hear()], [Welcome, Snapshot, Snapshot])

    def test_a_token_that_nobody_has_issued_is_refused_after_a_second(self) -> None:
        """As at once where there is one relay; over HTTP at once here, too."""
        client = self.hello("wrong")
        self.cluster.advance(0.9)
        self.assertEqual(client.hear(), [])
        self.cluster.advance(0.2)
        self.assertEqual(codes(client.hear()), [ErrorCode.UNAUTHENTICATED])
        self.assertEqual(codes(self.hello("wrong", "http").hear()), [ErrorCode.UNAUTHENTICATED])
        self.assertEqual(codes(self.hello("").hear()), [ErrorCode.UNAUTHENTICATED])

    def test_one_who_is_gone_meanwhile_is_not_let_in(self) -> None:
        """Nobody waits for it."""
        client = self.hello("new")
        self.follower.relay.disconnect(client.session)
        self.cluster.issue("new")
        self.cluster.advance(0.2)
        self.assertEqual(len(self.follower.relay.sessions), 0)
