"""Tests of ``clasp_relay.net.plain_http``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.net.plain_http import response
from tests.net.helpers import UPGRADE, Site


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

    def test_server_answers_health_checks_of_every_kind(self) -> None:
        """HAProxy's are HTTP/1.0, monitors send HEAD, and some send no Host."""
        for request, body in (
            (b"GET /healthz HTTP/1.0\r\n\r\n", b"ok\n"),
            (b"OPTIONS /healthz HTTP/1.0\r\n\r\n", None),
            (b"HEAD /healthz HTTP/1.1\r\nHost: relay.example\r\n\r\n", b""),
            (b"HEAD /healthz HTTP/1.0\r\n\r\n", b""),
            (b"GET /healthz?probe=1 HTTP/1.1\r\n\r\n", b"ok\n"),
            (b"GET /healthz HTTP/2.0\r\n\r\n", None),
            (b"GET /healthzz HTTP/1.0\r\n\r\n", None),
        ):
            with self.subTest(request):
                client = Site().connect()
                client.send(request)
                client.turn()
                head, _, rest = bytes(client.pipe.taken).partition(b"\r\n\r\n")
                self.assertIs(head.startswith(b"HTTP/1.1 200 OK\r\n"), body is not None, head)
                if body is not None:
                    self.assertEqual(rest, body)
                    self.assertIn(b"\r\nContent-Length: 3\r\n", head)
                self.assertFalse(client.pipe.connected)

    def test_path_of_health_checks_can_be_upgraded_as_any_other(self) -> None:
        """Every path is a WebSocket's."""
        client = Site().connect()
        client.send(UPGRADE.replace(b"GET /ws", b"GET /healthz"))
        self.assertTrue(client.head.startswith("HTTP/1.1 101 "), client.head)

    def test_host_may_end_with_a_colon(self) -> None:
        """RFC 9110 §4.2.3: an empty port is the scheme's own."""
        for host in (b"relay:", b"[::1]:", b"relay: \t"):
            with self.subTest(host):
                client = Site().connect()
                client.send(UPGRADE.replace(b"relay.example:7330", host))
                self.assertTrue(client.head.startswith("HTTP/1.1 101 "), client.head)

    def test_client_that_speaks_tls_is_told_at_once(self) -> None:
        """It need not wait for the time-out; the relay's log says why it was left."""
        site = Site()
        client = site.connect()
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        client.turn()
        self.assertTrue(client.head.startswith("HTTP/1.1 400 "))
        self.assertFalse(client.pipe.connected)
        self.assertEqual(site.factory.writer.counters.turned_away, 1)

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
