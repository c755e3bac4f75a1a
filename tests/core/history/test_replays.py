"""Tests of clasp_relay.core.history.replays: the answers to REPLAYs, and their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core import commit
from clasp_relay.core.history import memory, replays
from clasp_relay.core.history.memory import MemoryHistory, victim
from clasp_relay.core.history.reading import NEWEST, POSITION, Asked, Page
from clasp_relay.core.rights.port import FULL, HIDDEN, State, Verdict
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import ALL_TYPES, Signal
from clasp_relay.wire.messages import (
    Ack,
    Error,
    Get,
    Message,
    Ping,
    Pong,
    Publish,
    Replay,
    Set,
    Snapshot,
    Subscribe,
)
from clasp_relay.wire.values import decode_value
from tests.core.guard import Guard, Rule, members_of
from tests.core.world import KEPT, START_US, Client, SlowLog, World, codes, heard, rules_of, value

PARAMS = {"path": "/p/**", "signals": ["param"]}
ROOMS = {"path": "/r/{room}/m", "per": ["room"], "max_count": 4, "erases": {"type": "delete", "by": "of", "of": "id"}}


class Mark(NamedTuple):
    """The content of an end mark."""

    count: int  # type: ignore[assignment]
    complete: bool
    next: str
    oldest: int | None
    times: list[list[Any]]


class ReplayCase(SynchronousTestCase):
    """A relay that keeps signals, params and rooms, and a client."""

    def setUp(self) -> None:
        """In open mode."""
        self.world = World(history=rules_of(KEPT, PARAMS, ROOMS))
        self.client = self.world.join()
        self.addCleanup(lambda: self.assertEqual(self.world.faults, []))

    def say(self, *objects: object, address: str = "/kept/a") -> None:
        """Publishes events."""
        for obj in objects:
            self.client.send(Publish(address, value=value(obj)))

    def replay(
        self, pattern: str = "/**", from_us: int | None = None, to_us: int | None = None, **asked: Any
    ) -> list[Message]:
        """Sends a REPLAY, and returns all messages that it leads to."""
        client: Client = asked.pop("client", self.client)
        client.hear()
        client.send(Replay(pattern, from_us, to_us, **asked))
        self.world.turn()
        return client.hear()

    def values(self, *args: Any, **asked: Any) -> list[object]:
        """Returns the values of the entries, without end mark and SNAPSHOTs."""
        messages = self.replay(*args, **asked)
        entries = heard([each for each in messages if not isinstance(each, Snapshot)])
        return [said for address, said in entries if address != replays.END_MARK]

    def waiting_replays(self) -> int:
        """Returns the number of REPLAYs that are at work or wait."""
        assert self.world.relay.replays is not None
        return self.world.relay.replays.waiting

    def mark(self, *args: Any, **asked: Any) -> Mark:
        """Returns the end mark."""
        return mark_of(self.replay(*args, **asked)[-1])


def mark_of(message: Message) -> Mark:
    """Returns the content of an end mark."""
    assert isinstance(message, Publish), message
    assert message.address == replays.END_MARK, message
    said = decode_value(message.value or b"")
    assert isinstance(said, dict)
    assert set(said) == {"pattern", *Mark._fields}, said
    return Mark(*(said[name] for name in Mark._fields))


class AnswerTests(ReplayCase):
    """The messages of an answer."""

    def test_bare_replay_gets_the_entries_alone(self) -> None:
        """For old clients: SETs with their revisions, PUBLISHes with the times of their acceptance."""
        self.client.send(Publish("/kept/a", Signal.STREAM, value=value(1), timestamp_us=5, id=7))
        self.client.send(Set("/p/a", value(2), ttl=60))
        self.client.send(Set("/p/a", value(None)))
        self.assertEqual(
            self.replay(),
            [
                Publish("/kept/a", Signal.STREAM, value=value(1), timestamp_us=START_US, id=7),
                Set("/p/a", value(2), 1, ttl=60),
                Set("/p/a", value(None), 2),
            ],
        )

    def test_end_mark_says_what_came(self) -> None:
        """The times of SETs, the oldest entry, and the beginning of the next page."""
        self.say(1)
        self.client.send(Set("/p/a", value(2)))
        *entries, snapshot, last = self.replay("/**", 0)
        self.assertEqual(heard(entries), [("/kept/a", 1), ("/p/a", 2)])
        self.assertEqual(heard([snapshot]), [("/p/a", 2)])
        self.assertIsInstance(snapshot, Snapshot)
        expected = Mark(2, False, str(POSITION | 2), START_US, [["/p/a", 1, START_US + 1]])
        self.assertEqual(mark_of(last), expected)
        for asked in ({"limit": 5}, {"types": 0x1F}, {"to_us": START_US + 9}, {"from_us": POSITION}):
            with self.subTest(asked=asked):
                self.assertEqual(self.mark(**asked), expected._replace(complete=True))

    def test_entries_are_looked_at_in_pieces(self) -> None:
        """The beginning of the newest ones is searched for over several turns; not for an ended session."""
        self.say(*range(100))
        self.patch(replays, "SEEN_US", 1_000)
        found = self.world.relay.replays
        assert found is not None
        seen: list[str] = []
        view = found.view

        def noting(*asked: Any) -> Any:
            seen.append(asked[2])
            return view(*asked)

        self.patch(found, "view", noting)
        for leaves in (False, True):
            with self.subTest(leaves=leaves):
                seen.clear()
                reader = self.world.join()
                reader.send(Replay("/**", NEWEST, None, limit=200))
                counts = [len(seen)]
                while len(seen) < (32 if leaves else 100):
                    self.world.one_turn()
                    counts.append(len(seen))
                self.assertLessEqual(
                    max(after - before for before, after in pairwise([0, *counts])), replays.LOOKED_AT_ONCE
                )
                if leaves:
                    reader.leave()
                    self.world.settle()
                    self.assertLess(len(seen), 100)
                else:
                    self.world.turn()
                    self.assertEqual(len(heard(reader.hear())), 101)

    def test_where_nothing_can_be_kept_is_a_mark_alone(self) -> None:
        """Also if a rule keeps the address, but there is no entry."""
        for pattern in ("/else", "/kept/b", "/else/*"):
            with self.subTest(pattern=pattern):
                (last,) = self.replay(pattern, limit=3)
                self.assertEqual(mark_of(last), Mark(0, True, str(POSITION), None, []))
        self.assertEqual(self.replay("/else"), [])

    def test_pages_forwards(self) -> None:
        """Each begins at the end of the one before; the last one is complete."""
        self.say(*range(7))
        pages, position = [], START_US
        for _ in range(4):
            messages = self.replay("/kept/a", position, limit=3)
            said = mark_of(messages[-1])
            pages.append((heard(messages[:-1]), said.complete))
            position = int(said.next)
        texts = [[each for _, each in entries] for entries, _ in pages]
        self.assertEqual(texts, [[0, 1, 2], [3, 4, 5], [6], []])
        self.assertEqual([complete for _, complete in pages], [False, False, True, True])

    def test_pages_backwards(self) -> None:
        """The newest page first, each with the oldest entry first; ``next`` is the next ``to``."""
        self.say(*range(7))
        pages, to = [], None
        for _ in range(4):
            messages = self.replay("/kept/a", NEWEST, to, limit=3)
            said = mark_of(messages[-1])
            pages.append(([each for _, each in heard(messages[:-1])], said.complete, said.count))
            to = int(said.next)
        self.assertEqual(pages, [([4, 5, 6], False, 3), ([1, 2, 3], False, 3), ([0], True, 1), ([], True, 0)])

    def test_newest_of_exactly_the_limit_is_complete(self) -> None:
        """There is nothing before them; the same holds forwards."""
        self.say(1, 2, 3)
        self.assertTrue(self.mark("/kept/a", NEWEST, limit=3).complete)
        self.assertTrue(self.mark("/kept/a", START_US, limit=3).complete)
        self.assertFalse(self.mark("/kept/a", START_US, limit=2).complete)

    def test_many_pages_are_read(self) -> None:
        """Of 256 entries each, in both directions; a limit is bounded, and 0 means the default."""
        self.say(*range(1_100))
        self.assertEqual(self.values(limit=99_999), list(range(1_100)))
        self.assertEqual(self.values(limit=0), list(range(1_000)))
        self.assertEqual(self.values("/**", NEWEST, limit=600), list(range(500, 1_100)))
        self.assertEqual(self.values(), list(range(1_000)))

    def test_times_are_included_and_positions_are_not(self) -> None:
        """As ``from`` and as ``to``."""
        self.say(*range(5))
        for bounds, expected in (
            ((START_US + 1, START_US + 3), [1, 2, 3]),
            ((POSITION | 2, POSITION | 4), [2]),
            ((START_US + 3, POSITION | 5), [3]),
            ((NEWEST, START_US + 1), [0, 1]),
            ((START_US + 9, None), []),
        ):
            with self.subTest(bounds=bounds):
                self.assertEqual(self.values("/**", *bounds), expected)

    def test_what_ended_with_nothing_goes_on_behind_what_was_looked_at(self) -> None:
        """Whether there is no entry at that time yet, or none in the range."""
        self.say(0, 1)
        self.assertEqual(self.mark("/**", START_US + 9).next, str(POSITION | 2))
        self.say(2)
        self.assertEqual(self.mark("/**", START_US - 9, START_US - 8).next, str(POSITION))
        self.assertEqual(self.mark("/**", NEWEST, START_US - 8).next, str(POSITION | 1))
        self.assertEqual(self.mark("/**", NEWEST, POSITION | 1).next, str(POSITION | 1))

    def test_only_the_types_that_were_asked_for(self) -> None:
        """With the mask of SUBSCRIBE."""
        self.say(1)
        self.client.send(Publish("/kept/a", Signal.STREAM, value=value(2)))
        self.client.send(Set("/p/a", value(3)))
        for types, expected in ((1, [3]), (2, [1]), (4, [2]), (6, [1, 2]), (8, [])):
            with self.subTest(types=types):
                self.assertEqual(self.values(types=types), expected)

    def test_from_before_what_is_kept_is_not_complete(self) -> None:
        """A time tells from when on the client needs entries; a position and the newest do not."""
        self.say(*range(6), address="/r/a/m")
        self.assertEqual(self.mark("/r/a/m", START_US)[:2], (4, False))
        self.assertEqual(self.mark("/r/a/m", START_US + 2)[:2], (4, True))
        self.assertEqual(self.mark("/r/a/m", POSITION)[:2], (4, True))
        self.assertEqual(self.mark("/r/a/m", NEWEST)[:2], (4, True))

    def test_relay_that_may_lack_what_others_have_says_so(self) -> None:
        """If the requested time or position is before the entries that it certainly has; later pages are complete."""
        assert self.world.relay.replays is not None
        self.say(0, address="/r/b/m")
        self.world.relay.replays.begins_seq = 2
        for begin, expected in ((START_US, False), (POSITION, False), (POSITION | 1, True), (NEWEST, True)):
            with self.subTest(begin=begin, entries=0):
                self.assertEqual(self.mark("/r/a/m", begin).complete, expected)
        self.assertTrue(self.mark("/r/a/m", int(self.mark("/r/a/m", START_US).next)).complete)
        self.say(*range(3), address="/r/a/m")
        for begin, expected in ((START_US, False), (START_US + 1, True), (POSITION, False), (POSITION | 1, True)):
            with self.subTest(begin=begin, entries=3):
                self.assertEqual(self.mark("/r/a/m", begin).complete, expected)

    def test_values_of_now_follow_older_ones(self) -> None:
        """In SNAPSHOTs before the end mark, so that a client's cache has no old value; deleted params as nulls."""
        for number in range(70):
            self.client.send(Set(f"/p/{number}", value(number)))
        self.client.send(Set("/p/0", value("new")))
        self.client.send(Set("/p/1", value(None)))
        messages = self.replay("/p/**", START_US, START_US + 69)
        snapshots = [each for each in messages if isinstance(each, Snapshot)]
        now = [("/p/0", "new"), ("/p/1", None), *((f"/p/{number}", number) for number in range(2, 70))]
        self.assertEqual(heard(list(snapshots)), now)
        self.assertIs(messages[-2], snapshots[-1])

    def test_times_that_do_not_fit_come_in_several_marks(self) -> None:
        """All but the last have ``more``."""
        for number in range(20):
            self.client.send(Set("/p/" + "a" * 4_000 + str(number), value(number)))
        marks = [each for each in self.replay(limit=50) if isinstance(each, Publish)]
        self.assertEqual(len(marks), 2)
        said = decode_value(marks[0].value or b"")
        assert isinstance(said, dict)
        self.assertEqual((said.pop("more"), said["count"], len(said["times"])), (True, 20, 12))
        self.assertEqual(len(said["times"]) + len(mark_of(marks[1]).times), 20)

    def test_times_are_encoded_when_the_client_takes_them(self) -> None:
        """In pieces, since thousands take long: not in the turn in which the answer ends."""
        for number in range(20):
            self.client.send(Set("/p/" + "a" * 4_000 + str(number), value(number)))
        waiting: list[Iterator[bytes]] = []
        take = self.client.outbox.send_snapshot

        def send_snapshot(key: object, frames: Iterator[bytes]) -> None:
            if self.client.outbox.frames:
                waiting.append(frames)
            else:
                take(key, frames)

        self.client.hear()
        self.patch(self.client.outbox, "send_snapshot", send_snapshot)
        self.client.send(Replay("/**", limit=50))
        self.world.turn()
        self.assertNotIn(replays.END_MARK, [address for address, _ in heard(self.client.hear())])
        (frames,) = waiting
        take("", frames)
        self.assertEqual([address for address, _ in heard(self.client.hear())][-2:], [replays.END_MARK] * 2)

    def test_what_is_remembered_of_sets_is_bounded(self) -> None:
        """Then the answer ends, and the next page continues it."""
        self.patch(replays, "TIMES_BYTES", 200)
        for number in range(9):
            self.client.send(Set("/p/a", value(number)))
        said = self.mark(limit=9)
        self.assertEqual((said.count, said.complete), (5, False))
        self.assertEqual(self.mark("/**", int(said.next)).count, 4)

    def test_what_is_read_is_bounded(self) -> None:
        """Forwards and backwards, in bytes."""
        self.patch(replays, "MAX_READ_BYTES", 20_000)
        self.say(*range(600))
        said = self.mark(limit=10_000)
        self.assertEqual((said.count, said.complete), (256, False))
        said = self.mark("/**", NEWEST, limit=10_000)
        self.assertEqual((said.count, said.complete), (256, False))
        self.assertEqual(self.values("/**", NEWEST, limit=9_999)[-1], 599)


