"""Tests of ``clasp_relay.net.backlog``."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.ports import Frame, Kind
from clasp_relay.errors import CloseCode
from clasp_relay.net.backlog import MIN_FRAME_BYTES, Backlog, Batch, Close, Snapshot
from clasp_relay.net.frames import wire_bytes
from clasp_relay.net.observer import Counters
from tests.net.helpers import ENDLESS, datas, drop, keep, packed, param, payload, server_frames


def drained(backlog: Backlog) -> list[bytes]:
    """Takes everything out of a backlog and returns its messages."""
    wire = b""
    while True:
        parts, _ = backlog.take(100, ENDLESS, in_time)
        if not parts:
            return datas(server_frames(wire))
        wire += b"".join(parts)


def in_time() -> bool:
    """Says that there is time for more."""
    return False


def filled(*items: Frame | Batch | Snapshot) -> tuple[Backlog, Counters]:
    """Returns a backlog of these, and its counters."""
    counters = Counters()
    backlog = Backlog(counters)
    for item in items:
        backlog.push(item)
    return backlog, counters


def batch(*frames: Frame) -> Batch:
    """Returns frames as one piece."""
    return Batch(frames, b"".join(frame.wire for frame in frames))


class BacklogTests(SynchronousTestCase):
    def test_backlog_keeps_everything_in_order_below_the_bound(self) -> None:
        """Nothing is coalesced while there is room, in whatever pieces it came."""
        backlog, counters = filled(
            param("/a", b"a1"),
            batch(param("/a", b"a2"), drop(b"s1")),
            Snapshot(1, packed(b"p1", b"p2")),
            param("/a", b"a3"),
        )
        self.assertEqual(backlog.size_bytes, 4 * MIN_FRAME_BYTES)
        self.assertEqual(drained(backlog), [b"a1", b"a2", b"s1", b"p1", b"p2", b"a3"])
        self.assertEqual((backlog.size_bytes, counters), (0, Counters()))
        self.assertFalse(backlog)

    def test_backlog_keeps_the_newest_param_at_its_later_place(self) -> None:
        """Over the bound an older value of the same address goes, and the newer one stays where it was sent."""
        backlog, counters = filled(
            param("/a", b"a1"), batch(param("/b", b"b1"), param("/a", b"a2")), keep(b"e1"), param("/a", b"a3")
        )
        self.assertTrue(backlog.shrink(3 * MIN_FRAME_BYTES))
        self.assertEqual(backlog.size_bytes, 3 * MIN_FRAME_BYTES)
        self.assertEqual(drained(backlog), [b"b1", b"e1", b"a3"])
        self.assertEqual(counters, Counters(coalesced=2))

    def test_backlog_counts_a_small_frame_for_what_it_costs(self) -> None:
        """And a large one for its bytes; alone, in a batch, or taken apart."""
        large = keep(bytes(1000))
        for items in ((keep(b"a"), large), (batch(keep(b"a"), large),)):
            backlog, _ = filled(*items)
            self.assertEqual(backlog.size_bytes, MIN_FRAME_BYTES + len(large.wire))
            self.assertFalse(backlog.shrink(1))
            self.assertEqual(backlog.size_bytes, MIN_FRAME_BYTES + len(large.wire))
            drained(backlog)
            self.assertEqual(backlog.size_bytes, 0)

    def test_backlog_does_not_count_what_is_free(self) -> None:
        """It leaves first, in the accounts; what counts is never more than what waits."""
        backlog, counters = filled(drop(b"s1"), drop(b"s2"))
        backlog.push_free(batch(drop(b"s3"), drop(b"s4")))
        self.assertEqual(backlog.counted_bytes, 2 * MIN_FRAME_BYTES)
        self.assertTrue(backlog.shrink(MIN_FRAME_BYTES))
        self.assertEqual((backlog.counted_bytes, counters.dropped), (MIN_FRAME_BYTES, 1))
        self.assertEqual(drained(backlog), [b"s2", b"s3", b"s4"])
        self.assertEqual(backlog.counted_bytes, 0)

    def test_backlog_drops_streams_oldest_first_and_only_as_many_as_needed(self) -> None:
        """Params and events stay; of the streams the newest do."""
        backlog, counters = filled(drop(b"s1"), keep(b"e1"), drop(b"s2"), drop(b"s3"), param("/a", b"a1"))
        self.assertTrue(backlog.shrink(3 * MIN_FRAME_BYTES))
        self.assertEqual(drained(backlog), [b"e1", b"s3", b"a1"])
        self.assertEqual(counters, Counters(dropped=2))

    def test_backlog_says_when_what_must_stay_does_not_fit(self) -> None:
        """Events, and params at different addresses, are never dropped."""
        backlog, _ = filled(keep(b"e1"), drop(b"s1"), param("/a", b"a1"), param("/b", b"b1"))
        self.assertFalse(backlog.shrink(3 * MIN_FRAME_BYTES - 1))
        self.assertEqual(drained(backlog), [b"e1", b"a1", b"b1"])

    def test_backlog_gives_a_waiting_snapshot_up_for_a_newer_one(self) -> None:
        """One waits per key, at the newer one's place; what was begun is not finished."""
        backlog, _ = filled(Snapshot("k", packed(b"p1", b"p2")), keep(b"e1"))
        self.assertEqual(backlog.take(1, ENDLESS, in_time), ([b"\x82\x02p1"], 4))
        backlog.push(Snapshot("other", packed(b"q1")))
        backlog.push(Snapshot("k", packed(b"r1")))
        self.assertEqual(backlog.snapshots, 2)
        self.assertEqual(drained(backlog), [b"e1", b"q1", b"r1"])

    def test_backlog_does_not_grow_by_replaced_snapshots(self) -> None:
        """A client that subscribes again and again without reading holds one snapshot."""
        backlog, _ = filled(*(Snapshot("k", packed(b"p")) for _ in range(100)))
        self.assertEqual(len(backlog._items), 1)

    def test_backlog_outlives_a_snapshot_that_cannot_be_encoded(self) -> None:
        """An error while encoding is logged, and what stands behind is sent."""

        def broken() -> Iterator[bytes]:
            yield wire_bytes(b"p1")
            raise ZeroDivisionError

        backlog, _ = filled(Snapshot("k", broken()), keep(b"e1"))
        self.assertEqual(drained(backlog), [b"p1", b"e1"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_backlog_encodes_no_more_of_snapshots_than_asked_for(self) -> None:
        """The rest waits for the next turn."""
        backlog, _ = filled(keep(b"e1"), Snapshot("k", packed(b"p1", b"p2", b"p3")))
        self.assertEqual(backlog.take(100, 5, in_time)[1], 8)
        self.assertEqual(backlog.take(100, 0, in_time), ([], 0))
        self.assertEqual(drained(backlog), [b"p3"])

    def test_backlog_stops_at_a_close(self) -> None:
        """The Close is not a message; its owner sends it."""
        backlog, _ = filled(keep(b"e1"))
        close = Close(CloseCode.NORMAL, "bye")
        backlog.push(close)
        self.assertEqual(drained(backlog), [b"e1"])
        self.assertIs(backlog.first, close)

    def test_backlog_is_plain_again_once_it_has_drained(self) -> None:
        """After the rush, pieces are shared again and nothing of the index is left."""
        backlog, _ = filled(param("/a", b"a1"), param("/a", b"a2"), drop(b"s1"))
        backlog.shrink(2 * MIN_FRAME_BYTES)
        self.assertEqual(drained(backlog), [b"a2", b"s1"])
        self.assertIsNone(backlog._index)
        backlog.push(batch(keep(b"e1"), keep(b"e2")))
        self.assertEqual(len(backlog._items), 1)

    def test_backlog_forgets_everything_when_cleared(self) -> None:
        """A session that is too slow holds nothing."""
        backlog, _ = filled(keep(b"e1"), Snapshot("k", packed(b"p1")))
        backlog.clear()
        self.assertEqual((bool(backlog), backlog.size_bytes, backlog.snapshots, backlog.first), (False, 0, 0, None))

    @given(
        st.lists(
            st.one_of(
                st.tuples(st.sampled_from(list(Kind)), st.sampled_from("abc"), st.integers(0, 30)),
                st.sampled_from(["take", "batch"]),
            ),
            max_size=80,
        ),
        st.integers(1, 3000),
    )
    def test_backlog_keeps_to_its_rules_for_any_traffic(
        self, steps: list[str | tuple[Kind, str, int]], limit_bytes: int
    ) -> None:
        """Order, latest values, events and the size hold, however pushing, shrinking and taking are mixed."""
        backlog, counters = filled()
        sent: list[Frame] = []
        got: list[bytes] = []
        held: list[Frame] = []
        fits = True
        for number, step in enumerate(steps):
            if step == "take":
                got += datas(server_frames(b"".join(backlog.take(40, ENDLESS, in_time)[0])))
                continue
            if step == "batch":
                backlog.push(batch(*held))
                sent += held
                held = []
            elif isinstance(step, tuple):
                kind, address, size = step
                held.append(
                    Frame(wire_bytes(b"%d " % number + bytes(size)), kind, address if kind == Kind.PARAM else "")
                )
                if number % 3 == 0:
                    continue
                for frame in held:
                    backlog.push(frame)
                sent += held
                held = []
            if backlog.size_bytes > limit_bytes:
                fits = backlog.shrink(limit_bytes)
                self.assertEqual(fits, backlog.size_bytes <= limit_bytes)
        got += drained(backlog)
        self.assertEqual(backlog.size_bytes, 0)
        order = {payload(frame): place for place, frame in enumerate(sent)}
        places = [order[data] for data in got]
        self.assertEqual(places, sorted(places))
        self.assertEqual(len(sent) - len(got), counters.coalesced + counters.dropped)
        arrived = set(got)
        last = {frame.address: payload(frame) for frame in sent if frame.kind == Kind.PARAM}
        for frame in sent:
            if frame.kind == Kind.KEEP or last.get(frame.address) == payload(frame):
                self.assertIn(payload(frame), arrived)
