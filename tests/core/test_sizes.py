"""Tests of clasp_relay.core.sizes."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.sizes import text_bytes


class TextBytesTests(SynchronousTestCase):
    def test_text_counts_in_bytes_of_utf8(self) -> None:
        """A character is not a byte."""
        for text in ("", "/a", "/é", "/日本", "/😀"):
            with self.subTest(text=text):
                self.assertEqual(text_bytes(text), len(text.encode()))
