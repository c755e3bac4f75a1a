"""History of before: a relay asks others for it, page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.past import ANSWER_S, TRIES, Past

PAGE = 10


class Taken(NamedTuple):
    """A page that was added."""

    oldest_seq: int
    is_last: bool


class Shelf:
    """Entries in memory, by their rows. Implements ``past.Store``."""

    def __init__(self, clock: Clock, seqs: range) -> None:
        self.clock = clock
        self.seqs = set(seqs)
        self.next_seq = seqs.stop
        self.is_safe = True
        self.reads = 0
        self.ends = 0
        self.is_readable = True
        self.is_of_other_rules = False

    def oldest(self, call: Callable[[int], None]) -> None:
        """See ``Store``."""
        self.clock.callLater(0, call, min(self.seqs, default=self.next_seq))

    def read_older(self, before_seq: int, call: Callable[[bytes], None]) -> None:
        """See ``Store``."""
        self.reads += 1
        found = sorted((seq for seq in self.seqs if seq < before_seq), reverse=True)
        page = b"%d:" % (len(found) <= PAGE) + b",".join(b"%d" % seq for seq in found[:PAGE])
        self.clock.callLater(0, call, page if self.is_readable else b"")

    def insert(self, data: bytes, call: Callable[[Taken | None], None]) -> None:
        """See ``Store``."""
        is_last, _, text = data.partition(b":")
        seqs = [int(each) for each in text.split(b",") if each]
        self.seqs.update(seqs)
        taken = Taken(min(seqs, default=0), is_last == b"1")
        self.clock.callLater(0, call, None if self.is_of_other_rules else taken)

    def end(self) -> None:
        """See ``Store``."""
        self.ends += 1


class Shop:
    """A relay with its shelf."""

    def __init__(self, bazaar: PastTests, link: str, seqs: range) -> None:
        self.link = link
        self.shelf = Shelf(bazaar.clock, seqs)
        self.begins: list[int] = []
        """Before which row entries may be missing, as it was told."""
        self.is_joined = True
        self.past = Past(
            self.shelf,
            bazaar.publish,
            lambda: self.link if self.is_joined else "",
            lambda: list(bazaar.shops),
            bazaar.clock.seconds,
            bazaar.clock.callLater,
            self._know,
        )

    def _know(self, seq: int) -> None:
        self.begins.append(seq)

    @property
    def whole(self) -> int:
        """How often it was told that it has all."""
        return self.begins.count(0)


class PastTests(SynchronousTestCase):
    """Relays, and a bus between them."""

    def setUp(self) -> None:
        """Without any relay."""
        self.clock = Clock()
        self.shops: dict[str, Shop] = {}
        self.lost: Iterator[bool] = iter(())
        self.published: list[str] = []

    def publish(self, subject: str, payload: bytes) -> None:
        """Brings a message to all relays."""
        self.published.append(subject)
        if next(self.lost, False):
            return
        for shop in self.shops.values():
            take = shop.past.heard_request if subject == "past" else shop.past.heard_page
            self.clock.callLater(0, take, payload)

    def add(self, link: str, seqs: range) -> Shop:
        """Adds a relay that has entries."""
        shop = self.shops[link] = Shop(self, link, seqs)
        shop.past.start()
        return shop

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        self.clock.pump([0.01] * round(seconds * 100))

    def test_newcomer_gets_all_of_it(self) -> None:
        """In pages; then it is whole, and asks for nothing any more."""
        old, new = self.add("old", range(1, 100)), self.add("new", range(100, 100))
        self.advance(5)
        self.assertEqual(new.shelf.seqs, old.shelf.seqs)
        self.assertEqual(new.begins[:3], [100, 90, 80])
        self.assertEqual((new.shelf.ends, bool(new.whole)), (1, True))
        reads = old.shelf.reads
        self.assertEqual(reads, 10)
        self.advance(20)
        self.assertEqual(old.shelf.reads, reads)

    def test_relay_that_is_alone_is_whole(self) -> None:
        """There is nobody to ask."""
        shop = self.add("one", range(5))
        self.advance(2)
        self.assertTrue(shop.whole)
        self.assertEqual(self.published, [])

    def test_relay_that_has_all_asks_nobody(self) -> None:
        """Nothing is before the first row."""
        self.add("old", range(1, 9))
        new = self.add("new", range(1, 1))
        new.shelf.is_safe = False
        self.advance(3)
        self.assertTrue(new.whole)
        self.assertEqual(self.shops["old"].shelf.reads, 0)

    def test_everybody_is_asked(self) -> None:
        """Also who comes later and has more, and who has nothing."""
        new = self.add("new", range(50, 60))
        self.add("empty", range(60, 60))
        self.advance(2)
        self.assertEqual(len(new.shelf.seqs), 10)
        self.add("old", range(1, 60))
        self.advance(3)
        self.assertEqual(new.shelf.seqs, set(range(1, 60)))

    def test_nothing_is_asked_before_it_is_safe(self) -> None:
        """Before the relay has joined, and before its state is saved."""
        self.add("old", range(1, 9))
        new = self.add("new", range(9, 9))
        new.is_joined, new.shelf.is_safe = False, False
        self.advance(3)
        new.is_joined = True
        self.advance(3)
        self.assertEqual((new.shelf.seqs, new.whole), (set(), 0))
        new.shelf.is_safe = True
        self.advance(3)
        self.assertEqual(len(new.shelf.seqs), 8)

    def test_page_that_is_lost_is_asked_for_again(self) -> None:
        """A relay that never answers has none in the end."""
        old, new = self.add("old", range(1, 30)), self.add("new", range(30, 30))
        self.lost = iter([True, False, True])
        self.advance(4 * ANSWER_S)
        self.assertEqual(new.shelf.seqs, old.shelf.seqs)
        self.shops["deaf"] = Shop(self, "deaf", range(1, 50))
        self.shops["deaf"].is_joined = False
        whole = new.whole
        self.advance(ANSWER_S * (TRIES + 1))
        self.assertGreater(new.whole, whole)

    def test_who_cannot_give_or_keeps_by_other_rules_has_none(self) -> None:
        """The next one is asked."""
        for name in ("is_readable", "is_of_other_rules"):
            self.setUp()
            old, new = self.add("old", range(1, 9)), self.add("new", range(9, 9))
            if name == "is_readable":
                old.shelf.is_readable = False
            else:
                new.shelf.is_of_other_rules = True
            self.advance(3)
            with self.subTest(name):
                self.assertTrue(new.whole)
                self.assertEqual(old.shelf.reads, 1)

    def test_who_is_gone_is_forgotten(self) -> None:
        """Every start of a relay is one of its own, and there may be many."""
        new = self.add("new", range(50, 60))
        for number in range(5):
            name = f"old-{number}"
            self.add(name, range(40 - number, 60))
            self.advance(3)
            self.shops.pop(name).past.stop()
        self.advance(3)
        self.assertEqual(new.shelf.seqs, set(range(36, 60)))
        self.assertLessEqual(len(new.past._asked), 1)

    def test_stop_ends_it(self) -> None:
        """Nothing is asked, and what comes is left out."""
        self.add("old", range(1, 90))
        new = self.add("new", range(90, 90))
        self.advance(0.1)
        new.past.stop()
        count = len(new.shelf.seqs)
        self.advance(5)
        self.assertLessEqual(len(new.shelf.seqs), count + PAGE)
        self.assertFalse(new.whole)