class OrderTests(ReplayCase):
    """The order with the session's other answers."""

    def setUp(self) -> None:
        """A reader that answers when a test tells it to."""
        super().setUp()
        self.waiting: list[Callable[[], None]] = []
        reader = self.world.relay.replays.reader  # type: ignore[union-attr]
        assert isinstance(reader, MemoryHistory)
        read = reader.read

        def later(asked: Asked, done: Callable[[Page | None], None]) -> None:
            self.waiting.append(lambda: read(asked, done))

        self.patch(reader, "read", later)
        self.reader = reader

    def go_on(self) -> None:
        """Lets all pages be read."""
        while self.waiting:
            self.waiting.pop(0)()
            self.world.turn()

    def test_what_stands_behind_a_replay_waits(self) -> None:
        """ACK, PONG, ERROR and the next REPLAY; live messages and SNAPSHOTs do not."""
        other = self.world.join()
        self.say(1)
        self.client.send(Subscribe(1, "/**"))
        self.client.hear()
        for message in (
            Replay("/kept/a"),
            Ping(),
            Set("/b", value(2)),
            Set("bad", value(1)),
            Replay("/kept/a", limit=1),
        ):
            self.client.send(message, 1)
        self.client.send(Get("/b"))
        other.send(Publish("/kept/a", value=value(3)))
        self.world.turn()
        before = self.client.hear()
        self.assertEqual(heard(before), [("/b", 2), ("/b", 2), ("/kept/a", 3)])
        self.assertEqual(len(before), 3)
        self.assertEqual(self.waiting_replays(), 2)
        self.go_on()
        one, pong, ack, error, again, *rest = self.client.hear()
        self.assertEqual(heard([one, again]), [("/kept/a", 1), ("/kept/a", 1)])
        self.assertEqual((pong, ack, codes([error])), (Pong(), Ack("/b", 1), [ErrorCode.ADDRESS]))
        self.assertEqual([mark_of(each).count for each in rest], [1])
        self.assertEqual(self.waiting_replays(), 0)
        self.assertIsNone(self.client.session.answers)

    def test_too_many_are_refused(self) -> None:
        """One at work and four that wait; when they are answered, there is room again."""
        for _ in range(5):
            self.client.send(Replay("/kept/a"))
        self.assertEqual(self.client.ask(Ping()), [])
        self.client.send(Replay("/kept/a"))
        self.go_on()
        pong, error = self.client.hear()
        self.assertEqual((pong, codes([error])), (Pong(), [ErrorCode.LIMIT]))
        self.assertEqual(self.replay("/else", limit=1)[-1].address, replays.END_MARK)  # type: ignore[union-attr]

    def test_client_addresses_have_their_pages_read_in_turn(self) -> None:
        """A few at a time, so that no client address has all its pages read before the others."""
        self.say(1)
        crowd = [self.world.join() for _ in range(20)]
        newcomer = self.world.join()
        for client in crowd:
            client.session.origin = "192.0.2.66"
        newcomer.session.origin = "192.0.2.1"
        for client in crowd:
            client.send(Replay("/kept/a", limit=1))
        self.world.turn()
        self.assertEqual(len(self.waiting), replays.READS_AT_ONCE)
        newcomer.send(Replay("/kept/a", limit=1))
        self.world.turn()
        newcomer.hear()
        for _ in range(replays.READS_AT_ONCE + 2):
            self.waiting.pop(0)()
            self.world.turn()
        self.assertEqual(heard(newcomer.hear()[:1]), [("/kept/a", 1)])
        # What nobody waits for any more is not read.
        for client in crowd:
            client.leave()
        self.go_on()
        self.assertEqual(self.waiting_replays(), 0)

    def test_fault_about_one_page_keeps_no_other_from_being_read(self) -> None:
        """The waiting ones are read in their turn."""
        self.say(1)
        crowd = [self.world.join() for _ in range(replays.READS_AT_ONCE + 1)]
        for client in crowd:
            client.send(Replay("/kept/a", limit=1))
        self.world.turn()
        self.assertEqual(len(self.waiting), replays.READS_AT_ONCE)
        with mock.patch.object(crowd[0].session.outbox, "send_snapshot", side_effect=ValueError("broken")):
            self.assertRaises(ValueError, self.waiting.pop(0))
        self.assertEqual(len(self.waiting), replays.READS_AT_ONCE)
        self.go_on()
        self.assertEqual(heard(crowd[-1].hear()[:1]), [("/kept/a", 1)])

    def test_session_that_ends_is_sent_nothing_more(self) -> None:
        """And its REPLAYs are forgotten, in whatever step they are."""
        for steps in range(3):
            with self.subTest(steps=steps):
                client = self.world.join()
                self.say(*range(300))
                client.send(Replay("/kept/a", NEWEST))
                client.send(Replay("/kept/a", limit=1))
                for _ in range(steps):
                    self.waiting.pop(0)()
                    self.world.turn()
                client.leave()
                client.hear()
                self.go_on()
                self.assertEqual(client.hear(), [])
                self.assertEqual(self.waiting_replays(), 0)

    def test_session_that_ended_before_it_was_settled_is_asked_nothing(self) -> None:
        """For any kind of REPLAY."""
        settled: list[Callable[[int | None], None]] = []
        self.patch(self.reader, "settle", settled.append)
        for pattern in ("/kept/a", "/else"):
            client = self.world.join()
            client.send(Replay(pattern, limit=1))
            client.leave()
            settled.pop()(5)
        client = self.world.join()
        client.send(Replay("/kept/a", limit=1))
        client.leave()
        settled.pop()(None)
        self.assertEqual((self.waiting, client.hear()), ([], []))

    def test_history_that_cannot_be_read_is_an_error(self) -> None:
        """At the beginning, or later; the answers behind it are sent."""
        self.patch(self.reader, "read", lambda _asked, done: done(None))
        self.assertEqual(codes(self.replay("/kept/a", limit=3)), [ErrorCode.OVERLOADED])
        self.patch(self.reader, "settle", lambda done: done(None))
        self.client.send(Replay("/kept/a"))
        error, pong = self.client.ask(Ping()), None
        self.assertEqual((codes(error), error[-1:], pong), ([], [Pong()], None))

    def test_client_that_reads_nothing_is_ended(self) -> None:
        """If too many answers wait behind its REPLAY."""
        self.patch(commit, "MAX_HELD_ANSWERS", 10)
        self.client.send(Replay("/kept/a"))
        for _ in range(11):
            self.client.send(Ping())
        self.assertEqual(self.client.outbox.closed, (CloseCode.TRY_AGAIN_LATER, "too slow"))

    def test_answers_behind_a_slow_disk_end_nobody(self) -> None:
        """Since the client is not the cause."""
        self.patch(commit, "MAX_HELD_ANSWERS", 10)
        log = SlowLog()
        client = World(log=log).join()
        client.send(Set("/a", value(1)), 1)
        for _ in range(20):
            client.send(Ping())
        self.assertIsNone(client.outbox.closed)
        log.release()
        self.assertEqual(len(client.hear()), 21)

    def test_frames_that_are_given_up_read_no_further(self) -> None:
        """The session is ending then."""
        self.say(*range(300))
        taken: list[Any] = []
        self.patch(self.client.outbox, "send_snapshot", lambda _key, frames: taken.append(frames))
        self.client.send(Replay("/kept/a"))
        self.waiting.pop(0)()
        next(taken[0])
        taken[0].close()
        self.world.turn()
        self.assertEqual(self.waiting, [])


