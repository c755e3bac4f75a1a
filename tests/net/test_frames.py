"""Tests of ``clasp_relay.net.frames``."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel, capturedLogs, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import CloseCode
from clasp_relay.net.frames import (
    CODEC,
    MAX_FRAGMENTS,
    MAX_REQUEST_BYTES,
    FastPathProtocol,
    GuardedProtocol,
    SideLog,
    header,
    unmask,
    wire_bytes,
)
from clasp_relay.wire.codec import encode_to_frame
from clasp_relay.wire.constants import MAX_FRAME_BYTES
from clasp_relay.wire.messages import Ping
from tests.net.helpers import REQUEST, UPGRADE, MemorySession, Site, client_frame, server_frames


class HeaderTests(SynchronousTestCase):
    def test_header_says_the_length_in_its_shortest_form(self) -> None:
        """RFC 6455 §5.2: 7, 16 or 64 bits, the fewest that do."""
        for length, expected in (
            (0, b"\x82\x00"),
            (125, b"\x82\x7d"),
            (126, b"\x82\x7e\x00\x7e"),
            (0xFFFF, b"\x82\x7e\xff\xff"),
            (0x10000, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        ):
            with self.subTest(length=length):
                self.assertEqual(header(length), expected)
                self.assertEqual(server_frames(wire_bytes(bytes(length))), [(2, bytes(length))])


class CodecTests(SynchronousTestCase):
    def test_codec_puts_each_message_into_a_websocket_message(self) -> None:
        """What the core is given for a session's way out goes to the transport as it is."""
        message = Ping()
        self.assertEqual(server_frames(CODEC.encode(message)), [(2, encode_to_frame(message))])
        self.assertEqual(CODEC.decode(encode_to_frame(message)), (message, 0))


payloads = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([125, 126, 127, 300, 65_535, 65_536, MAX_FRAME_BYTES, MAX_FRAME_BYTES + 1]).map(bytes),
)
masks = st.one_of(st.just(bytes(4)), st.binary(min_size=4, max_size=4))
usual = st.builds(lambda data, mask: client_frame(data, mask=mask), payloads, masks)
fragments = st.lists(st.binary(max_size=5), min_size=2, max_size=4).map(
    lambda parts: b"".join(
        client_frame(part, 0 if index else 2, fin=index == len(parts) - 1, mask=b"abcd")
        for index, part in enumerate(parts)
    )
)
control = st.builds(
    lambda data, opcode: client_frame(data, opcode, mask=b"abcd"), st.binary(max_size=20), st.sampled_from([9, 10])
)
ODD = [
    client_frame(b"text", 1, mask=b"abcd"),
    client_frame(b"\x03\xe8bye", 8, mask=b"abcd"),
    client_frame(b"", 8, mask=b"abcd"),
    client_frame(b"\x03", 8, mask=b"abcd"),
    client_frame(b"x", 3, mask=b"abcd"),
    client_frame(b"x", 0, mask=b"abcd"),
    client_frame(b"close me", mask=b"abcd"),
    client_frame(b"fail", mask=b"abcd"),
    client_frame(b"part", fin=False, mask=b"abcd"),
    b"\x82\x01x",
    b"\xc2\x81maskx",
    b"\x82\xfe\x00\x05maskhello",
    b"\x82\xff\x00\x00\x00\x00\x00\x00\x00\x05maskhello",
    b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xffmask",
]
"""What is not the usual frame, or changes what happens to those behind it."""

streams = st.lists(st.one_of(usual, fragments, control, st.sampled_from(ODD), st.binary(max_size=12)), max_size=8)


def act(session: MemorySession, data: bytes) -> None:
    """A relay that ends sessions in the middle of what they send."""
    if data == b"close me":
        session.outbox.close(CloseCode.POLICY_VIOLATION, "as you wish")
    elif data == b"fail":
        raise ZeroDivisionError


