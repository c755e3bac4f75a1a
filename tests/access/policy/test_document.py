"""The parts of a document, as they are asked."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.limits import RateLimits
from clasp_relay.access.policy.checks.base import Scalar
from clasp_relay.access.policy.document import Bounds, Document, GuestIds, Mark, will_pattern
from clasp_relay.errors import RequestError
from clasp_relay.wire.values import encode_value


class BoundsTests(SynchronousTestCase):
    def test_what_is_too_large_is_named(self) -> None:
        """In bytes, and in characters of a field, which count once however many bytes they take."""
        bounds = Bounds(100, ((b"text", 10),))
        for value, problem in (
            ({"text": "0123456789"}, None),
            ({"text": "\u00e4" * 10}, None),
            ({"text": "\u00e4" * 11}, "'text' in the value may have 10 characters at most, and has 11"),
            ({"text": [1, 2]}, "'text' in the value may have 10 characters at most, and has"),
            ({"other": "0123456789" * 5}, None),
            ("0" * 100, "the value may take 100 bytes at most, and has 103"),
        ):
            with self.subTest(value):
                found = bounds.problem(encode_value(value))
                self.assertEqual(found is None, problem is None)
                self.assertTrue((found or "").startswith(problem or ""), found)

    def test_bounds_are_described(self) -> None:
        """For whoever asks what a policy allows."""
        self.assertEqual(Bounds(100, ((b"text", 10),)).describe(), "100 bytes, 10 characters in 'text'")


class MarkTests(SynchronousTestCase):
    def test_mark_is_looked_at_where_it_may_hold(self) -> None:
        """Where its field is in the value, or all of its words are."""
        mark = Mark(b"bot", Scalar(None, encode_value(True)), (), (b"type", b"bot-kind"))
        for value, may in (({"bot": 1}, True), ({"type": "bot-kind"}, True), ({"type": "x"}, False), ({"x": 1}, False)):
            with self.subTest(value):
                self.assertEqual(mark.may_hold(encode_value(value)), may)


class WillTests(SynchronousTestCase):
    def test_path_of_a_will_is_that_of_its_subject(self) -> None:
        """Of all subjects with a wildcard."""
        self.assertTrue(will_pattern("/here/{session}/*", "ann").matches("/here/ann/1"))
        self.assertFalse(will_pattern("/here/{session}", "ann").matches("/here/bob"))
        self.assertTrue(will_pattern("/here/{session}", "*").matches("/here/bob"))
        self.assertRaises(RequestError, will_pattern, "here", "ann")


class EmptyDocumentTests(SynchronousTestCase):
    """What holds when a document says nothing."""

    def test_empty_document_restricts_nothing_but_gives_no_scopes(self) -> None:
        """Its defaults are those of the relay."""
        document = Document("test", RateLimits())
        self.assertEqual((document.scopes, document.write_rules, document.visibility), ((), (), ()))
        self.assertEqual((document.message_rate, document.hello_snapshot), (None, True))
        self.assertIs(document.guest_ids, GuestIds.BEARER)
