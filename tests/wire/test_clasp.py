"""Tests of clasp_relay.wire.clasp: the codec of CLASP sessions."""

from itertools import pairwise

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import DecodeError, ErrorCode, RequestError
from clasp_relay.wire.clasp import ROOM_BYTES, ClaspCodec
from clasp_relay.wire.codec import decode, encode, snapshot_entry
from clasp_relay.wire.constants import MAX_FRAME_BYTES, MAX_PAYLOAD_BYTES, MAX_SNAPSHOT_PARAMS, Phase, Signal
from clasp_relay.wire.frame import decode_frame, encode_frame
from clasp_relay.wire.messages import (
    NULL,
    Ack,
    Announce,
    Error,
    Hello,
    Message,
    Ping,
    Pong,
    Publish,
    Query,
    Result,
    Set,
    SignalDefinition,
    Snapshot,
    SnapshotParam,
)
from tests.wire.strategies import TEXT, U32, U64, VALUES

CODEC = ClaspCodec()
_FULL = bytes((9,)) + (MAX_PAYLOAD_BYTES - 16).to_bytes(2, "big") + bytes(MAX_PAYLOAD_BYTES - 16)
"""With an address of two bytes and a revision it fills a SET."""


def blob(size: int) -> bytes:
    """Returns a value with this many bytes of data."""
    return b"\x09" + size.to_bytes(2, "big") + bytes(size)


def param(address: str, size: int) -> SnapshotParam:
    """Returns a param whose value has this many bytes of data."""
    return SnapshotParam(address, blob(size), 1, "w" * 36, 1)


def read(frames: list[bytes]) -> list[list[str]]:
    """Decodes frames, and returns the addresses in each."""
    found = []
    for frame in frames:
        message = decode(decode_frame(frame).payload)
        assert isinstance(message, Snapshot | Result)
        entries = message.params if isinstance(message, Snapshot) else message.signals
        found.append([entry.address for entry in entries])
    return found


class DecodeTests(SynchronousTestCase):
    """Frames of a session."""

    def test_literal_frames_are_messages(self) -> None:
        """With the QoS of the frame, in both encodings."""
        cases: tuple[tuple[bytes, Message, int], ...] = (
            (b"\x53\x01\x00\x01\x41", Ping(), 0),
            (b"\x53\x41\x00\x01\x41", Ping(), 1),
            (b"\x53\x81\x00\x01\x41", Ping(), 2),
            (b"\x53\x01\x00\x05\x60\x00\x02/a", Query("/a"), 0),
            (encode_frame(msgpack.packb({"type": "PING"}), 1), Ping(), 1),
        )
        for data, message, qos in cases:
            with self.subTest(data=data):
                self.assertEqual(CODEC.decode(data), (message, qos))

    def test_binary_announce_waits_for_an_ack_whatever_its_qos(self) -> None:
        """An ANNOUNCE in MessagePack waits for one only if its QoS asks for it."""
        for qos in (0, 1, 2):
            _, found = CODEC.decode(encode_frame(encode(Announce("/n")), qos))
            self.assertTrue(found)
        document = msgpack.packb({"type": "ANNOUNCE", "namespace": "/n", "signals": []})
        self.assertEqual([CODEC.decode(encode_frame(document, qos))[1] for qos in (0, 1, 2)], [0, 1, 2])

    def test_usual_messages_keep_their_qos(self) -> None:
        """They are decoded in one step."""
        for message in (Set("/a", b"\x02\x05"), Publish("/a", Signal.EVENT, value=b"\x02\x05")):
            for qos in (0, 1, 2):
                with self.subTest(message=message, qos=qos):
                    self.assertEqual(CODEC.decode(encode_frame(encode(message), qos)), (message, qos))

    def test_what_is_no_frame_or_no_message_is_refused(self) -> None:
        """With ERROR 100 or 101."""
        for data, code in (
            (b"", ErrorCode.FRAME),
            (b"S", ErrorCode.FRAME),
            (b"\x52\x01\x00\x01\x41", ErrorCode.FRAME),
            (b"\x53\x01\x00\x00", ErrorCode.FRAME),
            (b"\x53\x01\x00\x01\x20", ErrorCode.MESSAGE),
            (b"\x53\x01\x00\x02\x99\x99", ErrorCode.MESSAGE),
        ):
            with self.subTest(data=data):
                error = self.assertRaises(DecodeError, CODEC.decode, data)
                self.assertEqual(error.code, code)

    @given(st.binary(max_size=60) | st.binary(min_size=1, max_size=40).map(encode_frame))
    def test_any_bytes_are_a_message_or_a_decode_error(self, data: bytes) -> None:
        """No other exception is raised."""
        try:
            message, qos = CODEC.decode(data)
        except RequestError:
            return
        self.assertIn(qos, (0, 1, 2))
        self.assertIsInstance(message, Message)