class TurnTests(SynchronousTestCase):
    """REPLAYs of many sessions at once."""

    def test_many_replays_take_turns(self) -> None:
        """However many there are, a turn reads few pages."""
        world = World(history=rules_of(KEPT))
        clients = [world.join() for _ in range(12)]
        for number in range(600):
            clients[0].send(Publish("/kept/a", value=value(number)))
        read: list[int] = []
        history = world.relay.replays
        assert history is not None
        read_page = history.reader.read

        def count(asked: Asked, done: Callable[[Page | None], None]) -> None:
            read.append(asked.after_seq)
            read_page(asked, done)

        self.patch(history.reader, "read", count)
        for client in clients:
            client.send(Replay("/kept/*", NEWEST, limit=1))
        self.assertLessEqual(len(read), 2)
        while len(read) < 36:
            before = len(read)
            world.one_turn()
            self.assertLessEqual(len(read), before + 2)
        world.settle()
        world.turn()
        self.assertEqual([mark_of(client.hear()[-1]).count for client in clients], [1] * 12)
        self.assertEqual(world.faults, [])


class RefusalTests(SynchronousTestCase):
    """Refused REPLAYs."""

    def test_refusals_come_in_order(self) -> None:
        """An invalid pattern, the scope, and a relay without history."""
        for world, code in (
            (World(permissions=Guard()), ErrorCode.NOT_CONFIGURED),
            (World(permissions=Guard(), history=rules_of(KEPT)), None),
        ):
            client = world.join("alice")
            self.assertEqual(codes(client.ask(Replay("bad"))), [ErrorCode.PATTERN])
            self.assertEqual(codes(client.ask(Replay("/secret"))), [ErrorCode.SCOPE])
            self.assertEqual(codes(client.ask(Replay("/kept/a"))), [] if code is None else [code])
        (error,) = World().join().ask(Replay("/a/*"))
        assert isinstance(error, Error)
        self.assertEqual(error.message, "this relay keeps no history of /a/*")

    def test_nobody_forges_an_end_mark(self) -> None:
        """Neither by SET nor by PUBLISH."""
        client = World().join()
        for message in (Set("/clasp/replay/end", value(1)), Publish("/clasp/replay/end"), Publish("/clasp/replay/x/y")):
            self.assertEqual(codes(client.ask(message)), [ErrorCode.POLICY])
        self.assertEqual(codes(client.ask(Publish("/clasp/replays"))), [])