class UnmaskTests(SynchronousTestCase):
    @given(st.binary(max_size=300), masks)
    @example(bytes(range(256)) * 3, b"abcd")
    def test_unmask_is_the_xor_of_every_byte(self, data: bytes, mask: bytes) -> None:
        """RFC 6455 §5.3, for every length and mask."""
        self.assertEqual(unmask(mask + data), bytes(byte ^ mask[index % 4] for index, byte in enumerate(data)))


class FastPathTests(SynchronousTestCase):
    def outcome(self, pieces: list[bytes], is_fast: bool) -> tuple[object, ...]:
        """Sends pieces to a session with or without the fast path, and returns all that can be seen of it."""
        site = Site()
        site.relay.on_receive = act
        if not is_fast:
            self.patch(site.factory.protocol, "_dataReceived", GuardedProtocol._dataReceived)
        client = site.open()
        for piece in pieces:
            client.send(piece)
        client.turn()
        client.turn()
        session = site.relay.sessions[0]
        self.flushLoggedErrors(ZeroDivisionError)
        seen = (session.received, client.frames, bool(client.pipe.connected), client.pipe.options, session.disconnects)
        if client.pipe.connected:
            client.turn(11)
            client.turn()
        return (*seen, bool(client.pipe.connected), session.disconnects)

    @settings(max_examples=300)
    @given(streams, st.lists(st.integers(0, 200), max_size=10), st.booleans())
    def test_fast_path_gives_what_autobahn_gives(self, stream: list[bytes], cuts: list[int], is_bytewise: bool) -> None:
        """The same messages, answers, errors and closes on the same bytes, wherever TCP cuts them."""
        data = b"".join(stream)
        if is_bytewise and len(data) < 500:
            pieces = [data[at : at + 1] for at in range(len(data))]
        else:
            pieces, at = [], 0
            for cut in cuts:
                pieces.append(data[at : at + cut])
                at += cut
            pieces.append(data[at:])
        pieces = [piece for piece in pieces if piece]
        self.assertEqual(self.outcome(pieces, True), self.outcome(pieces, False))

    def test_fast_path_gives_what_autobahn_gives_around_every_odd_frame(self) -> None:
        """Each odd frame between two usual ones, cut at every place."""
        before, after = client_frame(b"before", mask=b"abcd"), client_frame(b"after", mask=b"abcd")
        for odd in ODD:
            data = before + odd + after
            for cut in range(len(data)):
                with self.subTest(odd=odd, cut=cut):
                    pieces = [piece for piece in (data[:cut], data[cut:]) if piece]
                    self.assertEqual(self.outcome(pieces, True), self.outcome(pieces, False))

    def test_fast_path_keeps_short_frames_from_autobahn(self) -> None:
        """A bulk sender, whose frames are cut anywhere, never falls back to the slow way."""
        site = Site()
        client = site.open()

        def trap(*_: object) -> None:
            raise AssertionError("Autobahn was asked")

        self.patch(GuardedProtocol, "_dataReceived", trap)
        stream = b"".join(client_frame(b"%d" % number * 10) for number in range(200))
        for at in range(0, len(stream), 97):
            client.send(stream[at : at + 97])
        self.assertEqual(len(site.relay.sessions[0].received), 201)

    def test_fast_path_is_the_way_in(self) -> None:
        """The protocol in use has it."""
        self.assertTrue(issubclass(Site().factory.protocol, FastPathProtocol))


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


class SideLogTests(SynchronousTestCase):
    def test_side_log_makes_debug_lines_of_what_peers_do_wrong(self) -> None:
        """Nothing that a client repeats fills the operator's log."""
        log = SideLog()
        with capturedLogs() as events:
            for write in (log.debug, log.info, log.warn, log.error):
                write("{what} from {{a peer}}", what="nonsense")
        self.assertEqual([event["log_level"] for event in events], [LogLevel.debug] * 3)
        self.assertEqual(events[0]["detail"], "nonsense from {a peer}")

    def test_sessions_log_nothing_per_message(self) -> None:
        """Messages, pings and pongs leave no line at any level."""
        client = Site().open()
        events: Any = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        client.send(client_frame(b"a"), client_frame(b"", 9), client_frame(b"", 10))
        client.turn()
        self.assertEqual(events, [])
