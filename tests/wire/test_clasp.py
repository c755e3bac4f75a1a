"""Tests of clasp_relay.wire.clasp: CLASP as one of the protocols that sessions speak."""

from itertools import pairwise

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import DecodeError, ErrorCode, RequestError
from clasp_relay.wire.clasp import ROOM_BYTES, ClaspCodec
from clasp_relay.wire.codec import decode, encode, snapshot_entry
from clasp_relay.wire.constants import MAX_FRAME_BYTES, MAX_SNAPSHOT_PARAMS, Signal
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

CODEC = ClaspCodec()


def blob(size: int) -> bytes:
    """Returns a value of that many bytes of data."""
    return b"\x09" + size.to_bytes(2, "big") + bytes(size)


def param(address: str, size: int) -> SnapshotParam:
    """Returns a param whose value has that many bytes of data."""
    return SnapshotParam(address, blob(size), 1, "w" * 36, 1)


def read(frames: list[bytes]) -> list[list[str]]:
    """Returns the addresses in each frame."""
    found = []
    for frame in frames:
        message = decode(decode_frame(frame).payload)
        assert isinstance(message, Snapshot | Result)
        entries = message.params if isinstance(message, Snapshot) else message.signals
        found.append([entry.address for entry in entries])
    return found


class DecodeTests(SynchronousTestCase):
    """What a session sends."""

    def test_literal_frames_are_messages(self) -> None:
        """With the QoS of the frame, in either encoding."""
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
        """One in MessagePack does where its QoS says so."""
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
        """Each with its own code."""
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
        """And nothing else is raised."""
        try:
            message, qos = CODEC.decode(data)
        except RequestError:
            return
        self.assertIn(qos, (0, 1, 2))
        self.assertIsInstance(message, Message)


class EncodeTests(SynchronousTestCase):
    """What a session is sent."""

    def test_each_way_makes_one_frame(self) -> None:
        """With the fields that it was given."""
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
        """An answer comes in any case."""
        self.assertEqual(read(list(CODEC.snapshot([]))), [[]])
        self.assertEqual(read(list(CODEC.result([]))), [[]])

    def test_snapshot_carries_so_many_params_at_most(self) -> None:
        """What the clients were written against."""
        frames = list(CODEC.snapshot(param(f"/{number}", 1) for number in range(2 * MAX_SNAPSHOT_PARAMS + 1)))
        self.assertEqual(list(map(len, read(frames))), [MAX_SNAPSHOT_PARAMS, MAX_SNAPSHOT_PARAMS, 1])

    def test_signals_are_cut_alike(self) -> None:
        """By what they take."""
        definitions = [SignalDefinition(f"/{number}", Signal.EVENT, "x" * 20_000) for number in range(7)]
        self.assertEqual(list(map(len, read(list(CODEC.result(definitions))))), [3, 3, 1])

    def test_frame_is_encoded_when_it_is_asked_for(self) -> None:
        """A waiting SNAPSHOT takes no more memory than what it is about."""
        frames = CODEC.snapshot(iter([param("/a", 40_000), param("/b", 40_000), param("/c", 40_000)]))
        self.assertEqual(read([next(frames)]), [["/a"]])

    @given(st.lists(st.integers(0, 65_000), max_size=12))
    def test_all_arrive_in_order_and_every_frame_fits(self, sizes: list[int]) -> None:
        """Whatever the sizes are, nothing is lost, and no frame could have taken the next param too."""
        params = [param(f"/{number}", size) for number, size in enumerate(sizes)]
        frames = list(CODEC.snapshot(params))
        self.assertEqual([address for piece in read(frames) for address in piece], [one.address for one in params])
        self.assertTrue(all(len(frame) <= MAX_FRAME_BYTES - 8 for frame in frames))
        for piece, following in pairwise(frames):
            (first, *_), *_ = read([following])
            one = params[int(first[1:])]
            alone = len(snapshot_entry(one))
            self.assertGreater(len(piece) - 4 - 3 + alone, ROOM_BYTES)