class RightsTests(ReplayCase):
    """Every entry is judged by the rights at the time of the REPLAY."""

    def setUp(self) -> None:
        """Members see ``/kept/a``; at ``/p`` a key is hidden."""
        self.guard = Guard()
        self.guard.rules = {"/kept/a": Rule(members_of("/members")), "/p": Rule(frozenset({"hash"}))}
        self.world = World(permissions=self.guard, history=rules_of(KEPT, PARAMS))
        self.client, self.bob = self.world.join("alice"), self.world.join("bob")
        self.client.send(Set("/members", value(["alice"])))

    def test_reader_sees_what_it_may_see_now(self) -> None:
        """Hidden entries are not counted; a new member sees earlier entries."""
        self.say(1, 2)
        self.say(3, address="/kept/b")
        said = self.mark(limit=10, client=self.bob)
        self.assertEqual((said.count, said.complete, said.oldest), (1, True, START_US + 2))
        self.assertEqual(self.mark("/kept/a", NEWEST, client=self.bob)[:2], (0, True))
        self.client.send(Set("/members", value(["bob"])))
        self.assertEqual(self.values(client=self.bob), [1, 2, 3])
        self.assertEqual(self.values("/**", NEWEST, limit=2, client=self.bob), [2, 3])
        self.assertEqual(self.values(), [3])

    def test_mark_does_not_tell_when_hidden_entries_came(self) -> None:
        """By ``next``, whatever range is asked for; from there the next visible entry is found."""
        self.say(*range(300))
        end_us = self.world.clock.now_us() + 1_000
        self.world.clock.clock.advance(1)
        self.say(*range(300))
        marks = [self.mark("/kept/*", 0, to_us, client=self.bob) for to_us in (1, end_us, end_us + 2_000_000)]
        self.assertEqual(marks, [Mark(0, True, str(POSITION | 601), None, [])] * 3)
        marks = [
            self.mark("/kept/*", NEWEST, to_us, client=self.bob) for to_us in (1, end_us, end_us + 2_000_000, None)
        ]
        self.assertEqual(marks, [Mark(0, True, str(POSITION | 602), None, [])] * 4)
        self.patch(replays, "MAX_READ_BYTES", 1)
        self.assertEqual(self.mark("/kept/*", 0, end_us, client=self.bob).next, str(POSITION | 257))
        self.patch(replays, "MAX_READ_BYTES", 1_000_000)
        self.say("seen", address="/kept/b")
        said = self.mark("/kept/*", 0, end_us, client=self.bob)
        self.assertEqual((said.count, said.next, said.oldest), (0, str(POSITION | 601), START_US + 1_000_000 + 300))
        self.assertEqual(self.values("/kept/*", int(said.next), client=self.bob), ["seen"])

    def test_who_goes_back_over_what_is_hidden_reaches_the_beginning(self) -> None:
        """If no entry is visible among all that one answer may read, the next page continues where it ended."""
        self.say("first", address="/kept/b")
        self.say(*range(600))
        self.patch(replays, "MAX_READ_BYTES", 20_000)
        found: list[object] = []
        ends: list[int | None] = [None]
        while True:
            messages = self.replay("/kept/*", NEWEST, ends[-1], client=self.bob)
            said = mark_of(messages.pop())
            found += [each for _, each in heard(messages)]
            if said.complete:
                break
            self.assertNotIn(int(said.next), ends)
            ends.append(int(said.next))
        self.assertEqual(found, ["first"])
        self.assertGreater(len(ends), 2)

    def test_hidden_keys_stay_hidden(self) -> None:
        """In SETs, in PUBLISHes, and in current values."""
        self.guard.rules["/kept/c"] = Rule(frozenset({"hash"}))
        self.client.send(Set("/p/a", value({"hash": 1, "name": "x"})))
        self.say({"hash": 1, "text": "y"}, address="/kept/c")
        self.client.send(Publish("/kept/c"))
        found = heard(self.replay(limit=9))[:-1]
        shown = {"name": "x"}
        self.assertEqual(found, [("/p/a", shown), ("/kept/c", {"text": "y"}), ("/kept/c", None), ("/p/a", shown)])

    def test_right_that_is_lost_meanwhile_is_said(self) -> None:
        """Later entries are not sent, and the end mark is not complete."""
        self.say(*range(600))
        self.client.send(Replay("/kept/a", limit=900))
        self.client.hear()
        self.client.send(Set("/members", value([])))
        self.world.turn()
        said = mark_of(self.client.hear()[-1])
        self.assertEqual((said.count, said.complete), (256, False))

    def test_many_hidden_entries_let_others_have_their_turn(self) -> None:
        """The search for the oldest visible entry goes on page by page."""
        self.say(*range(600))
        self.say("seen", address="/kept/b")
        said = self.mark(limit=1, client=self.bob)
        self.assertEqual((said.count, said.complete, said.oldest), (1, True, START_US + 600))

    def test_rule_that_looks_at_the_address_is_asked_for_each(self) -> None:
        """The verdict for one address is not used for another."""

        def judge(_subject: str, pattern: Pattern | None, _state: State, _now_us: int) -> Verdict:
            return Verdict(FULL if pattern == Pattern.parse("/kept/d/1") else HIDDEN)

        self.guard.rules["/kept/d"] = Rule(judge, depends_on_pattern=True)
        self.say(1, address="/kept/d/1")
        self.assertEqual(self.values("/kept/d/1"), [1])
        self.assertEqual(self.values("/kept/d/*"), [])

    def test_session_that_asked_for_nothing_just_ends(self) -> None:
        """Nothing was counted for it, or it has ended."""
        self.bob.leave()
        self.values()
        self.client.leave()

    def test_ended_token_ends_its_replay(self) -> None:
        """It is discarded with all that waits for its session."""
        self.say(1)
        self.client.send(Replay("/kept/a"))
        identity = self.client.session.identity
        self.world.relay.end_token(
            identity.subject, identity.token, Disconnect(CloseCode.POLICY_VIOLATION, "over", ErrorCode.TOKEN_EXPIRED)
        )
        self.world.turn()
        self.assertEqual(codes(self.client.hear()), [ErrorCode.TOKEN_EXPIRED])
        self.assertEqual(self.waiting_replays(), 0)