class ShortWayTests(SynchronousTestCase):
    """The usual messages are decoded and encoded with their frames in one step, with the same result."""

    def _assert_decodes_as_step_by_step(self, data: bytes) -> None:
        try:
            frame = decode_frame(data)
            expected = (decode(frame.payload), frame.qos)
        except RequestError as refusal:
            error = self.assertRaises(RequestError, CODEC.decode, data)
            self.assertEqual(
                (error.code, error.message, error.address), (refusal.code, refusal.message, refusal.address)
            )
        else:
            self.assertEqual(CODEC.decode(data), expected)

    @given(TEXT, VALUES, st.none() | U64, st.booleans(), st.none() | U32, st.integers(0, 2), st.none() | U64)
    def test_any_set_decodes_as_step_by_step(
        self, address: str, value: bytes, revision: int | None, lock: bool, ttl: int | None, qos: int, at_us: int | None
    ) -> None:
        """With options and without."""
        self._assert_decodes_as_step_by_step(
            encode_frame(encode(Set(address, value, revision, lock, False, ttl)), qos, at_us)
        )

    @given(st.binary(max_size=40), st.sampled_from((b"\x20\x20\x00\x02/a", b"\x21\x0b\x00\x02/a", b"\x21", b"")))
    def test_any_bytes_decode_as_step_by_step(self, rest: bytes, beginning: bytes) -> None:
        """Or are refused with the same text."""
        payload = beginning + rest
        self._assert_decodes_as_step_by_step(b"\x53\x01" + len(payload).to_bytes(2, "big") + payload)

    def test_frame_decodes_as_step_by_step_when_it_is_not_a_usual_one(self) -> None:
        """Decoding step by step gives the text of the error."""
        good = b"\x53\x41\x00\x07\x21\x02\x00\x02/a\x05"
        self.assertEqual(CODEC.decode(good), (Set("/a", b"\x02\x05"), 1))
        cases = {
            "too short": good[:7],
            "another magic": b"\x54" + good[1:],
            "compressed": good[:1] + b"\x49" + good[2:],
            "QoS 3": good[:1] + b"\xc1" + good[2:],
            "a longer length": good[:3] + b"\x08" + good[4:],
            "another message": good[:4] + b"\x20" + good[5:],
            "an option": good[:5] + b"\x42" + good[6:],
            "a string that ends too early": good[:5] + b"\x08" + good[6:],
            "an unknown type": good[:5] + b"\x0f" + good[6:],
            "a longer address": good[:7] + b"\x03" + good[8:],
            "no UTF-8": good[:9] + b"\xff" + good[10:],
            "a byte too many": good + b"\x00",
            "a key that is refused": b"\x53\x41\x00\x14\x21\x0b\x00\x02/a\x00\x01\x00\x09__proto__\x00",
        }
        for name, data in cases.items():
            with self.subTest(name=name):
                self._assert_decodes_as_step_by_step(data)

    def test_frames_carry_the_qos_of_their_kind(self) -> None:
        """SET and events 1, streams and gestures 0, timelines 2, as in the router that the clients were written for."""
        cases = (
            (CODEC.set("/a", NULL, 1, False, False, None), 0x41),
            (CODEC.publish(Publish("/a", Signal.PARAM, value=NULL)), 0x41),
            (CODEC.publish(Publish("/a", Signal.EVENT)), 0x41),
            (CODEC.publish(Publish("/a", Signal.STREAM, value=NULL)), 0x01),
            (CODEC.publish(Publish("/a", Signal.GESTURE)), 0x01),
            (CODEC.publish(Publish("/a", Signal.TIMELINE, value=NULL)), 0x81),
            (CODEC.ack("/a", 1), 0x01),
        )
        for number, (frame, flags) in enumerate(cases):
            with self.subTest(number=number):
                self.assertEqual(frame[1], flags)

    @given(TEXT, VALUES, U64, st.booleans(), st.booleans(), st.none() | U32)
    def test_set_encodes_as_step_by_step(
        self, address: str, value: bytes, revision: int, lock: bool, unlock: bool, ttl: int | None
    ) -> None:
        """For any fields."""
        message = Set(address, value, revision, lock, unlock, ttl)
        self.assertEqual(CODEC.set(address, value, revision, lock, unlock, ttl), encode_frame(encode(message), 1))

    @given(TEXT, st.sampled_from(Signal), st.sampled_from(Phase), st.none() | VALUES, st.none() | U64, st.none() | U32)
    def test_publish_encodes_as_step_by_step(
        self, address: str, signal: Signal, phase: Phase, value: bytes | None, time_us: int | None, rate: int | None
    ) -> None:
        """For any fields."""
        message = Publish(address, signal, phase, value, None, time_us, None, rate)
        frame = CODEC.publish(message)
        self.assertEqual(frame, encode_frame(encode(message), frame[1] >> 6))
        self.assertEqual(decode(decode_frame(frame).payload), message)

    @given(st.none() | TEXT, st.none() | U64, st.none() | st.booleans(), st.none() | TEXT)
    def test_ack_encodes_as_step_by_step(
        self, address: str | None, revision: int | None, locked: bool | None, holder: str | None
    ) -> None:
        """For any fields."""
        self.assertEqual(
            CODEC.ack(address, revision, locked, holder), encode_frame(encode(Ack(address, revision, locked, holder)))
        )

    def test_frame_is_refused_when_it_would_be_too_long(self) -> None:
        """A frame of the greatest length is not."""
        self.assertEqual(len(CODEC.set("/a", _FULL, 1, False, False, None)), 4 + MAX_PAYLOAD_BYTES)
        for encode_too_long in (
            lambda: CODEC.set("/aa", _FULL, 1, False, False, None),
            lambda: CODEC.set("/" + "a" * 70_000, NULL, 1, False, False, None),
            lambda: CODEC.publish(Publish("/" + "a" * 20, value=_FULL)),
            lambda: CODEC.publish(Publish("/" + "a" * 70_000, value=NULL)),
            lambda: CODEC.ack("/" + "a" * (MAX_PAYLOAD_BYTES - 12), 1),
        ):
            self.assertRaises(ValueError, encode_too_long)


