"""Tests of clasp_relay.core.pieces: long answers are cut so that every frame fits."""

from itertools import pairwise

from clasp_relay.core.pieces import (
    ROOM_BYTES,
    check_param_fits,
    check_publish_fits,
    check_signal_fits,
    result_frames,
    snapshot_frames,
)
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Param
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.codec import decode, publish_frame, set_frame
from clasp_relay.wire.constants import MAX_FRAME_BYTES, MAX_SNAPSHOT_PARAMS, Signal
from clasp_relay.wire.frame import decode_frame
from clasp_relay.wire.messages import Publish, Result, SignalDefinition, Snapshot

WRITER = "w" * 36


def blob(size: int) -> bytes:
    """Returns a value of that many bytes of data."""
    return b"\x09" + size.to_bytes(2, "big") + bytes(size)


def param(address: str, size: int) -> Param:
    """Returns a param whose value has that many bytes of data."""
    return Param(address, blob(size), 1, WRITER, 1)


def read(frames: list[bytes]) -> list[list[str]]:
    """Returns the addresses in each frame."""
    found = []
    for frame in frames:
        message = decode(decode_frame(frame).payload)
        assert isinstance(message, Snapshot | Result)
        entries = message.params if isinstance(message, Snapshot) else message.signals
        found.append([entry.address for entry in entries])
    return found


class CutTests(SynchronousTestCase):
    def test_nothing_is_one_empty_message(self) -> None:
        """An answer comes in any case."""
        self.assertEqual(read(list(snapshot_frames([]))), [[]])
        self.assertEqual(read(list(result_frames([]))), [[]])

    def test_snapshot_carries_so_many_params_at_most(self) -> None:
        """What the clients were written against."""
        frames = list(snapshot_frames(param(f"/{number}", 1) for number in range(2 * MAX_SNAPSHOT_PARAMS + 1)))
        self.assertEqual(list(map(len, read(frames))), [MAX_SNAPSHOT_PARAMS, MAX_SNAPSHOT_PARAMS, 1])

    def test_signals_are_cut_alike(self) -> None:
        """By what they take."""
        definitions = [SignalDefinition(f"/{number}", Signal.EVENT, "x" * 20_000) for number in range(7)]
        self.assertEqual(list(map(len, read(list(result_frames(definitions))))), [3, 3, 1])

    def test_frame_is_encoded_when_it_is_asked_for(self) -> None:
        """A waiting SNAPSHOT takes no more memory than what it is about."""
        frames = snapshot_frames(iter([param("/a", 40_000), param("/b", 40_000), param("/c", 40_000)]))
        self.assertEqual(read([next(frames)]), [["/a"]])

    @given(st.lists(st.integers(0, 65_000), max_size=12))
    def test_all_arrive_in_order_and_every_frame_fits(self, sizes: list[int]) -> None:
        """Whatever the sizes are, nothing is lost, and no frame could have taken the next param too."""
        params = [param(f"/{number}", size) for number, size in enumerate(sizes)]
        frames = list(snapshot_frames(params))
        self.assertEqual([address for piece in read(frames) for address in piece], [one.address for one in params])
        self.assertTrue(all(len(frame) <= MAX_FRAME_BYTES - 8 for frame in frames))
        for piece, following in pairwise(frames):
            (first, *_), *_ = read([following])
            one = params[int(first[1:])]
            alone = len(next(snapshot_frames([one]))) - 4 - 3
            self.assertGreater(len(piece) - 4 - 3 + alone, ROOM_BYTES)


class FitTests(SynchronousTestCase):
    """What no message could carry is refused to whoever sends it."""

    def test_param_fits_exactly_when_its_snapshot_does(self) -> None:
        """Neither a byte is wasted, nor is one too many let in; its SET fits too."""
        for address in ("/a", "/é" * 100, "/" + "x" * 20_000):
            with self.subTest(address=address[:5]):
                largest = ROOM_BYTES - (len(next(snapshot_frames([param(address, 0)]))) - 4 - 3)
                check_param_fits(param(address, largest))
                self.assertEqual(read(list(snapshot_frames([param(address, largest)]))), [[address]])
                set_frame(address, blob(largest), 2**64 - 1, lock=True, ttl=2**32 - 1)
                error = self.assertRaises(RequestError, check_param_fits, param(address, largest + 1))
                self.assertEqual((error.code, error.address), (ErrorCode.VALUE, address))

    def test_publish_fits_exactly_when_its_frame_does(self) -> None:
        """One that came in MessagePack may take more in binary."""
        for value, samples in ((blob(65_000), None), (None, bytes(64_992))):
            with self.subTest(samples=samples is not None):
                low, high = 1, 65_000
                while low < high:
                    middle = (low + high + 1) // 2
                    message = Publish("/" + "a" * middle, value=value, samples=samples, timestamp_us=1, id=1, rate=1)
                    try:
                        check_publish_fits(message)
                        low = middle
                    except RequestError as error:
                        self.assertEqual((error.code, error.address), (ErrorCode.VALUE, message.address))
                        high = middle - 1
                fits = Publish("/" + "a" * low, value=value, samples=samples, timestamp_us=1, id=1, rate=1)
                publish_frame(fits)
                self.assertRaises(ValueError, publish_frame, fits._replace(address=fits.address + "a"))

    def test_small_publish_is_not_encoded_to_find_out(self) -> None:
        """The usual one is decided by its length."""
        check_publish_fits(Publish("/a"))

    def test_signal_that_no_result_carries_is_refused(self) -> None:
        """The ERROR names it."""
        check_signal_fits(SignalDefinition("/a", Signal.EVENT, "x" * 60_000, "y" * 5_000))
        too_big = SignalDefinition("/a", Signal.EVENT, "x" * 60_000, "y" * 6_000)
        error = self.assertRaises(RequestError, check_signal_fits, too_big)
        self.assertEqual((error.code, error.address), (ErrorCode.VALUE, "/a"))