class Said(NamedTuple):
    """One entry of the model."""

    seq: int
    time_us: int
    address: str
    subject: str
    value: object


class Model:
    """A naive model of history: a list."""

    def __init__(self) -> None:
        self.entries: list[Said] = []
        self.members: dict[str, list[str]] = {}

    def say(self, said: Said) -> None:
        """Adds an entry, and erases what it erases."""
        found = said.value
        if said.address.startswith("/r/") and isinstance(found, dict) and found.get("type") == "delete":
            self.entries = [each for each in self.entries if not self.is_deleted(each, said, found["of"])]
        self.entries.append(said)
        if said.address.startswith("/r/"):
            alike = [(each.seq, each.subject) for each in self.entries if each.address == said.address]
            if len(alike) > ROOMS["max_count"]:  # type: ignore[operator]
                gone = victim(alike)
                self.entries = [each for each in self.entries if each.seq != gone]

    def is_deleted(self, each: Said, delete: Said, target: object) -> bool:
        """Tells whether an entry is erased by a delete."""
        found = each.value
        if not isinstance(found, dict) or found.get("type") == "delete" or each.address != delete.address:
            return False
        return target in (found.get("id"), found.get("of")) and each.subject == delete.subject

    def sees(self, who: str, address: str) -> bool:
        """Tells whether a subject sees an address."""
        return not address.startswith("/r/") or who in self.members.get(address.split("/")[2], [])

    def replay(self, who: str, message: Replay) -> tuple[list[object], bool]:
        """Returns the values of an answer, and whether it is complete."""
        pattern, limit = Pattern.parse(message.pattern), message.limit or 1_000
        kept = [
            each
            for each in self.entries
            if pattern.matches(each.address)
            and self.sees(who, each.address)
            and message.types >> (Signal.PARAM if each.address.startswith("/p") else Signal.EVENT) & 1
        ]
        start, end = message.from_us, message.to_us
        found = kept
        if end is not None:
            is_position = end >= POSITION
            found = [each for each in kept if (each.seq < end - POSITION if is_position else each.time_us <= end)]
        if start == NEWEST:
            return [each.value for each in found[-limit:]], len(found) <= limit
        if start is not None:
            is_position = start >= POSITION
            found = [each for each in found if (each.seq > start - POSITION if is_position else each.time_us >= start)]
        is_early = start is not None and start < POSITION and bool(kept) and start < kept[0].time_us
        return [each.value for each in found[:limit]], len(found) <= limit and not is_early


