"""Tests of clasp_relay.core.history.memory: which entries are kept, and how they are read."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.history.memory import MemoryHistory, victim
from clasp_relay.core.history.reading import MAX_SEQ, PAGE_ROWS, Asked, Page
from clasp_relay.core.records import Change
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import Publish, Set
from clasp_relay.wire.values import decode_value
from tests.core.world import START_US, World, rules_of, value

PER_ROOM = {
    "path": "/r/{room}/m",
    "per": ["room"],
    "max_count": 3,
    "max_age_secs": 60,
    "erased_by": "/r/{room}/meta",
    "erases": {"type": "delete", "by": "targetId", "of": "msgId"},
}


class MemoryHistoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A relay with a rule for rooms and one for params, and room for 8 entries."""
        self.world = World(history=rules_of(PER_ROOM, {"path": "/p/*", "signals": ["param"]}), max_entries=8)
        self.client = self.world.join()
        reader = self.world.relay.replays.reader  # type: ignore[union-attr]
        assert isinstance(reader, MemoryHistory)
        self.history = reader

    def read(self, pattern: str = "/**", **asked: Any) -> Page:
        """Returns a page."""
        pages: list[Page | None] = []
        self.history.read(Asked(Pattern.parse(pattern), **asked), pages.append)
        (page,) = pages
        assert page is not None
        return page

    def values(self, pattern: str = "/**", **asked: Any) -> list[object]:
        """Returns the values of the entries of a page."""
        return [value_of(entry.change) for entry in self.read(pattern, **asked).entries if entry.change is not None]

    def say(self, obj: object, address: str = "/r/a/m") -> None:
        """Publishes something."""
        self.client.send(Publish(address, value=value(obj)))

    def test_entries_are_read_in_order(self) -> None:
        """Those of one key, or all; the newest first come without their changes."""
        for number in range(2):
            self.say(number)
            self.client.send(Set("/p/a", value(10 + number)))
            self.client.send(Set("/else", value(99)))
        self.assertEqual(self.values(), [0, 10, 1, 11])
        self.assertEqual(self.values("/r/a/m"), [0, 1])
        self.assertEqual(self.values("/p/*"), [10, 11])
        page = self.read(is_backwards=True)
        self.assertEqual([entry.change for entry in page.entries], [None] * 4)
        seqs = [entry.seq for entry in page.entries]
        self.assertEqual(seqs, sorted(seqs, reverse=True))
        self.assertEqual((page.is_end, page.examined_seq), (True, 0))
        self.assertEqual(self.values(after_seq=seqs[-1], before_seq=seqs[0]), [10, 1])
        self.assertEqual(self.read().examined_seq, MAX_SEQ - 1)
        page = self.read(to_us=START_US + 1)
        self.assertEqual((len(page.entries), page.is_end, page.examined_seq), (2, True, seqs[1] - 1))
        page = self.read(from_us=START_US + 2, is_backwards=True)
        self.assertEqual((len(page.entries), page.is_end, page.examined_seq), (2, True, seqs[2]))

    def test_limits_of_a_rule_hold(self) -> None:
        """Of the count of each key, and of the age, which is checked when entries are read."""
        for number in range(5):
            self.say(number)
            self.say(10 + number, "/r/b/m")
        self.assertEqual(self.values(), [2, 12, 3, 13, 4, 14])
        self.world.advance(61)
        self.say(5)
        self.assertEqual(self.values(), [5])

    def test_all_together_are_bounded(self) -> None:
        """The oldest entry is removed."""
        for number in range(10):
            self.client.send(Set(f"/p/{number}", value(number)))
        self.assertEqual((self.values(), self.history.count), (list(range(2, 10)), 8))

    def test_what_is_erased_is_gone(self) -> None:
        """The entries of a room by its settings, a message by its delete."""
        for msg_id in ("m", "n"):
            self.say({"msgId": msg_id})
        self.say({"type": "delete", "targetId": "m"})
        self.say(1, "/r/b/m")
        self.assertEqual(self.values(), [{"msgId": "n"}, {"type": "delete", "targetId": "m"}, 1])
        self.client.send(Set("/r/a/meta", value(1)))
        self.client.send(Set("/r/a/meta", value(None)))
        self.assertEqual(self.values(), [1])
        self.client.send(Set("/r/b/meta", value(None)))
        self.assertEqual(self.history.count, 0)

    def test_what_somebody_said_is_erased(self) -> None:
        """At all addresses; entries of others stay."""
        self.say({"msgId": "m"})
        self.say(1, "/r/b/m")
        counts: list[int | None] = []
        self.history.erase_of("nobody", counts.append)
        self.assertEqual((counts, self.history.count), ([0], 2))
        self.history.erase_of(self.client.session.identity.subject, counts.append)
        self.assertEqual((counts, self.history.count, self.values()), ([0, 2], 0, []))

    def test_page_is_bounded(self) -> None:
        """In the number of entries."""
        world = World(history=rules_of({"path": "/r/*/m"}))
        client = world.join()
        for number in range(PAGE_ROWS + 1):
            client.send(Publish("/r/a/m", value=value(number)))
        self.history = world.relay.replays.reader  # type: ignore[assignment, union-attr]
        page = self.read()
        self.assertEqual((len(page.entries), page.is_end), (PAGE_ROWS, False))
        self.assertEqual(self.values(after_seq=page.examined_seq), [PAGE_ROWS])

    def test_nothing_is_kept_before_it_knows_the_rules(self) -> None:
        """And changes count as recorded."""
        history, done = MemoryHistory(lambda: START_US), list[int]()
        self.assertEqual(history.append(()), 0)
        history.settle(lambda seq: done.append(-1 if seq is None else seq))
        self.assertEqual((done, history.count), ([0], 0))
        pages: list[Page | None] = []
        history.read(Asked(Pattern.parse("/a")), pages.append)
        self.assertEqual(pages, [Page([], MAX_SEQ - 1, 0, True)])


class VictimTests(SynchronousTestCase):
    def test_whoever_has_most_loses_the_oldest(self) -> None:
        """Of several such subjects, the one with the oldest entry."""
        for entries, seq in (
            ([(1, "ann")], 1),
            ([(1, "ann"), (2, "bob"), (3, "bob")], 2),
            ([(1, "ann"), (2, "bob"), (3, "bob"), (4, "ann")], 1),
            ([(1, "eve"), (2, "bob"), (3, "ann"), (4, "ann"), (5, "bob")], 2),
        ):
            self.assertEqual(victim(entries), seq)


def value_of(change: Change) -> object:
    """Returns the value of an entry."""
    found = change.message.value if isinstance(change.message, Publish) else change.param.value
    return decode_value(found or b"\0")
