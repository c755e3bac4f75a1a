"""Relays of one cluster: they join, follow, decide, and take over, in memory."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.node import Role
from clasp_relay.core.records import StateImage
from clasp_relay.errors import ErrorCode
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import (
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
    Result,
    Set,
    SignalDefinition,
    Subscribe,
)
from clasp_relay.wire.values import decode_value
from tests.cluster.world import Client, Cluster, Member
from tests.core.world import codes, heard, revisions, value


def put(address: str, obj: object, **more: object) -> Set:
    """Returns a SET."""
    return Set(address, value(obj), **more)  # type: ignore[arg-type]


class JoinTests(SynchronousTestCase):
    """How relays become one."""

    def test_a_single_relay_decides(self) -> None:
        """It is a decider without followers."""
        cluster = Cluster()
        (one,) = cluster.started("one")
        self.assertIs(one.node.role, Role.DECIDER)
        self.assertTrue(one.node.is_ready)
        self.assertEqual(revisions(one.join().ask(put("/a", 1), 1)), [1])

    def test_two_that_start_together_have_one_decider(self) -> None:
        """The log tells who it is."""
        cluster = Cluster()
        one, two = cluster.started("one", "two")
        self.assertEqual(sorted([one.node.role.value, two.node.role.value]), ["decider", "follower"])
        self.assertEqual(one.ledger.decider, two.ledger.decider)

    def test_one_that_comes_later_has_what_was_there(self) -> None:
        """It takes an image, then follows."""
        cluster = Cluster()
        (one,) = cluster.started("one")
        client = one.join()
        client.ask(put("/a", 1), 1)
        client.ask(put("/gone", 1), 1)
        client.ask(Set("/gone", value(None)), 1)
        client.ask(put("/locked", 1, lock=True), 1)
        two = cluster.add("two")
        cluster.advance(3)
        self.assertEqual(two.imaged, 1)
        self.assertEqual(two.relay.params.image(), one.relay.params.image())
        self.assertEqual(two.relay.params.holder("/locked"), client.session.id)
        self.assertEqual(two.journal.appended_seq, one.journal.appended_seq)
        client.ask(put("/a", 2), 1)
        self.assertEqual(two.relay.params.image(), one.relay.params.image())

    def test_one_that_was_away_reads_what_it_has_missed(self) -> None:
        """Its files say where it was; params come from the log, sessions from an image."""
        cluster = Cluster()
        one, _ = cluster.started("one", "two")
        writer = cluster.decider.join() if cluster.decider else one.join()
        writer.ask(put("/a", 1), 1)
        away = cluster.followers[0]
        position = away.position
        state = away.relay.params.image()
        away.kill()
        writer.ask(put("/a", 2, lock=True), 1)
        back = cluster.add(away.name)
        back.node._position = position
        back.relay.params.load(state)
        cluster.advance(3)
        self.assertEqual(back.imaged, 0)
        self.assertEqual(back.fatal, [])
        self.assertEqual(revisions(back.join().ask(Get("/a")))[:0], [])
        self.assertEqual(back.relay.params.image(), cluster.decider.relay.params.image() if cluster.decider else None)
        self.assertIn(writer.session.id, back.ledger.sessions)

    def test_all_that_were_stopped_go_on_from_their_files(self) -> None:
        """The epoch rises; the sessions of the time before are gone, and with them their locks."""
        cluster = Cluster()
        (one,) = cluster.started("one")
        one.join().ask(put("/a", 1, lock=True), 1)
        epoch, position, state = one.node.epoch, one.position, one.relay.params.image()
        one.kill()
        again = cluster.add("one", position)
        again.relay.params.load(state)
        cluster.advance(4)
        self.assertIs(again.node.role, Role.DECIDER)
        self.assertEqual(again.node.epoch, epoch + 1)
        self.assertEqual(revisions(again.join().ask(put("/a", 2), 1)), [2])

    def test_relays_go_on_from_their_journals_where_the_log_is_lost(self) -> None:
        """With an alarm: whoever has most begins anew, the others take what they lack from its journal."""
        for kept in (0, 3):
            cluster = Cluster()
            one, *_ = cluster.started("one", "two", "three")
            decider, (first, second) = cluster.decider or one, cluster.followers
            client = decider.join()
            client.ask(put("/a", 1), 1)
            second.kill()
            client.ask(put("/a", 2), 1)
            client.ask(put("/b", 1), 1)
            for member in (decider, first):
                member.kill()
            del cluster.bus.log[kept:]
            back = [member.again() for member in (second, first, decider)]
            cluster.advance(12)
            with self.subTest(kept=kept):
                self.assertEqual([member.fatal for member in back], [[], [], []])
                self.assertGreater(sum(member.node.alarms for member in back), 0)
                self.assertEqual(revisions(back[0].join().ask(put("/a", 3), 1)), [3])
                for member in back[1:]:
                    self.assertEqual(member.relay.params.image(), back[0].relay.params.image())
                    self.assertEqual(member.journal.appended_seq, back[0].journal.appended_seq)

    def test_a_journal_that_has_what_the_others_lack_stops_its_relay(self) -> None:
        """It comes too late: the others have gone on without it."""
        cluster = Cluster()
        cluster.started("one", "two")
        ahead, (behind,) = cluster.decider, cluster.followers
        assert ahead is not None
        ahead.join().ask(put("/a", 1), 1)
        behind.kill()
        cluster.advance(4)
        ahead.join().ask(put("/a", 2), 1)
        ahead.kill()
        cluster.bus.log.clear()
        back = behind.again()
        cluster.advance(9)
        self.assertEqual(revisions(back.join().ask(put("/a", 7), 1)), [2])
        late = ahead.again()
        cluster.advance(5)
        self.assertIn("empty data-dir", late.fatal[0])

    def test_an_empty_relay_gives_way_to_one_with_a_state(self) -> None:
        """When they start together; the empty one takes an image."""
        cluster = Cluster()
        empty = cluster.add("empty")
        full = cluster.add("full")
        full.relay.params.load(_some_state())
        cluster.advance(6)
        self.assertIs(cluster.decider, full)
        self.assertEqual((empty.fatal, empty.imaged), ([], 1))
        self.assertEqual(heard(empty.join().ask(Get("/old"))), [("/old", 7)])

    def test_a_state_that_is_not_the_clusters_stops_the_relay(self) -> None:
        """It is said in one line what to do."""
        cluster = Cluster()
        cluster.started("one")
        stranger = cluster.add("stranger")
        stranger.relay.params.load(_some_state())
        cluster.advance(3)
        self.assertEqual(len(stranger.fatal), 1)
        self.assertIn("empty data-dir", stranger.fatal[0])

    def test_a_relay_that_has_a_state_begins_a_log_with_it(self) -> None:
        """Others get it as an image; the log alone would not tell it, so without one they wait."""
        cluster = Cluster()
        first = cluster.add("first")
        first.relay.params.load(_some_state())
        cluster.advance(3)
        second = cluster.add("second")
        cluster.advance(3)
        self.assertEqual(heard(second.join().ask(Get("/old"))), [("/old", 7)])
        first.kill()
        second.kill()
        third = cluster.add("third")
        cluster.advance(6)
        self.assertIs(third.node.role, Role.JOINING)
        self.assertFalse(third.node.is_ready)

    def test_nobody_is_admitted_before_the_relay_has_caught_up(self) -> None:
        """A client goes elsewhere, or comes again."""
        cluster = Cluster()
        one = cluster.add("one")
        client = Client(one)
        client.send(Hello(1, 0xE0, "test", ""))
        self.assertEqual(codes(client.hear()), [ErrorCode.OVERLOADED])
        self.assertIsNotNone(client.outbox.closed)


def _some_state() -> StateImage:
    cluster = Cluster()
    (one,) = cluster.started("one")
    one.join().ask(put("/old", 7), 1)
    return one.relay.params.image()


class FollowTests(SynchronousTestCase):
    """What clients of a follower see."""

    def setUp(self) -> None:
        """Makes two relays."""
        self.cluster = Cluster()
        self.cluster.started("one", "two")
        assert self.cluster.decider is not None
        self.decider = self.cluster.decider
        (self.follower,) = self.cluster.followers

    def tearDown(self) -> None:
        """No relay had a fault."""
        for member in self.cluster.members:
            self.assertEqual(member.faults, [])

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

    def test_bundles_are_whole(self) -> None:
        """All members are in one batch, also of a long one, with its answer."""
        watcher, writer = self.decider.join(), self.follower.join()
        watcher.ask(Subscribe(1, "/b/**"))
        before = len(self.cluster.bus.log)
        members = tuple(put(f"/b/{number}", number) for number in range(100))
        answer = writer.ask(Bundle((*members, Publish("/b/done", Signal.EVENT, value=value(True)))), 1)
        self.cluster.advance(0.5)
        self.assertEqual(revisions(answer + writer.hear()), [1])
        self.assertEqual(len(self.cluster.bus.log) - before, 1)
        self.assertEqual(
            heard(watcher.hear()), [(f"/b/{number}", number) for number in range(100)] + [("/b/done", True)]
        )

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

    def test_what_is_lost_on_the_bus_is_read_from_the_log(self) -> None:
        """A follower that misses batches has them a moment later, in order."""
        watcher, writer = self.follower.join(), self.decider.join()
        watcher.ask(Subscribe(1, "/a"))
        writer.send(put("/a", 1), 1)
        self.cluster.bus.lost = 1
        self.cluster.turn()
        self.cluster.advance(1)
        self.assertEqual(heard(watcher.hear()), [("/a", 1)])

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

    def test_nothing_leaves_before_the_deciders_journal_has_it(self) -> None:
        """Neither an ACK nor the value."""
        watcher, writer = self.decider.join(), self.follower.join()
        watcher.ask(Subscribe(1, "/a"))
        writer.ask(Ping())
        self.decider.journal.is_slow = True
        self.assertEqual(writer.ask(put("/a", 1), 1), [])
        self.assertEqual(watcher.hear(), [])
        self.decider.journal.is_slow = False
        self.decider.journal.sync()
        self.cluster.turn()
        self.assertEqual(revisions(writer.hear()), [1])
        self.assertEqual(heard(watcher.hear()), [("/a", 1)])

    def test_journals_are_the_same(self) -> None:
        """A position is valid on every relay."""
        writer = self.follower.join()
        writer.ask(put("/a", 1), 1)
        writer.ask(Bundle((put("/b", 1), put("/c", 2))), 1)
        self.cluster.turn()
        ours = [(row.kind, row.param.address, row.number) for row in self.follower.journal.rows]
        theirs = [(row.kind, row.param.address, row.number) for row in self.decider.journal.rows]
        self.assertEqual(ours[-3:], theirs[-3:])
        self.assertEqual(self.follower.journal.appended_seq, self.decider.journal.appended_seq)


class FailoverTests(SynchronousTestCase):
    """What happens when a relay or its connection is gone."""

    def setUp(self) -> None:
        """Makes three relays."""
        self.cluster = Cluster()
        self.cluster.started("one", "two", "three")
        assert self.cluster.decider is not None
        self.decider = self.cluster.decider
        self.first, self.second = self.cluster.followers

    def test_writes_go_on_without_the_decider(self) -> None:
        """They wait for the next one: none is lost, none doubled."""
        writer = self.first.join()
        self.assertEqual(revisions(writer.ask(put("/a", 1), 1)), [1])
        self.decider.kill()
        writer.send(put("/a", 2), 1)
        self.cluster.advance(4)
        self.assertEqual(revisions(writer.hear()), [2])
        self.assertIn(self.cluster.decider, (self.first, self.second))
        self.assertEqual(self.first.relay.params.image(), self.second.relay.params.image())

    def test_what_was_in_the_log_and_not_told_is_not_done_again(self) -> None:
        """The decider dies between the log's acknowledgement and its own journal's."""
        writer = self.first.join()
        writer.ask(Ping())
        self.decider.journal.is_slow = True
        writer.ask(put("/a", 1), 1)
        before = len(self.cluster.bus.log)
        self.decider.kill()
        self.cluster.advance(4)
        self.assertEqual(revisions(writer.hear()), [1])
        self.assertGreater(len(self.cluster.bus.log), before)
        self.assertEqual(revisions(writer.ask(put("/a", 2), 1)), [2])

    def test_what_is_sent_again_while_the_deciders_disk_hangs_is_done_once(self) -> None:
        """By the decider that has taken it, and by the one after it, which reads of it in the log."""
        writer = self.first.join()
        writer.ask(Ping())
        self.decider.journal.hang(True)
        writer.send(put("/a", 1), 1)
        writer.send(put("/b", 1), 1)
        self.cluster.advance(3)
        self.assertEqual(writer.hear(), [])
        self.decider.journal.hang(False)
        self.cluster.turn()
        self.assertEqual(revisions(writer.hear()), [1, 1])
        self.decider.journal.hang(True)
        writer.send(put("/a", 2), 1)
        self.cluster.advance(2)
        self.decider.kill()
        self.cluster.advance(4)
        self.assertEqual(revisions(writer.hear()), [2])
        self.assertEqual(revisions(writer.ask(put("/a", 3), 1)), [3])

    def test_an_append_whose_answer_is_lost_happened_once(self) -> None:
        """The decider looks whether the log has it."""
        writer = self.first.join()
        writer.ask(Ping())
        self.decider.engine.loses_answers = True
        writer.send(put("/a", 1), 1)
        self.cluster.turn()
        self.decider.engine.loses_answers = False
        self.cluster.advance(1)
        self.assertEqual(revisions(writer.hear()), [1])
        self.assertIs(self.cluster.decider, self.decider)

    def test_a_decider_that_was_away_steps_down(self) -> None:
        """What it decided alone was never seen; its clients' writes are done by the next one."""
        mine = self.decider.join()
        mine.ask(put("/a", 0), 1)
        self.decider.engine.is_paused = True
        mine.send(put("/a", 1), 1)
        self.cluster.advance(3)
        self.assertEqual(revisions(mine.hear()), [])
        other = self.first.join()
        self.assertEqual(revisions(other.ask(put("/a", 7), 1)), [2])
        self.decider.engine.is_paused = False
        self.cluster.advance(1)
        self.assertIs(self.decider.node.role, Role.FOLLOWER)
        self.cluster.advance(1)
        self.assertEqual(revisions(mine.hear()), [3])
        self.assertEqual(self.decider.relay.params.image(), self.first.relay.params.image())

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

    def test_a_relay_that_comes_back_with_more_keeps_nobody_from_deciding(self) -> None:
        """Whoever follows reads from the log what it lacks, and decides; the other one then joins."""
        writer = self.decider.join()
        self.first.engine.is_paused = True
        writer.ask(put("/a", 1), 1)
        self.decider.kill()
        self.second.kill()
        back = self.decider.again()
        self.first.engine.is_paused = False
        self.cluster.advance(10)
        self.assertIs(self.cluster.decider, self.first)
        self.assertIs(back.node.role, Role.FOLLOWER)
        self.assertEqual(revisions(back.join().ask(put("/a", 2), 1)), [2])

    def test_hand_over_is_quick_and_loses_nothing(self) -> None:
        """The next decider does not wait for silence."""
        writer = self.first.join()
        writer.ask(put("/a", 1), 1)
        self.assertTrue(self.decider.node.hand_over())
        writer.send(put("/a", 2), 1)
        self.cluster.advance(1)
        self.assertEqual(revisions(writer.hear()), [2])
        self.assertIsNot(self.cluster.decider, self.decider)
        self.assertEqual(self.decider.relay.params.image(), self.first.relay.params.image())

    def test_stop_hands_over(self) -> None:
        """What the decider has taken is in the log when it ends."""
        writer = self.first.join()
        writer.ask(put("/a", 1), 1)
        ended: list[bool] = []
        self.decider.node.stop(lambda: ended.append(True))
        self.cluster.advance(1)
        self.assertEqual(ended, [True])
        self.decider.is_dead = True
        self.assertEqual(revisions(writer.ask(put("/a", 2), 1)), [2])

    def test_scheduled_bundles_run_once_at_the_next_decider(self) -> None:
        """Their time comes though the relay that took them is gone."""
        writer = self.first.join()
        due_us = self.first.now_us() + 6_000_000
        writer.ask(Bundle((put("/later", 1),), due_us), 1)
        self.decider.kill()
        self.cluster.advance(8)
        self.assertEqual(heard(writer.ask(Get("/later"))), [("/later", 1)])
        param = self.second.relay.params.get("/later")
        assert param is not None
        self.assertEqual(param.revision, 1)

    def test_a_log_that_loses_its_end_gets_it_again(self) -> None:
        """With an alarm; nobody's state changes."""
        writer = self.first.join()
        writer.ask(put("/a", 1), 1)
        writer.ask(put("/a", 2), 1)
        whole = list(self.cluster.bus.log)
        del self.cluster.bus.log[-2:]
        self.assertEqual(revisions(writer.ask(put("/a", 3), 1)), [3])
        self.assertEqual(self.cluster.bus.log[: len(whole)], whole)
        self.assertEqual(self.decider.node.alarms, 1)

    def test_standby_takes_no_clients_and_decides_when_nobody_else_can(self) -> None:
        """It is a warm spare."""
        spare = self.cluster.add("spare", is_standby=True)
        self.cluster.advance(3)
        self.assertFalse(spare.node.is_ready)
        for member in (self.decider, self.first, self.second):
            member.kill()
        self.cluster.advance(6)
        self.assertIs(spare.node.role, Role.DECIDER)


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
        elif action == 9 and not member.is_dead:
            member.node.hand_over()
        elif action == 10:
            member.journal.hang(not member.journal.is_slow)
        self.listen()
        self.cluster.advance(0.4)

    def write(self, name: str, *, is_bundle: bool) -> None:
        """Has a relay's client send something, if it has one that is connected."""
        member, client = self.members[name], self.clients[name]
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
            member.journal.hang(False)
        self.cluster.bus.lost = 0
        self.cluster.advance(15)
        self.listen()
        for client in self.clients.values():
            self.collect(client)
        return [member for member in self.members.values() if not member.is_dead]


class AnyLifeTests(SynchronousTestCase):
    """Whatever happens to relays and messages, clients see one relay."""

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 10), st.sampled_from(Life.NAMES)), min_size=1, max_size=30))
    def test_clients_see_one_relay(self, steps: list[tuple[int, str]]) -> None:
        """Kills, restarts, hand-overs, lost messages and answers, engines and disks that stand still."""
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