ADDRESSES = ("/kept/a", "/kept/b", "/r/a/m", "/r/b/m", "/p/a", "/p/b")
PATTERNS = (*ADDRESSES, "/**", "/kept/*", "/r/*/m", "/r/a/**", "/p/**", "/else")
NAMES = ("alice", "bob", "eve")

STEPS = st.one_of(
    st.tuples(st.just("say"), st.sampled_from(NAMES), st.sampled_from(ADDRESSES), st.integers(0, 6)),
    st.tuples(st.just("delete"), st.sampled_from(NAMES), st.sampled_from(ADDRESSES[2:4]), st.integers(0, 6)),
    st.tuples(st.just("edit"), st.sampled_from(NAMES), st.sampled_from(ADDRESSES[2:4]), st.integers(0, 6)),
    st.tuples(st.just("members"), st.sampled_from(("a", "b")), st.lists(st.sampled_from(NAMES)), st.just(0)),
    st.tuples(st.just("wait"), st.just(""), st.just(""), st.integers(0, 9)),
)
BOUNDS = st.one_of(
    st.none(), st.integers(START_US - 2, START_US + 60), st.integers(POSITION, POSITION + 60), st.just(NEWEST)
)
ASKED = st.tuples(
    st.sampled_from(NAMES),
    st.builds(
        Replay,
        st.sampled_from(PATTERNS),
        BOUNDS,
        BOUNDS.filter(lambda bound: bound != NEWEST),
        st.one_of(st.none(), st.integers(1, 6)),
        st.sampled_from((ALL_TYPES, 1, 2, 4)),
    ),
)


