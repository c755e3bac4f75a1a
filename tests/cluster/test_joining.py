"""Relays of one cluster join it: with nothing, with files, with a log that was lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgpack
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster import image
from clasp_relay.cluster.accounts.account_images import NoAccounts
from clasp_relay.cluster.exchange.packets import encode_beat
from clasp_relay.cluster.membership import Role
from clasp_relay.core.records import StateImage
from clasp_relay.errors import ErrorCode
from clasp_relay.wire.messages import Get, Hello, Set
from tests.cluster.world import STEP_S, Client, Cluster, Member, put
from tests.core.world import codes, heard, revisions, value


class JoiningTests(SynchronousTestCase):
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
        back.node.membership.position = position
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

    def test_what_was_deleted_from_the_middle_of_the_log_comes_from_another_relay(self) -> None:
        """Whether its files end right before it, at it, or with a part of it."""
        for deleted in ((1,), (2,), (1, 2), (0, 1, 2, 3)):
            cluster = Cluster()
            cluster.started("one", "two")
            one, (away,) = cluster.decider, cluster.followers
            assert one is not None
            client = one.join()
            client.ask(put("/a", 1), 1)
            away.kill()
            last = away.ledger.seq
            for number in range(4):
                client.ask(put("/a", 2 + number, lock=True), 1)
            cluster.bus.deleted = {last + place for place in deleted}
            back = away.again()
            cluster.advance(6)
            with self.subTest(deleted=deleted):
                self.assertEqual(back.fatal, [])
                self.assertEqual(heard(back.join().ask(Get("/a"))), [("/a", 5)])
                self.assertEqual(back.relay.params.image(), one.relay.params.image())
                self.assertEqual(back.relay.params.holder("/a"), client.session.id)
                self.assertEqual(back.journal.appended_seq, one.journal.appended_seq)

    def test_a_follower_takes_from_another_relay_what_the_log_has_lost(self) -> None:
        """It has not heard the batch on the bus either; its sessions end, nobody else notices."""
        for first in (0, 3):
            cluster = Cluster()
            cluster.started("one", "two")
            one, (two,) = cluster.decider, cluster.followers
            assert one is not None
            client, other = one.join(), two.join()
            client.ask(put("/a", 1), 1)
            deliver = cluster.bus.deliver
            self.patch(cluster.bus, "deliver", lambda _subject, _payload: None)
            cluster.bus.deleted = set(range(first, two.ledger.seq + 2))
            client.ask(put("/a", 2), 1)
            client.ask(put("/a", 3), 1)
            self.patch(cluster.bus, "deliver", deliver)
            with self.subTest(first=first), capturedLogs() as logs:
                cluster.advance(6)
                self.assertEqual(two.fatal, [])
                self.assertEqual(len([each for each in logs if "has lost batch" in str(each.get("log_format"))]), 1)
                self.assertEqual(heard(two.join().ask(Get("/a"))), [("/a", 3)])
                self.assertEqual(two.relay.params.image(), one.relay.params.image())
                self.assertEqual(two.journal.appended_seq, one.journal.appended_seq)
                self.assertIsNotNone(other.outbox.closed)
                self.assertIsNone(client.outbox.closed)

    def test_a_lost_end_that_is_appended_again_ends_no_session(self) -> None:
        """A follower that has missed it on the bus reads it from the log, once the decider has found out."""
        cluster = Cluster()
        cluster.started("one", "two")
        one, (two,) = cluster.decider, cluster.followers
        assert one is not None
        client, other = one.join(), two.join()
        deliver = cluster.bus.deliver
        self.patch(cluster.bus, "deliver", lambda subject, payload: subject == "test.live" or deliver(subject, payload))
        client.ask(put("/a", 1), 1)
        del cluster.bus.log[-1:]
        cluster.advance(0.5)
        self.assertLess(two.ledger.seq, one.ledger.seq)
        self.patch(cluster.bus, "deliver", deliver)
        self.assertEqual(revisions(client.ask(put("/a", 2), 1)), [2])
        cluster.advance(3)
        self.assertEqual(heard(other.ask(Get("/a"))), [("/a", 2)])
        self.assertIsNone(other.outbox.closed)

    def test_all_wait_for_the_relay_that_has_what_the_log_has_lost(self) -> None:
        """Two without it serve what they have, do not decide, and say once why; then they start anew, and it comes."""
        cluster = Cluster()
        cluster.started("one", "two", "three")
        one, behind = cluster.decider, cluster.followers
        assert one is not None
        client, others = one.join(), [member.join() for member in behind]
        client.ask(put("/a", 1), 1)
        deliver = cluster.bus.deliver
        self.patch(cluster.bus, "deliver", lambda _subject, _payload: None)
        cluster.bus.deleted = {one.ledger.seq + 1}
        for number in range(3):
            client.ask(put("/a", 2 + number), 1)
        one.kill()
        self.patch(cluster.bus, "deliver", deliver)
        with capturedLogs() as logs:
            cluster.advance(20)
        seqs = [each["seq"] for each in logs if "has lost batch" in str(each.get("log_format"))]
        self.assertEqual(len(seqs), 2)
        self.assertEqual(set(seqs), cluster.bus.deleted)
        self.assertIs(cluster.decider, None)
        self.assertEqual([other.outbox.closed for other in others], [None, None])
        for member in behind:
            member.kill()
        behind = [member.again() for member in behind]
        cluster.advance(12)
        one = one.again()
        cluster.advance(12)
        self.assertEqual([member.fatal for member in (one, *behind)], [[], [], []])
        for member in behind:
            self.assertEqual(heard(member.join().ask(Get("/a"))), [("/a", 4)])
        self.assertEqual(revisions(behind[0].join().ask(put("/a", 9), 1)), [5])

    def test_relays_go_on_from_a_last_batch_that_the_log_has_lost(self) -> None:
        """The one whose journal has it, once no other one can be expected to have more; with an alarm."""
        cluster = Cluster()
        cluster.started("one", "two")
        one, (behind,) = cluster.decider, cluster.followers
        assert one is not None
        client = one.join()
        client.ask(put("/a", 1), 1)
        behind.kill()
        client.ask(put("/a", 2), 1)
        one.kill()
        cluster.bus.deleted = {one.ledger.seq}
        back = [behind.again(), one.again()]
        cluster.advance(15)
        self.assertEqual([member.fatal for member in back], [[], []])
        self.assertEqual(sum(member.node.alarms for member in back), 1)
        self.assertEqual(revisions(back[0].join().ask(put("/a", 3), 1)), [3])
        self.assertEqual(back[0].relay.params.image(), back[1].relay.params.image())

    def test_relays_go_on_where_the_log_has_lost_its_end_and_what_is_before_it(self) -> None:
        """There is no batch to compare their journals with; those know which batches they have."""
        cluster = Cluster()
        one, *_ = cluster.started("one", "two")
        client = (cluster.decider or one).join()
        for number in range(4):
            client.ask(put("/a", number), 1)
        for member in list(cluster.members):
            member.kill()
        del cluster.bus.log[-2:]
        cluster.bus.deleted = {len(cluster.bus.log)}
        back = [member.again() for member in list(cluster.members)]
        cluster.advance(15)
        self.assertEqual([member.fatal for member in back], [[], []])
        self.assertEqual(revisions(back[0].join().ask(put("/a", 4), 1)), [5])

    def test_a_follower_joins_again_if_the_log_has_begun_again_beyond_it(self) -> None:
        """Others went on from their journals, which have more than this relay; its own journal says the same so far."""
        cluster = Cluster()
        cluster.started("one", "two", "three")
        decider, (other, still) = cluster.decider, cluster.followers
        assert decider is not None
        client = decider.join()
        client.ask(put("/a", 1), 1)
        still.engine.is_paused = True
        for number in range(3):
            client.ask(put("/a", 2 + number), 1)
        for member in (decider, other):
            member.kill()
        del cluster.bus.log[-2:]
        back = [decider.again(), other.again()]
        cluster.advance(15)
        still.engine.is_paused = False
        cluster.advance(10)
        self.assertEqual([member.fatal for member in (still, *back)], [[], [], []])
        self.assertEqual(heard(still.join().ask(Get("/a"))), [("/a", 4)])

    def test_a_lock_that_ended_in_what_was_lost_ends_everywhere(self) -> None:
        """What another relay sends has the locks that are held, and no others are."""
        cluster = Cluster()
        cluster.started("one", "two")
        one, (two,) = cluster.decider, cluster.followers
        assert one is not None
        client = one.join()
        client.ask(put("/locked", 1, lock=True), 1)
        cluster.advance(1)
        self.assertEqual(two.relay.params.holder("/locked"), client.session.id)
        deliver = cluster.bus.deliver
        self.patch(cluster.bus, "deliver", lambda _subject, _payload: None)
        cluster.bus.deleted = {two.ledger.seq + 1}
        one.relay.disconnect(client.session)
        cluster.turn()
        one.join().ask(put("/b", 1), 1)
        self.patch(cluster.bus, "deliver", deliver)
        cluster.advance(8)
        self.assertEqual(two.relay.params.locks.all(), [])
        self.assertEqual(two.relay.params.image(), one.relay.params.image())

    def test_a_follower_without_any_batch_gets_the_state_if_the_log_has_dropped_the_first(self) -> None:
        """It asks the log for no batch 0."""
        cluster = Cluster()
        members = [cluster.add("one"), cluster.add("two")]
        while not any(member.node.role is Role.FOLLOWER for member in members):
            cluster.clock.advance(STEP_S / 10)
        still, other = sorted(members, key=lambda member: member.node.role is not Role.FOLLOWER)
        self.assertEqual((still.ledger.seq, cluster.bus.log), (0, []))
        still.engine.is_paused = True
        cluster.advance(6)
        client = other.join()
        for number in range(3):
            client.ask(put("/a", number), 1)
        cluster.bus.deleted = {1, 2}
        still.engine.is_paused = False
        cluster.advance(15)
        self.assertEqual(still.fatal, [])
        self.assertEqual(heard(still.join().ask(Get("/a"))), [("/a", 2)])

    def test_a_journal_that_is_too_old_is_refused_by_a_busy_decider(self) -> None:
        """Whose log always has a batch that is not applied yet."""
        cluster = Cluster()
        cluster.started("one", "two")
        one, (two,) = cluster.decider, cluster.followers
        assert one is not None
        client = one.join()
        client.ask(put("/a", 0), 1)
        two.kill()
        last = two.ledger.seq
        for number in range(6):
            client.ask(put("/a", number), 1)
        del one.journal.rows[:-3]
        cluster.bus.deleted = {last}
        one.journal.is_slow = True
        back = two.again()
        for number in range(200):
            client.send(put("/b", number), 1)
            cluster.clock.advance(0.02)
            one.journal.sync()
            client.send(put("/b", number), 1)
            cluster.clock.advance(0.03)
            self.assertLess(one.ledger.seq, len(cluster.bus.log))
        self.assertIn("too old", back.fatal[0])

    def test_a_decider_that_was_cut_off_refuses_no_journal(self) -> None:
        """It does not know yet that another relay decides and has gone on."""
        cluster = Cluster()
        stale, *_ = cluster.started("one", "two", "three")
        stale = cluster.decider or stale
        stale.join().ask(put("/a", 1), 1)
        stale.engine.is_paused = True
        cluster.advance(FAIL_OVER_S)
        others = [member for member in cluster.members if member is not stale]
        after = next(member for member in others if member.node.role is Role.DECIDER)
        after.join().ask(put("/a", 2), 1)
        for member in others:
            member.kill()
        cluster.bus.deleted = {after.ledger.seq}
        again = after.again()
        stale.engine.is_paused = False
        cluster.advance(15)
        self.assertEqual((again.fatal, stale.fatal), ([], []))
        self.assertEqual(heard(stale.join().ask(Get("/a"))), [("/a", 2)])
        self.assertEqual(revisions(again.join().ask(put("/a", 3), 1)), [3])

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

    def test_an_image_that_takes_long_is_waited_for(self) -> None:
        """Longer each time; the log tells that none comes."""
        cluster = Cluster()
        (one,) = cluster.started("one")
        one.join().ask(put("/a", 1), 1)
        deliver = cluster.bus.deliver

        def slow(subject: str, payload: bytes) -> None:
            if subject == "test.piece":
                cluster.clock.callLater(10, deliver, subject, payload)
            else:
                deliver(subject, payload)

        self.patch(cluster.bus, "deliver", slow)
        two = cluster.add("two")
        with capturedLogs() as logs:
            cluster.advance(17)
        self.assertEqual([each["count"] for each in logs if each.get("event") == "cluster.image_late"], [3])
        cluster.advance(12)
        self.assertEqual((two.imaged, two.fatal), (1, []))
        self.assertIs(two.node.role, Role.FOLLOWER)

    def test_a_relay_says_at_once_that_it_makes_an_image(self) -> None:
        """And again and again as long as that takes, so that it is asked once."""
        cluster = Cluster()
        (one,) = cluster.started("one")
        client = one.join()
        for number in range(20):
            client.ask(put(f"/a/{number}", 1), 1)
        self.patch(image, "ENCODED_AT_ONCE", 1)
        asked: list[bytes] = []
        one.engine.subscribe("test.image", asked.append)
        call_later = one.node.membership.call_later

        def slow(delay_s: float, call: Callable[[], None]) -> object:
            return call_later(delay_s or 1.0, call)

        self.patch(one.node.membership, "call_later", slow)
        two = cluster.add("two")
        cluster.advance(40)
        self.assertEqual((len(asked), two.imaged, two.fatal), (1, 1, []))

    def back_from_a_pause(self, cluster: Cluster) -> Member:
        """Returns a relay that is started with files, behind which the log goes on."""
        cluster.started("one", "two")
        decider, (away,) = cluster.decider, cluster.followers
        assert decider is not None
        writer = decider.join()
        writer.ask(put("/a", 1), 1)
        away.kill()
        writer.ask(put("/a", 2), 1)
        return away.again()

    def test_a_log_that_answers_late_leads_to_one_request(self) -> None:
        """What was looked up for an earlier one counts no more."""
        cluster = Cluster()
        back = self.back_from_a_pause(cluster)
        asked: list[int] = []
        back.engine.subscribe("test.image", lambda payload: asked.append(msgpack.unpackb(payload)[1]))
        read, deliver = back.engine.read, cluster.bus.deliver
        delays_s = iter([2.5])

        def slow(seq: int, at_most: int, done: Callable[[Sequence[bytes] | None], None]) -> None:
            delay_s = next(delays_s, 0)

            def late(payloads: Sequence[bytes] | None) -> None:
                cluster.clock.callLater(delay_s, done, payloads)

            read(seq, at_most, late)

        def deliver_slowly(subject: str, payload: bytes) -> None:
            cluster.clock.callLater(1 if subject == "test.piece" else 0, deliver, subject, payload)

        self.patch(back.engine, "read", slow)
        self.patch(cluster.bus, "deliver", deliver_slowly)
        cluster.advance(6)
        self.assertEqual((asked, back.fatal), ([2], []))
        self.assertIs(back.node.role, Role.FOLLOWER)

    def test_a_log_that_does_not_answer_is_read_again(self) -> None:
        """It is not said to lack what it could not be asked for."""
        cluster = Cluster()
        back = self.back_from_a_pause(cluster)
        read = back.engine.read
        unanswered = iter([False, True, True])

        def silent(seq: int, at_most: int, done: Callable[[Sequence[bytes] | None], None]) -> None:
            if next(unanswered, False):
                cluster.clock.callLater(2, done, None)
            else:
                read(seq, at_most, done)

        self.patch(back.engine, "read", silent)
        cluster.advance(8)
        self.assertEqual(back.fatal, [])
        self.assertEqual(heard(back.join().ask(Get("/a"))), [("/a", 2)])

    def test_a_relay_that_overheard_the_decider_joins_again(self) -> None:
        """It has begun without an image; else it would end everybody's sessions when it comes to decide."""
        cluster = Cluster()
        cluster.started("one", "two")
        one, (two,) = cluster.decider, cluster.followers
        assert one is not None
        two.kill()
        client = one.join()
        client.ask(put("/locked", 1, lock=True), 1)
        two = two.again()
        heard_beat = two.engine._calls.pop("test.beat")
        while two.node.role is not Role.FOLLOWER:
            cluster.advance(0.05)
        two.engine._calls["test.beat"] = heard_beat
        one.node.membership.publish("beat", encode_beat(one.node._my_beat()))
        cluster.advance(3)
        self.assertIs(two.node.role, Role.FOLLOWER)
        self.assertTrue(one.node.hand_over())
        cluster.advance(3)
        self.assertIs(cluster.decider, two)
        self.assertIsNone(client.outbox.closed)
        self.assertEqual(two.relay.params.holder("/locked"), client.session.id)
        self.assertEqual(revisions(client.ask(put("/locked", 2), 1)), [2])

    def test_nobody_is_admitted_before_the_relay_has_caught_up(self) -> None:
        """A client goes elsewhere, or comes again."""
        cluster = Cluster()
        one = cluster.add("one")
        client = Client(one)
        client.send(Hello(1, 0xE0, "test", ""))
        self.assertEqual(codes(client.hear()), [ErrorCode.OVERLOADED])
        self.assertIsNotNone(client.outbox.closed)


