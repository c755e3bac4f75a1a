"""Tests of clasp_relay.wire.codec: exact bytes, frames of the client libraries, and what no client should send."""

from itertools import islice
from typing import Any, get_args

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from bench.fuzz_wire import check, damaged_frames
from clasp_relay.errors import DecodeError, ErrorCode, RequestError
from clasp_relay.wire import messages as m
from clasp_relay.wire.clasp import ClaspCodec
from clasp_relay.wire.codec import decode, encode
from clasp_relay.wire.constants import MessageCode, Signal
from clasp_relay.wire.frame import decode_frame, encode_frame
from clasp_relay.wire.values import encode_value
from tests.wire.cases import CASES, WireTestCase
from tests.wire.strategies import ANY_OBJECTS, MESSAGES, has_refused_key
from tests.wire.upstream import canonical, describe, expected, load

CODEC = ClaspCodec()
_REFUSED_FRAMES = {
    "frame-qos3/js-4.3.1+js-3.3.2": "QoS 3 is reserved",
    "frame-encrypted/rust-4.5.0": "no relay can read it",
    "frame-enc-comp-qos2-ts/rust-4.5.0": "no relay can read it",
}
"""Frames that libraries can be made to build, and no client sends."""

_REFUSED_MESSAGES = {
    "bundle-nested/js-4.3.1+js-3.3.2+rust-4.5.0": "nothing in a bundle applies but SET and PUBLISH",
    "legacy-positional-set/rust-4.5.0": "a MessagePack array, which no library recognises",
}

_NOT_OFFERED = {"fed-request/rust-4.5.0", "fed-complete/rust-4.5.0"}
"""FEDERATION_SYNC, which relays of another kind send to each other."""

_READ_OTHERWISE = {
    "ack-1f/python-4.2.0": "Rust does not know 'correlationId', the way that Python writes it",
}

_WRITTEN_OTHERWISE = {
    "sub-type-gesture/python-4.2.0": "a mask of 0 is written as 0xFF, which means the same",
    "sub-type-timeline/python-4.2.0": "a mask of 0 is written as 0xFF, which means the same",
    "sub-opt-history/js-4.3.1+js-3.3.2+rust-4.5.0": "history is read and ignored",
    "sub-opt-all/python-4.2.0": "history is read and ignored",
    "api/python-4.2.0/subscribe('/f/*', cb, maxRate=30, epsilon=0.01, history=5)": "history is read and ignored",
    "announce-partial-meta/js-4.3.1+js-3.3.2+rust-4.5.0": "a meta that says nothing is not written",
}

_ACCEPTED_MALFORMED = {
    "map-duplicate-key": "all libraries read the last one; a value is passed on as it came",
    "trailing-publish-4": "that is how a PUBLISH carries its rate",
    "ttl-raw-80000000": "an absolute TTL of 0, which the Python client sends",
    "msgpack-map16-set": "a valid map with a long head",
}


def _vectors() -> list[tuple[str, bytes, dict[str, Any]]]:
    cases = [(case["id"], bytes.fromhex(case["hex"]), case["decoded"]["rust-4.5.0"]) for case in load("vectors")]
    return [case for case in cases if case[0] not in {*_REFUSED_FRAMES, *_REFUSED_MESSAGES, *_NOT_OFFERED}]


class LiteralTests(WireTestCase):
    def test_messages_are_exactly_these_bytes(self) -> None:
        """For every message, with all fields and with as few as possible, in both directions."""
        for name, (message, payload) in CASES.items():
            with self.subTest(name):
                self.assertWire(message, payload)

    def test_every_kind_of_message_is_among_the_cases(self) -> None:
        """No kind is missing in the table."""
        self.assertEqual({type(message) for message, _ in CASES.values()}, set(get_args(m.Message)))


