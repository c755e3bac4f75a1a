"""Tests of clasp_relay.core.fanout.snapshots: what a session may see, in pieces that do not delay others."""

from __future__ import annotations

from collections.abc import Iterator

from clasp_relay.core.fanout import snapshots
from clasp_relay.core.ports import NOT_YET, Frame
from clasp_relay.core.rights.port import FULL, HIDDEN, Verdict
from clasp_relay.core.state import tree
from clasp_relay.wire.messages import NULL, Hello, Message, Set, Snapshot, Subscribe
from tests.core.counting import count_calls
from tests.core.guard import Rule, members_of
from tests.core.rights.test_visibility import VisibilityCase
from tests.core.world import Client, World, heard, value


class WaitingSnapshotCase(VisibilityCase):
    """A SNAPSHOT that is judged while it is sent to a slow reader, among faster writers."""

    def ask(self, pattern: str) -> Iterator[bytes]:
        """Subscribes Alice, and returns the frames that she has not taken yet."""
        return self.waiting(self.alice, Subscribe(1, pattern))

    def waiting(self, client: Client, message: Message) -> Iterator[bytes]:
        """Sends a message and returns the frames of its SNAPSHOT that the client has not taken yet."""
        waiting: list[Iterator[bytes]] = []
        taking = self.patch(client.outbox, "send_snapshot", lambda _key, frames: waiting.append(frames))
        client.send(message)
        taking.restore()
        client.hear()
        (frames,) = waiting
        return frames

    def greet(self) -> tuple[Client, Iterator[bytes]]:
        """Sends HELLO in another session of Alice; returns it and the frames that it has not taken yet."""
        client = self.world.connect()
        return client, self.waiting(client, Hello(1, 0, "x", "alice"))

    def take(self, frames: Iterator[bytes], client: Client | None = None) -> list[tuple[str, object]]:
        """Takes the remaining frames."""
        client = client or self.alice
        client.outbox.frames.extend(Frame(data) for data in frames if data != NOT_YET)
        return heard(client.hear())


class WaitingSnapshotTests(WaitingSnapshotCase):
    """The SNAPSHOT of a subscription."""

    def test_many_are_judged_a_piece_at_a_time(self) -> None:
        """Other sessions are served in between; nothing is lost, and hidden params are left out."""
        rule = self.guard.rules["/room/"] = Rule(lambda *_: Verdict(FULL))
        self.guard.rules["/hidden/"] = Rule(lambda *_: Verdict(HIDDEN))
        for number in range(1500):
            self.write(f"/room/{number}", number)
            self.write(f"/hidden/{number}", number)
        rule.judged.clear()
        frames = self.ask("/**")
        self.assertEqual(rule.judged, [])
        taken = list(frames)
        self.assertEqual(taken.count(NOT_YET), 6)
        self.assertEqual(len(taken) - taken.count(NOT_YET), 2)
        self.assertEqual(self.take(iter(taken)), [(f"/room/{number}", number) for number in range(1500)])

    def test_no_snapshot_is_sent_where_all_is_hidden(self) -> None:
        """However many params there are."""
        self.guard.rules["/hidden/"] = Rule(HIDDEN)
        for number in range(1500):
            self.write(f"/hidden/{number}", number)
        self.assertEqual(set(self.ask("/**")), {NOT_YET})

    def test_what_has_changed_since_comes_live_only(self) -> None:
        """Otherwise its earlier value would come before the change."""
        self.write("/a", 1)
        self.write("/b", 1)
        frames = self.ask("/*")
        self.write("/a", 2)
        self.assertEqual(heard(self.alice.hear()), [("/a", 2)])
        self.assertEqual(self.take(frames), [("/b", 1)])

    def test_what_is_hidden_since_is_not_shown(self) -> None:
        """Even if it was visible at the SUBSCRIBE."""
        self.guard.rules["/a"] = Rule(members_of("/members"))
        self.write("/members", ["alice"])
        self.write("/a", 1)
        frames = self.ask("/a")
        self.write("/members", [])
        self.assertEqual(self.take(frames), [])

    def test_a_value_of_the_time_when_it_was_hidden_is_never_shown(self) -> None:
        """Not even if its address is visible when it is judged."""
        self.guard.rules["/a"] = Rule(members_of("/members"))
        self.write("/members", [])
        self.write("/a", "secret")
        frames = self.ask("/a")
        self.write("/a", "public")
        self.write("/members", ["alice"])
        self.assertEqual(self.take(frames), [])


