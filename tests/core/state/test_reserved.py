"""Tests of clasp_relay.core.state.reserved: addresses at which only one bundle may write."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Param
from clasp_relay.core.state.reserved import MAX_PATTERNS, Reserved
from clasp_relay.wire.address import Pattern


class ReservedTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Nothing is reserved."""
        self.reserved = Reserved()

    def test_nothing_is_reserved_at_first(self) -> None:
        """Nor after a bundle was decided and carried out."""
        for _ in range(2):
            self.assertFalse(self.reserved.is_used)
            self.assertNotIn("/a", self.reserved)
            self.assertFalse(self.reserved.any_is_read(["/a", "/b"]))
            self.reserved.begin_writes([Param("/a", b"\x00" * 10, 1, "", 0), Param("/b", b"\x00", 1, "", 0)])
            self.assertEqual(self.reserved.more_params, 2)
            self.assertGreater(self.reserved.more_bytes, 11)
            self.reserved.read("/b")
            self.reserved.read(Pattern.parse("/c/*"))
            self.assertTrue(self.reserved.is_used)
            self.reserved.end_writes()
            self.assertEqual((self.reserved.more_params, self.reserved.more_bytes), (0, 0))
            self.reserved.end_reads()

    def test_what_is_written_and_what_is_read_is_reserved(self) -> None:
        """Both for writes; expiries ask only for what was read."""
        self.reserved.begin_writes([Param("/a", b"\x00", 1, "", 0)])
        self.assertFalse(self.reserved.any_is_read(["/a"]))
        self.reserved.read("/b")
        self.reserved.read(Pattern.parse("/c/*"))
        for address, is_reserved, is_read in (
            ("/a", True, False),
            ("/b", True, True),
            ("/c/1", True, True),
            ("/c/1/2", False, False),
            ("/d", False, False),
        ):
            with self.subTest(address=address):
                self.assertEqual(address in self.reserved, is_reserved)
                self.assertEqual(self.reserved.is_read(address), is_read)
                self.assertEqual(self.reserved.any_is_read(["/x", address]), is_read)

    def test_many_patterns_reserve_everything(self) -> None:
        """So that no write is compared with many patterns."""
        for number in range(MAX_PATTERNS):
            self.reserved.read(Pattern.parse(f"/{number}/*"))
            self.reserved.read(Pattern.parse(f"/{number}/*"))
        self.assertNotIn("/x", self.reserved)
        self.reserved.read(Pattern.parse("/more/*"))
        self.assertIn("/x", self.reserved)
        self.reserved.end_reads()
        self.assertNotIn("/x", self.reserved)