class ModelTests(SynchronousTestCase):
    """Compares REPLAY with a naive model."""

    def setUp(self) -> None:
        """Small pages, so that most answers have several."""
        self.patch(memory, "PAGE_ROWS", 3)

    @given(st.lists(STEPS, min_size=5, max_size=40), st.lists(ASKED, min_size=1, max_size=6))
    def test_answers_are_what_the_model_says(
        self, steps: list[tuple[str, Any, Any, int]], asked: list[tuple[str, Replay]]
    ) -> None:
        """For any entries, any readers, and any REPLAY."""
        guard, model = Guard(), Model()
        for room in ("a", "b"):
            guard.rules[f"/r/{room}/m"] = Rule(members_of(f"/members/{room}"))
        world = World(permissions=guard, history=rules_of(KEPT, PARAMS, ROOMS))
        clients = {name: world.join(name) for name in NAMES}
        seq = 0
        for what, who, where, number in steps:
            if what == "wait":
                world.clock.clock.advance(number / 1e6)
                continue
            seq += 1
            if what == "members":
                clients["eve"].send(Set(f"/members/{who}", value(where)))
                model.members[who] = where
                continue
            said: dict[str, Any] = {"id": str(number)}
            if what != "say":
                said = {"type": what, "id": f"{what}{seq}", "of": str(number)}
            message = Set(where, value(said)) if where.startswith("/p") else Publish(where, value=value(said))
            clients[who].send(message)
            assert world.relay.keeping is not None
            model.say(Said(seq, world.relay.keeping._last_us, where, who, said))
        for who, question in asked:
            self.check(world, clients[who], model.replay(who, question), question)
        self.assertEqual(world.faults, [])

    def check(self, world: World, client: Client, expected: tuple[list[object], bool], question: Replay) -> None:
        """Compares one answer."""
        client.send(question)
        world.turn()
        messages = client.hear()
        entries = [each for each in messages if isinstance(each, Set | Publish)]
        has_mark = question.types != ALL_TYPES or {question.from_us, question.to_us, question.limit} != {None}
        if has_mark:
            said = mark_of(entries.pop())
            self.assertEqual((said.count, said.complete), (len(expected[0]), expected[1]))
        self.assertEqual([each for _, each in heard(list(entries))], expected[0])
        times = [each.timestamp_us for each in entries if isinstance(each, Publish)]
        self.assertEqual(len(set(times)), len(times))