class VectorTests(WireTestCase):
    def test_frames_of_real_libraries_mean_what_upstream_reads(self) -> None:
        """Field by field, including the type of each number."""
        for name, data, decoded in _vectors():
            if name in _READ_OTHERWISE:
                continue
            with self.subTest(name):
                message = decode(decode_frame(data).payload)
                self.assertEqual(canonical(describe(message)), canonical(expected(decoded)))

    def test_an_ack_in_camel_case_is_read(self) -> None:
        """The one frame that upstream's decoder does not read completely."""
        (data,) = (data for name, data, _ in _vectors() if name in _READ_OTHERWISE)
        self.assertEqual(decode(decode_frame(data).payload), m.Ack("/t/v", 42, True, "session-abc", 7))

    def test_binary_frames_of_real_libraries_are_written_the_same(self) -> None:
        """A decoded frame is encoded to the same bytes."""
        written = 0
        for name, data, _ in _vectors():
            payload = decode_frame(data).payload
            if payload[0] >= 0x80 or name in _WRITTEN_OTHERWISE:
                continue
            with self.subTest(name):
                self.assertEqual(encode(decode(payload)).hex(), payload.hex())
            written += 1
        self.assertGreater(written, 160)

    def test_frames_are_refused_when_no_client_sends_them(self) -> None:
        """With ERROR 100 for a frame, 101 for a message."""
        for case in load("vectors"):
            name, data = case["id"], bytes.fromhex(case["hex"])
            if name in _REFUSED_FRAMES:
                with self.subTest(name):
                    self.assertEqual(self.assertRaises(DecodeError, decode_frame, data).code, ErrorCode.FRAME)
            if name in _REFUSED_MESSAGES:
                with self.subTest(name):
                    error = self.assertRaises(DecodeError, decode, decode_frame(data).payload)
                    self.assertEqual(error.code, ErrorCode.MESSAGE)
            if name in _NOT_OFFERED:
                with self.subTest(name):
                    refusal = self.assertRaises(RequestError, decode, decode_frame(data).payload)
                    self.assertEqual(refusal.code, ErrorCode.MESSAGE)

    def test_malformed_frames_are_refused(self) -> None:
        """Except those that the table explains; text messages never reach the codec."""
        cases = [case for case in load("malformed") if "hex" in case]
        accepted = {case["id"] for case in cases if check(bytes.fromhex(case["hex"]))}
        self.assertEqual(accepted, set(_ACCEPTED_MALFORMED))


class KeyTests(WireTestCase):
    """Keys of maps that clients read as other keys than the relay does."""

    def _payloads(self, obj: Any) -> dict[str, bytes]:
        value = encode_value(obj)
        put, publish = m.Set("/a", value), m.Publish("/a", value=value)
        field = {"type": "SET", "address": "/a", "value": obj}
        messages = {
            "SET": encode(put),
            "SET with options": encode(put._replace(lock=True, ttl=5)),
            "PUBLISH": encode(publish),
            "BUNDLE of SETs": encode(m.Bundle((put, put))),
            "BUNDLE of PUBLISHes": encode(m.Bundle((publish,))),
            "ANNOUNCE": encode(m.Announce("/n", (m.SignalDefinition("/a", Signal.PARAM, default=value),) * 2)),
            "SNAPSHOT": encode(m.Snapshot((m.SnapshotParam("/a", value, 1),))),
        }
        legacy = {
            "SET": field,
            "PUBLISH": {"type": "PUBLISH", "address": "/a", "payload": obj},
            "keyframes": {"type": "PUBLISH", "address": "/a", "keyframes": obj},
            "BUNDLE": {"type": "BUNDLE", "messages": [field]},
            "ANNOUNCE": {
                "type": "ANNOUNCE",
                "namespace": "/n",
                "signals": [{"address": "/a", "type": "param", "meta": {"default": obj}}],
            },
        }
        packed = {f"MessagePack {name}": msgpack.packb(fields) for name, fields in legacy.items()}
        return messages | packed

    def test_keys_are_refused_in_every_message(self) -> None:
        """With ERROR 402, which names the address; the fast path leaves such messages to the other one."""
        for obj in ({"__proto__": 1}, [[{"a": {"\ufeffuserId": "alice"}}]]):
            for name, payload in self._payloads(obj).items():
                with self.subTest(name, obj=obj):
                    error = self.assertRaises(RequestError, decode, payload)
                    self.assertEqual(error.code, ErrorCode.VALUE)
                    self.assertNotIsInstance(error, DecodeError)
                    # The default of a signal lies in another map than its address.
                    self.assertEqual(error.address, None if name == "MessagePack ANNOUNCE" else "/a")
                    framed = self.assertRaises(RequestError, CODEC.decode, encode_frame(payload))
                    self.assertEqual(framed.code, ErrorCode.VALUE)

    def test_strings_may_be_what_keys_may_not(self) -> None:
        """Alone, in arrays, as values of maps, and at the end of keys."""
        for obj in ("\ufeffx", "__proto__", ["\ufeff", "__proto__"], {"a": "\ufeff", "x__proto__": "__proto__"}):
            for name, payload in self._payloads(obj).items():
                with self.subTest(name, obj=obj):
                    self.assertEqual(decode(encode(decode(payload))), decode(payload))

    @given(ANY_OBJECTS)
    def test_any_value_is_refused_exactly_if_it_has_such_a_key(self, obj: Any) -> None:
        """In binary, in a frame decoded in one step, and in MessagePack."""
        value = encode_value(obj)
        payloads = (encode(m.Set("/a", value)), msgpack.packb({"type": "SET", "address": "/a", "value": obj}))
        for payload in payloads:
            data = encode_frame(payload)
            if has_refused_key(obj):
                self.assertEqual(self.assertRaises(RequestError, decode, payload).code, ErrorCode.VALUE)
                self.assertEqual(self.assertRaises(RequestError, CODEC.decode, data).code, ErrorCode.VALUE)
            else:
                self.assertEqual(decode(payload), m.Set("/a", value))
                self.assertEqual(CODEC.decode(data), (m.Set("/a", value), 0))


