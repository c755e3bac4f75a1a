"""Relays of one cluster, in memory: what clients see of them, whatever happens."""

from __future__ import annotations

from collections import Counter

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.membership import Role
from clasp_relay.errors import ErrorCode
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import (
    Ack,
    Announce,
    Bundle,
    Error,
    Get,
    Message,
    Ping,
    Pong,
    Publish,
    Query,
    Result,
    Set,
    SignalDefinition,
    Subscribe,
)
from clasp_relay.wire.values import decode_value
from tests.cluster.world import Client, Cluster, Member, ThreeRelays, TwoRelays, put
from tests.core.world import codes, heard, revisions, value


class ClientsTests(TwoRelays):
    """What clients of a follower see."""

    def test_a_write_through_a_follower_is_decided_and_told_everywhere(self) -> None:
        """Its sender gets the ACK, and subscribers of both relays the value."""
        near, far = self.follower.join(), self.decider.join()
        for each in (near, far):
            each.ask(Subscribe(1, "/a/**"))
        writer = self.follower.join()
        answer = writer.ask(put("/a/b", 1), 1)
        self.assertEqual([type(each) for each in answer], [Ack])
        self.assertEqual(revisions(answer), [1])
        self.assertEqual(heard(near.hear()), [("/a/b", 1)])
        self.assertEqual(heard(far.hear()), [("/a/b", 1)])

    def test_refusals_come_back(self) -> None:
        """A conflict reads like one at a relay that is alone."""
        writer = self.follower.join()
        writer.ask(put("/a", 1), 1)
        self.assertEqual(codes(writer.ask(put("/a", 2, revision=7), 1)), [ErrorCode.CONFLICT])

    def test_a_pong_stands_behind_the_writes_before_it(self) -> None:
        """So a client knows that what it sent has happened."""
        writer = self.follower.join()
        writer.hear()
        for number in range(5):
            writer.send(put("/a", number), 1)
        writer.send(Ping())
        writer.send(Get("/a"))
        self.cluster.turn()
        messages = writer.hear()
        self.assertEqual([type(each).__name__ for each in messages], ["Ack"] * 5 + ["Pong", "Snapshot"])
        self.assertEqual(heard(messages[-1:]), [("/a", 4)])
        self.assertIsInstance(messages[5], Pong)

    def test_signals_pass_the_decider_and_spare_their_sender(self) -> None:
        """Events reach both relays once."""
        near, far, sender = self.follower.join(), self.decider.join(), self.follower.join()
        for each in (near, far, sender):
            each.ask(Subscribe(1, "/**"))
        self.assertEqual(heard(sender.ask(Publish("/ding", Signal.EVENT, value=value(1)))), [])
        self.assertEqual(heard(near.hear()), [("/ding", 1)])
        self.assertEqual(heard(far.hear()), [("/ding", 1)])

    def test_a_signal_to_one_session_reaches_it_on_another_relay(self) -> None:
        """Who it is for is found in the cluster; nobody else gets it."""
        target, other, sender = self.decider.join(), self.decider.join(), self.follower.join()
        address = f"/clasp/p2p/signal/{target.session.id}"
        for each in (target, other):
            each.ask(Subscribe(1, "/clasp/**"))
        sender.ask(Publish(address, Signal.EVENT, value=value("hello")))
        self.assertEqual(heard(target.hear()), [(address, "hello")])
        self.assertEqual(heard(other.hear()), [])
        lost = f"/clasp/p2p/signal/{sender.session.id[:-1]}f"
        self.assertEqual(codes(sender.ask(Publish(lost, Signal.EVENT, value=value(1)))), [ErrorCode.NO_TARGET])

    def test_locks_hold_over_relays_and_end_with_their_session(self) -> None:
        """A session of one relay locks out those of the other, until it leaves."""
        holder, other = self.follower.join(), self.decider.join()
        holder.ask(put("/l", 1, lock=True), 1)
        self.assertEqual(codes(other.ask(put("/l", 2), 1)), [ErrorCode.LOCKED])
        self.follower.relay.disconnect(holder.session)
        self.cluster.turn()
        self.assertEqual(revisions(other.ask(put("/l", 3), 1)), [2])

    def test_announced_signals_are_known_everywhere(self) -> None:
        """QUERY at one relay finds what was announced at the other."""
        announcer, asker = self.follower.join(), self.decider.join()
        answer = announcer.ask(Announce("/dev", (SignalDefinition("/dev/knob", Signal.PARAM),)), 1)
        self.assertEqual([type(each) for each in answer], [Ack])
        (result,) = asker.ask(Query("/dev/**"))
        assert isinstance(result, Result)
        self.assertEqual([each.address for each in result.signals], ["/dev/knob"])

    def test_params_expire_by_the_decider_alone(self) -> None:
        """A life time that a GET at the follower renews goes on."""
        writer = self.follower.join()
        writer.ask(put("/short", 1, ttl=2), 1)
        self.cluster.advance(1.5)
        writer.ask(Get("/short"))
        self.cluster.advance(1)
        self.assertEqual(heard(writer.ask(Get("/short"))), [("/short", 1)])
        self.cluster.advance(4)
        self.assertEqual(heard(writer.ask(Get("/short"))), [("/short", None)])
        self.assertEqual(self.follower.relay.params.image(), self.decider.relay.params.image())

    def test_what_is_lost_on_its_way_to_the_decider_is_sent_again(self) -> None:
        """A write is done once, however often it is sent."""
        writer = self.follower.join()
        self.cluster.turn()
        writer.hear()
        self.cluster.bus.lost = 1
        writer.send(put("/a", 1), 1)
        self.cluster.turn()
        writer.send(put("/a", 2), 1)
        self.cluster.advance(3)
        self.assertEqual(revisions(writer.hear()), [1, 2])


