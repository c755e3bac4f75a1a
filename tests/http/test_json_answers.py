"""JSON in and out; the rest is tested with the API."""

import gc
import weakref
from collections.abc import Callable
from typing import Any, cast

from autobahn.twisted.resource import WebSocketResource
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IRequest
from twisted.web.test.requesthelper import DummyRequest

from clasp_relay.access.refusals import BadInput, Busy
from clasp_relay.http.cors import Origins
from clasp_relay.http.json_answers import (
    AnsweredLater,
    bearer_of,
    is_too_large,
    optional_text,
    read_object,
    required_text,
)
from clasp_relay.http.site import make_site
from tests.doors.site import Site
from tests.http.memory_site import MemorySite, parse_answer
from tests.http.test_site import HEAD, Measure
from tests.net.helpers import UPGRADE


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


class LaterTests(SynchronousTestCase):
    """Answers that have to wait."""

    def test_request_waits_for_what_it_needs(self) -> None:
        """Then it is answered as any other, or told to come again; a client that has gone is not answered."""
        waiting: list[Deferred[None]] = []

        def instead(request: IRequest, find: Callable[[Any], Any]) -> AnsweredLater | None:
            if request.getHeader(b"authorization") is None:
                return None
            waiting.append(Deferred())
            return AnsweredLater(waiting[-1], find, Origins(None))

        site = MemorySite(Measure())
        site.site.instead = instead
        data = HEAD + b"Content-Length: 2\r\n"
        self.assertEqual(site.send(data + b"\r\nab").body, b"2")
        data += b"Authorization: Bearer cpsk_x\r\n\r\nab"
        for place in range(2):
            protocol, transport = site.connect()
            protocol.dataReceived(data)
            site.clock.advance(0)
            self.assertEqual(transport.value(), b"")
            if place:
                waiting[place].errback(Failure(Busy("Later.", 7)))
                answer = parse_answer(transport.value())
                self.assertEqual((answer.status, answer.json), (503, {"error": "Later."}))
                self.assertEqual(answer.headers["retry-after"], "7")
                self.assertEqual(answer.headers["access-control-allow-origin"], "*")
            else:
                waiting[place].callback(None)
                self.assertEqual(parse_answer(transport.value()).body, b"2")
        outcomes: tuple[Any, ...] = (None, Failure(Busy("Later.", 7)))
        for outcome in outcomes:
            protocol, transport = site.connect()
            protocol.dataReceived(data)
            site.clock.advance(0)
            protocol.connectionLost(Failure(ConnectionDone()))
            waiting[-1].callback(outcome)
            self.assertEqual(transport.value(), b"")

    def test_websocket_that_begins_later_leaves_nothing_of_its_request(self) -> None:
        """Neither in the table of connections, nor in a reference cycle; nothing can end it to make room."""
        site = Site()
        waits: Deferred[None] = Deferred()
        web: Any = make_site(WebSocketResource(site.gate), site.reactor)
        web.startFactory()
        web.instead = lambda _request, find: AnsweredLater(waits, find, Origins(None))
        client = site.connect(web)
        client.send(UPGRADE)
        self.assertEqual((client.heard(), len(web.connections)), (b"", 1))
        gc.disable()
        self.addCleanup(gc.enable)
        waits.callback(None)
        self.assertTrue(client.heard().startswith(b"HTTP/1.1 101 "))
        self.assertEqual((len(web.connections), web.connections._count_at), (0, {}))
        producer = client.pipe.producer
        client.protocol.evict()
        self.assertEqual((client.is_closed, client.pipe.producer), (False, producer))
        there = weakref.ref(client.protocol)
        client.protocol = client.pipe.protocol
        self.assertIsNone(there())

    def test_request_is_answered_whatever_goes_wrong(self) -> None:
        """While it waits, and when it is answered; for a client that has gone the fault is only logged."""
        waiting: list[Deferred[None]] = []

        def broken(_: Any) -> Any:
            raise KeyError

        def instead(_request: IRequest, _find: Callable[[Any], Any]) -> AnsweredLater:
            waiting.append(Deferred())
            return AnsweredLater(waiting[-1], broken, Origins(None))

        site = MemorySite(Measure())
        site.site.instead = instead
        outcomes: tuple[Any, ...] = (None, Failure(KeyError()))
        for outcome in outcomes:
            for is_gone in (False, True):
                protocol, transport = site.connect()
                protocol.dataReceived(HEAD + b"\r\n")
                site.clock.advance(0)
                if is_gone:
                    protocol.connectionLost(Failure(ConnectionDone()))
                waiting[-1].callback(outcome)
                with self.subTest(outcome=outcome, is_gone=is_gone):
                    if is_gone:
                        self.assertEqual(transport.value(), b"")
                    else:
                        self.assertEqual(parse_answer(transport.value()).status, 500)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 3)
