"""Tests of ``clasp_relay.net.guarded``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.net.guarded import MAX_FRAGMENTS, MAX_REQUEST_BYTES
from tests.net.helpers import REQUEST, UPGRADE, Site, client_frame


class RequestTests(SynchronousTestCase):
    def test_server_refuses_a_request_without_end(self) -> None:
        """16 kB of headers are enough; 431, and no more is kept."""
        client = Site().connect()
        for _ in range(100):
            client.send(b"X-Filler: " + bytes(1000))
        self.assertTrue(client.head.startswith("HTTP/1.1 431 "))
        self.assertLess(len(client.protocol.data), MAX_REQUEST_BYTES + 2000)

    def test_server_refuses_a_long_request_that_comes_at_once(self) -> None:
        """The limit does not depend on how the request is cut."""
        client = Site().connect()
        client.send(REQUEST + b"X-Filler: " + b"x" * MAX_REQUEST_BYTES + b"\r\n\r\n")
        self.assertTrue(client.head.startswith("HTTP/1.1 431 "))

    def test_server_takes_messages_behind_a_request_of_any_length(self) -> None:
        """Messages that follow the request in the same segment do not count as request."""
        site = Site()
        client = site.connect()
        client.send(UPGRADE + client_frame(bytes(60_000)))
        self.assertEqual(site.relay.sessions[0].received, [bytes(60_000)])

    def test_server_answers_a_bad_request_and_hangs_up(self) -> None:
        """Every request gets a whole response, and the connection ends."""
        for name, request, status in (
            ("garbage", b"\x16\x03\x01\r\n\r\n", 400),
            ("POST", REQUEST.replace(b"GET", b"POST") + b"\r\n", 405),
            ("HTTP/1.0", REQUEST.replace(b"/1.1", b"/1.0") + b"\r\n", 505),
            ("no version", REQUEST.replace(b"Sec-WebSocket-Version: 13\r\n", b"") + b"\r\n", 400),
            ("odd version", REQUEST.replace(b"Version: 13", b"Version: 99") + b"\r\n", 400),
        ):
            with self.subTest(name=name):
                client = Site().connect()
                client.send(request)
                client.turn()
                self.assertTrue(client.head.startswith(f"HTTP/1.1 {status} "), client.head)
                self.assertFalse(client.pipe.connected)

    def test_session_holds_nothing_of_its_request(self) -> None:
        """What only the upgrade needed is let go of."""
        protocol = Site().open().protocol
        self.assertFalse(protocol.http_request_data or protocol.http_headers or protocol.http_response_data)


class MessageTests(SynchronousTestCase):
    def test_session_is_closed_for_fragments_without_end(self) -> None:
        """Empty fragments never reach a limit of bytes; they have one in number."""
        for payload in (b"", b"x"):
            with self.subTest(payload=payload):
                site = Site()
                client = site.open()
                client.send(client_frame(payload, fin=False) + client_frame(payload, 0, fin=False) * MAX_FRAGMENTS)
                client.send(client_frame(b"", 0))
                client.turn()
                self.assertEqual(client.closes, [(1009, "too many fragments")])
                self.assertEqual(site.relay.sessions[0].received, [b"hello"])

    def test_session_takes_a_message_that_comes_byte_by_byte(self) -> None:
        """The limit is about fragments and not about how TCP cuts them."""
        site = Site()
        client = site.open()
        for byte in client_frame(bytes(2 * MAX_FRAGMENTS)):
            client.send(bytes((byte,)))
        self.assertEqual(site.relay.sessions[0].received[1:], [bytes(2 * MAX_FRAGMENTS)])

    def test_session_keeps_nothing_of_an_oversized_control_frame(self) -> None:
        """1002 at the header; the rest is read and thrown away until the connection ends."""
        client = Site().open()
        client.send(b"\x89\xff" + (1 << 40).to_bytes(8, "big") + b"mask")
        for _ in range(100):
            client.send(bytes(1000))
        client.turn()
        self.assertEqual([code for code, _ in client.closes], [1002])
        self.assertEqual(client.protocol.control_frame_data, [])
        client.turn(10)
        client.turn()
        self.assertFalse(client.pipe.connected)

    def test_session_still_finds_the_close_of_a_peer_that_it_failed(self) -> None:
        """After a protocol error the closing handshake is finished without waiting."""
        client = Site().open()
        client.send(client_frame(bytes(300), 3), client_frame(b"\x03\xea", 8))
        client.turn()
        self.assertFalse(client.pipe.connected)