class LossTests(ThreeRelays):
    """A relay that the others, or the engine, do not hear."""

    def test_a_relay_that_is_cut_off_refuses_writes_and_ends_its_sessions(self) -> None:
        """First 503, then the sessions go elsewhere; reads go on meanwhile."""
        client = self.first.join()
        client.ask(put("/a", 1), 1)
        self.first.engine.cut()
        self.cluster.advance(0.2)
        (error,) = client.ask(put("/a", 2), 1)
        assert isinstance(error, Error)
        self.assertEqual(error.error, ErrorCode.OVERLOADED)
        self.assertIn("not done", error.message)
        self.assertEqual(heard(client.ask(Get("/a"))), [("/a", 1)])
        self.cluster.advance(6)
        self.assertIsNotNone(client.outbox.closed)
        self.first.engine.connect()
        self.cluster.advance(2)
        self.assertEqual(revisions(self.first.join().ask(put("/a", 3), 1)), [2])

    def test_the_locks_of_a_relay_that_is_gone_end(self) -> None:
        """After three seconds its sessions have ended for the others."""
        holder, other = self.first.join(), self.second.join()
        holder.ask(put("/l", 1, lock=True), 1)
        self.first.kill()
        self.cluster.advance(5)
        self.assertEqual(revisions(other.ask(put("/l", 2), 1)), [2])

    def test_a_relay_that_was_given_up_begins_anew(self) -> None:
        """Its sessions have ended for the others, so it ends them, and goes on."""
        client = self.first.join()
        client.ask(put("/l", 1, lock=True), 1)
        self.first.engine.is_paused = True
        self.cluster.advance(4.5)
        self.first.engine.is_paused = False
        self.cluster.advance(2)
        self.assertIsNotNone(client.outbox.closed)
        self.assertEqual(revisions(self.first.join().ask(put("/l", 2), 1)), [2])

    def test_a_relay_that_is_given_up_ends_once(self) -> None:
        """However often it is told so, before it is another run."""
        link, epoch = self.first.following.link, self.first.node.epoch
        client = self.first.join()
        with capturedLogs() as logs:
            for _ in range(3):
                self.first.engine.receive("test.resend", msgpack.packb((link, False, epoch)))
            self.cluster.turn()
        self.assertEqual([each["event"] for each in logs].count("cluster.expelled"), 1)
        self.assertIsNotNone(client.outbox.closed)

    def test_a_decider_that_stood_still_ends_nobody(self) -> None:
        """It is fenced, and what it believes of the others does not count: neither in the log nor on the bus."""
        client = self.first.join()
        client.ask(put("/l", 1, lock=True), 1)
        self.decider.stand_still()
        client.send(put("/l", 2), 1)
        self.cluster.advance(4)
        self.assertEqual(revisions(client.hear()), [2])
        with capturedLogs() as logs:
            self.decider.go_on()
            self.cluster.advance(2)
        self.assertIs(self.decider.node.role, Role.FOLLOWER)
        said = [each["event"] for each in logs]
        self.assertEqual([said.count(f"cluster.{name}") for name in ("deposed", "expelled", "relay_gone")], [1, 0, 0])
        self.assertIsNone(client.outbox.closed)
        self.assertEqual(revisions(client.ask(put("/l", 3), 1)), [3])

    def test_a_decider_that_was_cut_off_gives_the_others_time_to_be_heard(self) -> None:
        """The engine may have been away for all of them."""
        client = self.first.join()
        client.ask(put("/l", 1, lock=True), 1)
        for member in (self.decider, self.first, self.second):
            member.engine.cut()
        self.cluster.advance(3.5)
        self.decider.engine.connect()
        self.cluster.advance(0.5)
        for member in (self.first, self.second):
            member.engine.connect()
        self.cluster.advance(1)
        self.assertIsNone(client.outbox.closed)
        self.assertEqual(revisions(client.ask(put("/l", 2), 1)), [2])


