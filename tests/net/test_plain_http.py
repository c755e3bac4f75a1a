"""Tests of ``clasp_relay.net.plain_http``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.net.plain_http import response
from tests.net.helpers import Site


class PlainHttpTests(SynchronousTestCase):
    def test_server_answers_plain_http_with_426(self) -> None:
        """A wrong proxy rule does not look right; and there is no redirect to anywhere."""
        for path in (b"/", b"/clasp", b"/?redirect=https://evil.example", b"/healthz/x"):
            with self.subTest(path=path):
                client = Site().connect()
                client.send(b"GET " + path + b" HTTP/1.1\r\nHost: relay.example\r\n\r\n")
                client.turn()
                self.assertTrue(client.head.startswith("HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\n"))
                self.assertNotIn("evil", bytes(client.pipe.taken).decode())
                self.assertFalse(client.pipe.connected)

    def test_server_answers_health_checks(self) -> None:
        """200 and ok, as long as the event loop turns; the connection ends."""
        for path in (b"/healthz", b"/healthz?probe=1"):
            with self.subTest(path=path):
                client = Site().connect()
                client.send(b"GET " + path + b" HTTP/1.1\r\nHost: relay.example\r\n\r\n")
                client.turn()
                self.assertTrue(client.head.startswith("HTTP/1.1 200 OK\r\n"))
                self.assertTrue(client.pipe.taken.endswith(b"\r\n\r\nok\n"))
                self.assertFalse(client.pipe.connected)

    def test_response_is_whole(self) -> None:
        """Length, type and the end of the connection are said; extra headers are passed on."""
        self.assertEqual(
            response(400, "versions: 13", "/", [("Sec-WebSocket-Version", "13")]),
            b"HTTP/1.1 400 Bad Request\r\nSec-WebSocket-Version: 13\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nContent-Length: 13\r\n"
            b"Connection: close\r\n\r\nversions: 13\n",
        )

    def test_response_has_a_phrase_for_any_status(self) -> None:
        """Also for one that no standard names."""
        self.assertTrue(response(599, "x", "/").startswith(b"HTTP/1.1 599 Error\r\n"))
