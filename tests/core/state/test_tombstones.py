"""Tests of clasp_relay.core.state.tombstones."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Ended
from clasp_relay.core.state.tombstones import Tombstones


class TombstonesTests(SynchronousTestCase):
    def test_oldest_is_forgotten_first(self) -> None:
        """As many are kept as params are allowed; an address that ends again becomes the newest."""
        tombstones = Tombstones(2, 1000)
        for revision, address in enumerate(("/a", "/b", "/a", "/c"), 1):
            tombstones.remember(address, Ended(revision, 0))
        self.assertEqual(list(tombstones.all()), [("/a", Ended(3, 0)), ("/c", Ended(4, 0))])
        self.assertIsNone(tombstones.get("/b"))

    def test_addresses_are_bounded_in_bytes(self) -> None:
        """In UTF-8; bytes of forgotten ones are subtracted."""
        tombstones = Tombstones(100, 10)
        for address in ("/éé", "/éé", "/bcde"):
            tombstones.remember(address, Ended(1, 0))
        self.assertEqual([address for address, _ in tombstones.all()], ["/éé", "/bcde"])
        tombstones.remember("/f", Ended(1, 0))
        self.assertEqual([address for address, _ in tombstones.all()], ["/bcde", "/f"])
        tombstones.forget("/bcde")
        tombstones.remember("/ghijkl", Ended(1, 0))
        self.assertEqual([address for address, _ in tombstones.all()], ["/f", "/ghijkl"])

    def test_stamped_one_is_never_forgotten(self) -> None:
        """It counts as a param instead."""
        tombstones = Tombstones(1, 1000)
        tombstones.remember("/s", Ended(1, 0, "", "alice"))
        for address in ("/a", "/b", "/c"):
            tombstones.remember(address, Ended(2, 0))
        self.assertEqual(tombstones.get("/s"), Ended(1, 0, "", "alice"))
        self.assertEqual(tombstones.stamped, 1)
        self.assertEqual([address for address, _ in tombstones.all()], ["/c", "/s"])

    def test_some_of_many_are_forgotten_together(self) -> None:
        """Replacing one old record for each new one would take longer."""
        tombstones = Tombstones(1_000, 100_000)
        for number in range(3_000):
            tombstones.remember(f"/{number}", Ended(1, 0))
            self.assertLessEqual(len(tombstones.all()), 1_000)
        left = [address for address, _ in tombstones.all()]
        self.assertGreater(len(left), 990)
        self.assertEqual(left, [f"/{number}" for number in range(3_000 - len(left), 3_000)])

    def test_forgotten_one_is_returned(self) -> None:
        """None for an unknown address."""
        tombstones = Tombstones(10, 1000)
        tombstones.remember("/a", Ended(1, 0))
        tombstones.remember("/s", Ended(2, 0, "", "alice"))
        found = [tombstones.forget(address) for address in ("/a", "/s", "/a", "/b")]
        self.assertEqual(found, [Ended(1, 0), Ended(2, 0, "", "alice"), None, None])
        self.assertEqual((list(tombstones.all()), tombstones.stamped), ([], 0))
