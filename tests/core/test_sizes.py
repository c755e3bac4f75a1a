"""Tests of clasp_relay.core.sizes."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Param
from clasp_relay.core.sizes import param_bytes, text_bytes


class TextBytesTests(SynchronousTestCase):
    def test_text_counts_in_bytes_of_utf8(self) -> None:
        """A character is not a byte."""
        for text in ("", "/a", "/é", "/日本", "/😀"):
            with self.subTest(text=text):
                self.assertEqual(text_bytes(text), len(text.encode()))


class ParamBytesTests(SynchronousTestCase):
    def test_param_counts_by_its_address_and_value(self) -> None:
        """Who wrote it, and when, is the relay's own."""
        self.assertEqual(param_bytes(Param("/é", b"\x01\x01", 7, "writer", 5, None, "subject")), 5)