class SearchTests(WaitingSnapshotCase):
    """A subscription whose params take long to find: they are searched for while the SNAPSHOT is sent."""

    def setUp(self) -> None:
        """Every search takes too long for one turn."""
        super().setUp()
        self.patch(tree, "FIND_COST", 1)
        for number in range(300):
            self.write(f"/other/{number}", number)
        for number in range(5):
            self.write(f"/room/{number}", number)

    def test_what_matches_is_found_with_pauses(self) -> None:
        """With permissions and in open mode, with the same result as a search in one step."""
        self.patch(snapshots, "SEARCHED_AT_ONCE", 50)
        self.patch(snapshots, "PIECE_COST", 100)
        expected = [(f"/room/{number}", number) for number in range(5)]
        taken = list(self.ask("/room/*"))
        self.assertEqual((taken.count(NOT_YET), len(taken)), (3, 4))
        self.assertEqual(self.take(iter(taken)), expected)
        world = World()
        client = world.join()
        for address, number in (("/room/1", 1), ("/other", 2)):
            client.send(Set(address, value(number)))
        self.assertEqual(heard(client.ask(Subscribe(1, "/room/*"))), [("/room/1", 1)])

    def test_expensive_pattern_has_more_pauses(self) -> None:
        """Long addresses, too: a pause depends on the work, not on the number of params."""
        self.patch(snapshots, "SEARCHED_AT_ONCE", 50)
        self.patch(snapshots, "PIECE_COST", 100)
        pauses = [list(self.ask(pattern)).count(NOT_YET) for pattern in ("/x/*", "/*/*/*/*/*/*/*/*")]
        self.assertEqual(pauses, [3, 8])
        for number in range(10):
            self.write("/other" + "/long" * 39 + f"/{number}", number)
        self.assertEqual(list(self.ask("/x/*")).count(NOT_YET), 4)

    def test_nothing_found_is_no_snapshot(self) -> None:
        """As if the search had been short."""
        self.assertEqual(list(self.ask("/x/*")), [])

    def test_snapshot_holds_what_matched_at_the_subscribe_and_is_current(self) -> None:
        """Params that have changed, begun or ended since then were told live."""
        frames = self.ask("/room/*")
        self.write("/room/1", "changed")
        self.write("/room/new", "new")
        self.admin.send(Set("/room/2", NULL))
        live = [("/room/1", "changed"), ("/room/new", "new"), ("/room/2", None)]
        self.assertEqual(heard(self.alice.hear()), live)
        self.assertEqual(self.take(frames), [(f"/room/{number}", number) for number in (0, 3, 4)])

    def test_first_turn_costs_the_same_however_much_is_set(self) -> None:
        """No param is examined in the turn of the SUBSCRIBE."""
        cost = count_calls(lambda: self.ask("/**/x"))
        for number in range(3_000):
            self.write(f"/more/{number}", number)
        self.assertLess(count_calls(lambda: self.ask("/**/x")), cost + 100)