FAIL_OVER_S = 4.0
"""Within this time another relay decides when the decider is lost."""


class SilentDeciderTests(SynchronousTestCase):
    """A relay joins, and the decider falls silent meanwhile: it holds nobody up, whatever is waited for."""

    def setUp(self) -> None:
        """Makes a cluster of two, one of which is away and has missed something."""
        self.cluster = Cluster()
        self.begin("one", "two")

    def begin(self, *names: str) -> None:
        """Starts relays; the first one that does not decide ends."""
        self.cluster.started(*names)
        assert self.cluster.decider is not None
        self.decider, (self.away, *_) = self.cluster.decider, self.cluster.followers
        self.client = self.decider.join()
        self.client.ask(put("/a", 1), 1)
        self.away.kill()
        self.cluster.advance(0.3)
        self.client.ask(put("/a", 2), 1)

    def lose_requests(self, are_lost: Callable[[], bool]) -> None:
        """Has requests for an image be lost as long as a condition holds."""
        deliver = self.cluster.bus.deliver

        def lossy(subject: str, payload: bytes) -> None:
            if subject != "test.image" or not are_lost():
                deliver(subject, payload)

        self.patch(self.cluster.bus, "deliver", lossy)

    def seconds_until(self, is_so: Callable[[], bool]) -> float:
        """Ends the decider, and returns after how many seconds something is so."""
        began_s = self.cluster.clock.seconds()
        self.decider.kill()
        while not is_so():
            self.cluster.clock.advance(STEP_S)
            self.assertLess(self.cluster.clock.seconds() - began_s, 60)
        return self.cluster.clock.seconds() - began_s

    def test_an_image_that_is_being_made_is_not_waited_for(self) -> None:
        """Whenever whoever makes it falls silent; what the decider has acknowledged is there."""
        for moment in range(40):
            self.cluster = Cluster()
            self.begin("one", "two")
            self.decider.node.membership.accounts = _SlowAccounts(self.cluster, self.decider, capture_s=6.0)
            back = self.cluster.add(self.away.name)
            self.cluster.advance(moment * 3 * STEP_S)
            with self.subTest(moment_s=moment * 3 * STEP_S):
                wait_s = self.seconds_until(lambda: self.cluster.decider is back)  # noqa: B023  called here
                self.assertLess(wait_s, FAIL_OVER_S)
                self.assertEqual((back.fatal, heard(back.join().ask(Get("/a")))), ([], [("/a", 2)]))

    def test_a_request_that_was_lost_makes_no_difference(self) -> None:
        """However long the next one would be waited for."""
        self.lose_requests(lambda: True)
        back = self.away.again()
        self.cluster.advance(15)
        self.assertIs(back.node.role, Role.JOINING)
        self.assertLess(self.seconds_until(lambda: self.cluster.decider is back), FAIL_OVER_S)
        self.assertEqual((back.fatal, heard(back.join().ask(Get("/a")))), ([], [("/a", 2)]))

    def test_the_next_decider_is_asked_at_once(self) -> None:
        """As soon as it decides, also where it was asked before, and did not answer since it still heard the other."""
        self.cluster = Cluster()
        self.begin("one", "two", "three")
        self.lose_requests(lambda: self.cluster.decider is None or self.cluster.decider is self.decider)
        back = self.away.again()
        self.cluster.advance(5)
        self.assertLess(self.seconds_until(lambda: back.node.is_ready), FAIL_OVER_S)
        self.assertIs(back.node.role, Role.FOLLOWER)
        self.assertEqual(heard(back.join().ask(Get("/a"))), [("/a", 2)])

    def test_the_silence_counts_from_the_last_sign_of_life(self) -> None:
        """Not from the end of joining: installing accounts may take long."""
        back = self.cluster.add(self.away.name)
        back.node.membership.accounts = _SlowAccounts(self.cluster, back, install_s=3.5)
        self.cluster.advance(0.5)
        self.assertLess(self.seconds_until(lambda: self.cluster.decider is back), FAIL_OVER_S)

    def test_a_log_that_does_not_answer_is_asked_again_at_once(self) -> None:
        """While its servers elect a leader, say; then the relay joins without further delay."""
        back = self.away.again()
        read, began_s = back.engine.read, self.cluster.clock.seconds()

        def silent(seq: int, at_most: int, done: Callable[[Sequence[bytes] | None], None]) -> None:
            if self.cluster.clock.seconds() < began_s + 9:
                self.cluster.clock.callLater(0.5, done, None)
            else:
                read(seq, at_most, done)

        self.patch(back.engine, "read", silent)
        self.cluster.advance(10)
        self.assertIs(back.node.role, Role.FOLLOWER)

    def test_what_was_asked_before_the_connection_was_lost_is_not_waited_for(self) -> None:
        """The answer was lost with it."""
        is_lost = [True]
        self.lose_requests(lambda: is_lost[0])
        back = self.away.again()
        self.cluster.advance(7)
        back.engine.cut()
        is_lost[0] = False
        back.engine.connect()
        self.cluster.advance(0.5)
        self.assertIs(back.node.role, Role.FOLLOWER)


class _SlowAccounts(NoAccounts):
    """Accounts that take their time.

    Args:
        cluster: whose clock counts.
        member: whose they are; once it is dead it does nothing.
        capture_s: how long they take to be captured.
        install_s: how long they take to be installed.
    """

    def __init__(self, cluster: Cluster, member: Member, capture_s: float = 0.0, install_s: float = 0.0) -> None:
        self._clock = cluster.clock
        self._member = member
        self._capture_s = capture_s
        self._install_s = install_s

    def capture(self, done: Callable[[list[bytes]], None], still: Callable[[], None]) -> None:
        """See ``AccountImages``."""
        end_s = self._clock.seconds() + self._capture_s

        def go_on() -> None:
            if self._member.is_dead:
                return
            if self._clock.seconds() >= end_s:
                done([])
                return
            still()
            self._clock.callLater(0.5, go_on)

        go_on()

    def install(self, pieces: Sequence[bytes], done: Callable[[], None]) -> None:
        """See ``AccountImages``."""
        self._clock.callLater(self._install_s, done)


def _some_state() -> StateImage:
    cluster = Cluster()
    (one,) = cluster.started("one")
    one.join().ask(put("/old", 7), 1)
    return one.relay.params.image()