class RobustnessTests(WireTestCase):
    @given(MESSAGES)
    def test_any_message_comes_back_as_it_was(self, message: m.Message) -> None:
        """After encoding and decoding."""
        self.assertEqual(decode(encode(message)), message)

    @given(MESSAGES)
    def test_no_shorter_piece_of_a_message_is_decoded_as_more(self, message: m.Message) -> None:
        """A truncated message is refused, except a PUBLISH without its rate, which is complete."""
        payload = encode(message)
        for size in range(len(payload)):
            try:
                shorter = decode(payload[:size])
            except DecodeError:
                continue
            self.assertIsInstance(shorter, m.Publish)
            self.assertIn(size, {len(payload) - 4, len(payload) - 8})

    @given(st.binary(max_size=80), st.sampled_from([payload[0] for _, payload in CASES.values()] + [0x80, 0x82, 0xDE]))
    def test_any_bytes_are_a_message_or_a_decode_error(self, data: bytes, code: int) -> None:
        """No other exception is raised, with a known message code at the start or without."""
        for payload in (data, bytes((code,)) + data):
            try:
                decode(payload)
            except RequestError as error:
                expected = (
                    {ErrorCode.MESSAGE} if isinstance(error, DecodeError) else {ErrorCode.MESSAGE, ErrorCode.VALUE}
                )
                self.assertIn(error.code, expected)

    def test_damaged_frames_are_messages_or_refused(self) -> None:
        """100,000 frames, made from real ones; those that decode can be encoded and decoded again."""
        accepted = sum(check(data) for data in islice(damaged_frames(seed=7330), 100_000))
        self.assertGreater(accepted, 1_000)

    def test_unknown_message_codes_are_refused(self) -> None:
        """The error names the code."""
        known = {payload[0] for _, payload in CASES.values()}
        for code in set(range(256)) - known - {*range(0x80, 0x90), 0xDE, 0xDF, MessageCode.FEDERATION_SYNC}:
            with self.subTest(code=code):
                error = self.assertRaises(DecodeError, decode, bytes((code, 0, 0, 0)))
                self.assertEqual(error.message, f"unknown message type 0x{code:02X}")
        self.assertIn("empty", self.assertRaises(DecodeError, decode, b"").message)
