"""Tests of clasp_relay.logs.masks."""

import struct

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.logs.masks import MAX_SHOWN_BYTES, frame_hex, mask_tokens, sent_hex
from clasp_relay.wire.codec import encode
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import Hello, Ping, Set

TOKEN = "cpsk_0123456789abcdef0123456789abcdef"
SECRET = TOKEN[5:].encode().hex()
FOREIGN = "a token of somebody else's making"


def hello(token: str, name: str = "") -> bytes:
    """Returns a HELLO as a frame."""
    return encode_frame(encode(Hello(1, 0, name, token)))


class FrameTests(SynchronousTestCase):
    def test_frame_is_shown_in_full(self) -> None:
        """As it came."""
        data = encode_frame(encode(Ping()))
        self.assertEqual(frame_hex(data), data.hex())

    def test_token_of_a_hello_is_masked(self) -> None:
        """Whatever it looks like, in binary and in MessagePack; the rest stays."""
        packed = msgpack.packb(
            {"type": "HELLO", "version": 1, "name": "n", "features": [], "token": FOREIGN}, use_bin_type=True
        )
        for data in (hello(FOREIGN, "client"), hello(FOREIGN), encode_frame(packed)):
            shown = frame_hex(data)
            self.assertNotIn(FOREIGN.encode().hex(), shown)
            self.assertEqual(shown, data.hex().replace(FOREIGN.encode().hex(), "**" * len(FOREIGN)))

    def test_hello_without_a_token_is_shown_in_full(self) -> None:
        """There is nothing to mask."""
        self.assertEqual(frame_hex(hello("", "client")), hello("", "client").hex())

    def test_broken_hello_shows_its_beginning_only(self) -> None:
        """Nobody can tell where its token is."""
        whole = hello(FOREIGN)
        payload = struct.pack(">BBBHH", 1, 1, 0, 0, len(FOREIGN)) + FOREIGN.encode()
        for data in (
            whole[:-1],
            b"\x54" + whole[1:],
            encode_frame(payload + b"x"),
            encode_frame(b"\x81" + FOREIGN.encode()),
            b"",
        ):
            with self.subTest(data):
                self.assertLessEqual(len(frame_hex(data).partition("…")[0]), 20)

    def test_broken_frame_of_another_kind_is_shown(self) -> None:
        """It is what somebody traces for; tokens of ours are masked all the same."""
        data = encode_frame(encode(Set("/a", b"\x08" + struct.pack(">H", len(TOKEN)) + TOKEN.encode())) + b"\x00")
        self.assertEqual(frame_hex(data), data.hex().replace(TOKEN.encode().hex(), "**" * len(TOKEN)))

    def test_token_is_masked_in_what_is_sent(self) -> None:
        """Somebody may have set one as a value."""
        self.assertNotIn(SECRET, sent_hex(b"\x82\x30" + TOKEN.encode() + b"\x00" + TOKEN.encode()))

    def test_long_frame_is_cut(self) -> None:
        """With its size; a token at the cut is masked too."""
        data = bytes(MAX_SHOWN_BYTES - 10) + TOKEN.encode() + bytes(100)
        shown = sent_hex(data)
        self.assertEqual(shown, bytes(MAX_SHOWN_BYTES - 10).hex() + "**" * 10 + f"… ({len(data)} bytes)")
        self.assertNotIn(SECRET[:4], sent_hex(bytes(MAX_SHOWN_BYTES) + TOKEN.encode()))

    @given(st.binary(max_size=40), st.integers(0, 60), st.binary(max_size=4))
    def test_token_is_in_no_form_of_a_damaged_hello(self, name: bytes, at: int, noise: bytes) -> None:
        """Bytes put in at any place."""
        whole = hello(TOKEN, name.hex())
        self.assertNotIn(SECRET, frame_hex(whole[:at] + noise + whole[at + len(noise) :]))


class TextTests(SynchronousTestCase):
    def test_tokens_in_a_text_are_masked(self) -> None:
        """All of them."""
        self.assertEqual(mask_tokens(f"{TOKEN}, {TOKEN}."), "cpsk_***, cpsk_***.")
        self.assertEqual(
            mask_tokens("/api/stream?ticket=cpst_0123&pattern=/a"), "/api/stream?ticket=cpst_***&pattern=/a"
        )

    def test_token_of_the_operators_own_making_is_masked_whole(self) -> None:
        """An administrator's token may have - and _ in it; in frames, too."""
        token = "cpsk_abcd-efgh_ijkl-mnop"
        self.assertEqual(mask_tokens(f"<{token}>"), "<cpsk_***>")
        self.assertEqual(sent_hex(token.encode()), "**" * len(token))