class WaitingHelloTests(WaitingSnapshotCase):
    """The SNAPSHOT after WELCOME; its session gets no changes before it subscribes."""

    def setUp(self) -> None:
        """So many params that the first are judged long before the last."""
        super().setUp()
        self.write("/a", 1)
        self.write("/b", 1)

    def test_what_has_changed_since_is_shown_as_it_is_now(self) -> None:
        """The session gets no change of them; params that have ended are left out."""
        client, frames = self.greet()
        self.write("/a", 2)
        self.admin.send(Set("/b", NULL))
        self.assertEqual(self.take(frames, client), [("/a", 2)])

    def test_what_the_session_subscribed_to_since_is_left_out(self) -> None:
        """The session got its change live; neither an earlier nor the same value may follow."""
        client, frames = self.greet()
        self.assertEqual(heard(client.ask(Subscribe(1, "/a"))), [("/a", 1)])
        self.write("/a", 2)
        self.write("/b", 2)
        self.assertEqual(heard(client.hear()), [("/a", 2)])
        self.assertEqual(self.take(frames, client), [("/b", 2)])

    def test_what_has_not_changed_is_shown_to_who_subscribed_too(self) -> None:
        """It is still the current value."""
        client, frames = self.greet()
        client.ask(Subscribe(1, "/a"))
        self.assertEqual(self.take(frames, client), [("/a", 1), ("/b", 1)])

    def test_current_value_is_judged_as_it_is_now(self) -> None:
        """It is left out if it is hidden, even if the captured value was not."""
        self.guard.rules["/a"] = Rule(members_of("/members"))
        self.write("/members", ["alice"])
        self.world.relay.visibility._places.clear()
        client, frames = self.greet()
        self.write("/a", "secret")
        self.write("/members", [])
        self.assertEqual(self.take(frames, client), [("/b", 1), ("/members", [])])

    def test_crowd_that_connects_shares_what_it_goes_through(self) -> None:
        """As long as nothing changes; and nothing is kept when all have taken it."""
        latest = self.world.relay.snapshots.waiting
        waiting = [self.greet() for _ in range(3)]
        shared = latest.capture_all()
        self.assertEqual(len(shared.readers), 3)
        self.write("/c", 1)
        waiting.append(self.greet())
        self.assertIsNot(latest.capture_all(), shared)
        taken = [self.take(frames, client) for client, frames in waiting]
        self.assertEqual(taken, [[("/a", 1), ("/b", 1)]] * 3 + [[("/a", 1), ("/b", 1), ("/c", 1)]])
        del waiting, shared
        self.assertIsNone(latest._latest())

    def test_nothing_to_see_is_one_empty_snapshot(self) -> None:
        """Clients wait for a SNAPSHOT; if anything is visible, there is no empty one."""
        self.guard.hello_snapshot = False
        self.assertEqual(self.greeted_at_once(), Snapshot())
        self.guard.hello_snapshot = True
        for start in ("/a", "/b"):
            self.guard.rules[start] = Rule(HIDDEN)
        self.world.relay.visibility._places.clear()
        _, frames = self.greet()
        (data,) = frames
        self.assertEqual(self.alice.session.codec.decode(data)[0], Snapshot())

    def greeted_at_once(self) -> Message:
        """Returns what another session of Alice gets behind WELCOME, in the same turn."""
        client = self.world.connect()
        client.send(Hello(1, 0, "x", "alice"))
        _, told = client.hear()
        return told

    def test_turn_is_shorter_where_rules_have_to_be_found(self) -> None:
        """Finding a rule takes longer than judging by a known one."""
        for name, number in (
            ("JUDGED_AT_ONCE", 4),
            ("FEW", 4),
            ("PIECE_COST", 24),
            ("FIND_COST", 2),
            ("JUDGE_COST", 0),
        ):
            self.patch(snapshots, name, number)
        self.guard.rules["/many/"] = Rule(lambda *_: Verdict(FULL))
        for number in range(48):
            self.write(f"/many/{number}", number)
        turns = []
        for known in (True, False):
            if not known:
                self.world.relay.visibility._places.clear()
            turns.append(list(self.ask("/many/**")).count(NOT_YET))
        self.assertEqual(turns, [2, 6])

    def test_turn_is_shorter_where_answers_have_to_be_found(self) -> None:
        """Asking a policy takes a hundred times as long as the cache; so few params are judged in one turn."""
        for number in range(64):
            self.guard.rules[f"/many/{number}/"] = Rule(lambda *_: Verdict(FULL))
            self.write(f"/many/{number}/x", number)
        turns = [list(self.ask("/many/**")).count(NOT_YET) for _ in range(2)]
        self.assertGreaterEqual(turns[0], 64 * snapshots.JUDGE_COST // snapshots.PIECE_COST // 2)
        self.assertLessEqual(turns[1], 1)