class EncodeTests(SynchronousTestCase):
    """Frames for a session."""

    def test_each_way_makes_one_frame(self) -> None:
        """With the given fields."""
        for data, message in (
            (CODEC.set("/a", b"\x02\x05", 7, True, False, 60), Set("/a", b"\x02\x05", 7, True, False, 60)),
            (
                CODEC.publish(Publish("/a", Signal.STREAM, samples=bytes(8))),
                Publish("/a", Signal.STREAM, samples=bytes(8)),
            ),
            (CODEC.ack(), Ack()),
            (CODEC.ack("/a", 7, True, "id"), Ack("/a", 7, True, "id")),
            (CODEC.encode(Error(400, "no", "/a")), Error(400, "no", "/a")),
            (CODEC.encode(Pong()), Pong()),
        ):
            with self.subTest(message=message):
                self.assertEqual(CODEC.decode(data)[0], message)

    def test_everything_is_wrapped_for_its_transport(self) -> None:
        """Each frame once, also those of long answers."""
        codec = ClaspCodec(lambda frame: b"<" + frame + b">")
        entries = [param(f"/{number}", 40_000) for number in range(2)]
        definitions = [SignalDefinition(f"/{number}", Signal.EVENT, "x" * 40_000) for number in range(2)]
        for wrapped, plain in (
            ([codec.set("/a", NULL, 1, False, False, None)], [CODEC.set("/a", NULL, 1, False, False, None)]),
            ([codec.publish(Publish("/a"))], [CODEC.publish(Publish("/a"))]),
            ([codec.ack("/a", 1)], [CODEC.ack("/a", 1)]),
            ([codec.encode(Hello(1, 0, "x"))], [CODEC.encode(Hello(1, 0, "x"))]),
            (list(codec.snapshot(entries)), list(CODEC.snapshot(entries))),
            (list(codec.result(definitions)), list(CODEC.result(definitions))),
        ):
            self.assertEqual(wrapped, [b"<" + one + b">" for one in plain])


class CutTests(SynchronousTestCase):
    """Long answers are cut so that every frame fits."""

    def test_nothing_is_one_empty_message(self) -> None:
        """There is always an answer."""
        self.assertEqual(read(list(CODEC.snapshot([]))), [[]])
        self.assertEqual(read(list(CODEC.result([]))), [[]])

    def test_snapshot_carries_so_many_params_at_most(self) -> None:
        """As many as in the router that the clients were written for."""
        frames = list(CODEC.snapshot(param(f"/{number}", 1) for number in range(2 * MAX_SNAPSHOT_PARAMS + 1)))
        self.assertEqual(list(map(len, read(frames))), [MAX_SNAPSHOT_PARAMS, MAX_SNAPSHOT_PARAMS, 1])

    def test_signals_are_cut_alike(self) -> None:
        """By the size of their entries."""
        definitions = [SignalDefinition(f"/{number}", Signal.EVENT, "x" * 20_000) for number in range(7)]
        self.assertEqual(list(map(len, read(list(CODEC.result(definitions))))), [3, 3, 1])

    def test_frame_is_encoded_when_it_is_asked_for(self) -> None:
        """So a waiting SNAPSHOT takes no more memory than its params."""
        frames = CODEC.snapshot(iter([param("/a", 40_000), param("/b", 40_000), param("/c", 40_000)]))
        self.assertEqual(read([next(frames)]), [["/a"]])

    @given(st.lists(st.integers(0, 65_000), max_size=12))
    def test_all_arrive_in_order_and_every_frame_fits(self, sizes: list[int]) -> None:
        """For any sizes: nothing is lost, and no frame had room for the next param."""
        params = [param(f"/{number}", size) for number, size in enumerate(sizes)]
        frames = list(CODEC.snapshot(params))
        self.assertEqual([address for piece in read(frames) for address in piece], [one.address for one in params])
        self.assertTrue(all(len(frame) <= MAX_FRAME_BYTES - 8 for frame in frames))
        for piece, following in pairwise(frames):
            (first, *_), *_ = read([following])
            one = params[int(first[1:])]
            alone = len(snapshot_entry(one))
            self.assertGreater(len(piece) - 4 - 3 + alone, ROOM_BYTES)
