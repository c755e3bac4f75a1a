"""JSON in and out; the rest is tested with the API."""

from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IRequest
from twisted.web.test.requesthelper import DummyRequest

from clasp_relay.access.refusals import BadInput
from clasp_relay.http.json_answers import bearer_of, is_too_large, optional_text, read_object, required_text


def request(headers: dict[str, str] | None = None) -> IRequest:
    """Returns a request without a body."""
    made: Any = DummyRequest([b""])
    made.content = None
    for name, value in (headers or {}).items():
        made.requestHeaders.addRawHeader(name, value)
    return cast(IRequest, made)


class BodyTests(SynchronousTestCase):
    """What is read from a body."""

    def test_request_without_a_body_has_no_object(self) -> None:
        """Nor is it too large."""
        self.assertFalse(is_too_large(request()))
        self.assertRaises(BadInput, read_object, request())

    def test_text_is_a_string_that_can_be_written(self) -> None:
        """A missing one and null are none; half a surrogate pair is no text."""
        body: dict[str, Any] = {"a": "x", "null": None, "number": 1, "list": ["x"], "half": "\ud83d"}
        self.assertEqual(optional_text(body, "a"), "x")
        self.assertEqual(required_text(body, "a"), "x")
        for key in ("null", "missing"):
            self.assertIsNone(optional_text(body, key))
            error = self.assertRaises(BadInput, required_text, body, key)
            self.assertEqual(error.sentence, f"«{key}» is missing.")
        for key in ("number", "list", "half"):
            with self.subTest(key=key):
                self.assertRaises(BadInput, optional_text, body, key)


class BearerTests(SynchronousTestCase):
    """The token in a header."""

    def test_bearer_is_what_follows_the_scheme(self) -> None:
        """The scheme in any case; other schemes, and nothing, are none."""
        cases = [
            ("Bearer cpsk_x", "cpsk_x"),
            ("bearer  cpsk_x ", "cpsk_x"),
            ("BEARER cpsk_x", "cpsk_x"),
            ("Bearer", None),
            ("Bearer ", None),
            ("Basic cpsk_x", None),
            ("cpsk_x", None),
            ("", None),
        ]
        for header, token in cases:
            with self.subTest(header=header):
                self.assertEqual(bearer_of(request({"Authorization": header})), token)
        self.assertIsNone(bearer_of(request()))