class Life:
    """Three relays, with a client and a listener at each, and what may happen to them."""

    NAMES = ("one", "two", "three")

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.members = dict(zip(self.NAMES, self.cluster.started(*self.NAMES), strict=True))
        self.clients = {name: member.join() for name, member in self.members.items()}
        self.listeners = [member.join() for member in self.members.values()]
        for listener in self.listeners:
            listener.ask(Subscribe(1, "/**"))
        self.heard: list[list[Message]] = [[] for _ in self.listeners]
        self.acks: list[Ack] = []
        self.sent = 0

    def step(self, action: int, name: str) -> None:
        """Has one thing happen."""
        member = self.members[name]
        if action <= 3:
            self.write(name, is_bundle=action == 3)
        elif action == 4:
            self.cluster.bus.lost += 1
            self.write(name, is_bundle=False)
        elif action == 5:
            member.engine.is_paused = not member.engine.is_paused
        elif action == 6:
            member.engine.loses_answers = not member.engine.loses_answers
        elif action == 7 and sum(not each.is_dead for each in self.members.values()) > 1 and not member.is_dead:
            member.kill()
        elif action == 8 and member.is_dead:
            self.members[name] = member.again()
        elif action == 9 and not member.is_dead and not member.is_still:
            member.node.hand_over()
        elif action == 10 and not member.is_still:
            member.journal.hang(not member.journal.is_slow)
        elif action == 11 and not member.is_still:
            member.stand_still()
        elif action == 11:
            member.go_on()
        elif action >= 12:
            # Of what was told to anybody.
            applied = max(each.ledger.seq for each in self.members.values() if not each.is_dead)
            self.cluster.bus.deleted.add(applied + 12 - action)
        self.listen()
        self.cluster.advance(0.4)

    def write(self, name: str, *, is_bundle: bool) -> None:
        """Has a relay's client send something, if it has one that is connected."""
        member, client = self.members[name], self.clients[name]
        if member.is_still:
            return
        if client.member is not member or client.outbox.closed is not None:
            if member.is_dead or member.following.refuses is not None:
                return
            self.collect(client)
            client = self.clients[name] = member.join()
        if is_bundle:
            client.send(Bundle(tuple(put(f"/bundle/{self.sent}/{part}", part) for part in range(20))), 1)
        else:
            client.send(put(f"/once/{self.sent}", self.sent), 1)
            client.send(put("/shared", self.sent))
            client.send(Publish(f"/said/{client.session.id}", Signal.EVENT, value=value(self.sent)))
        self.sent += 1
        self.cluster.turn()

    def collect(self, client: Client) -> None:
        """Notes a client's ACKs."""
        self.acks += [message for message in client.hear() if isinstance(message, Ack)]

    def listen(self) -> None:
        """Notes what the listeners have heard."""
        for heard_by, listener in zip(self.heard, self.listeners, strict=True):
            heard_by.extend(listener.hear())

    def end(self) -> list[Member]:
        """Lets all that can be well be well again, and returns the relays that live."""
        for member in self.members.values():
            member.engine.is_paused = member.engine.loses_answers = False
            if member.is_still:
                member.go_on()
            member.journal.hang(False)
        self.cluster.bus.lost = 0
        if self.cluster.bus.deleted:
            # Only a relay that is gone may have what was deleted: then the others wait for it.
            self.members = {name: each.again() if each.is_dead else each for name, each in self.members.items()}
        self.cluster.advance(20)
        self.listen()
        for client in self.clients.values():
            self.collect(client)
        return [member for member in self.members.values() if not member.is_dead]


class AnyLifeTests(SynchronousTestCase):
    """Whatever happens to relays and messages, clients see one relay."""

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 14), st.sampled_from(Life.NAMES)), min_size=1, max_size=30))
    def test_clients_see_one_relay(self, steps: list[tuple[int, str]]) -> None:
        """Kills, restarts, hand-overs, lost messages and answers, gaps, relays, engines and disks that stand still."""
        life = Life()
        for action, name in steps:
            life.step(action, name)
        living = life.end()
        self.assertEqual([(member.fatal, member.faults) for member in living], [([], []) for _ in living])
        states = [member.relay.params.image() for member in living]
        self.assertTrue(all(state == states[0] for state in states))
        self.assertEqual(len({member.journal.appended_seq for member in living}), 1)
        self.check_writes({param.address: param.revision for param in states[0].params}, life.acks)
        for messages in life.heard:
            self.check_order(messages)

    def check_writes(self, revisions_of: dict[str, int], acks: list[Ack]) -> None:
        """Each write was done at most once, an acknowledged one was, and bundles are whole."""
        once = {address: revision for address, revision in revisions_of.items() if address != "/shared"}
        self.assertLessEqual(set(once.values()), {1})
        for ack in acks:
            if ack.address is not None:
                self.assertEqual(once.get(ack.address), ack.revision)
        bundles = Counter(address.split("/")[2] for address in once if address.startswith("/bundle/"))
        self.assertLessEqual(set(bundles.values()), {20})

    def check_order(self, messages: list[Message]) -> None:
        """A listener hears every revision from its first one on, and each sender's messages in order."""
        shared = [each.revision or 0 for each in messages if isinstance(each, Set) and each.address == "/shared"]
        self.assertEqual(shared, list(range(shared[0], shared[0] + len(shared))) if shared else [])
        said: dict[str, list[object]] = {}
        for message in messages:
            if isinstance(message, Publish) and message.value is not None:
                said.setdefault(message.address, []).append(decode_value(message.value))
        for numbers in said.values():
            self.assertEqual(numbers, sorted(set(numbers), key=_number))


def _number(content: object) -> int:
    assert isinstance(content, int), content
    return content
