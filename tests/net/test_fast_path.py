"""Tests of ``clasp_relay.net.fast_path``."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import CloseCode
from clasp_relay.net.fast_path import FastPathProtocol, unmask
from clasp_relay.net.guarded import GuardedProtocol
from clasp_relay.wire.constants import MAX_FRAME_BYTES
from tests.net.helpers import MemorySession, Site, client_frame

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
        self.assertEqual(unmask(data, mask), bytes(byte ^ mask[index % 4] for index, byte in enumerate(data)))


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
