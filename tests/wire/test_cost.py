"""Tests of clasp_relay.wire.cost: what is counted in a frame before it is decoded, also in random bytes."""

import random
from itertools import islice
from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from bench.fuzz_wire import damaged_frames
from clasp_relay.wire import messages as m
from clasp_relay.wire.codec import encode
from clasp_relay.wire.constants import MAX_JSON_MARKS, Signal
from clasp_relay.wire.cost import FREE_PARTS, MAX_EXTRA, PARTS_A_UNIT, frame_cost, json_cost, message_cost
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.values import encode_value
from tests.wire.strategies import MESSAGES


def _cost(message: m.Message, timestamp_us: int | None = None) -> int:
    return frame_cost(encode_frame(encode(message), 1, timestamp_us))


def _packed(*members: dict[str, Any], **fields: Any) -> bytes:
    return encode_frame(msgpack.packb({"type": "BUNDLE", **fields, "messages": members}))


class MessageTests(SynchronousTestCase):
    def test_usual_messages_cost_one(self) -> None:
        """For any size, with a timestamp in the frame or without."""
        usual: tuple[m.Message, ...] = (
            m.Hello(1, 0, "n"),
            m.Set("/chat/room/a/messages/1", b"\x00"),
            m.Set("/" + "a" * 200, b"\x09\xea\x60" + b"/*" * 30_000),
            m.Publish("/a", value=b"\x08\x00\x02/*"),
            m.Get("/a/b"),
            m.Subscribe(1, "/chat/room/*/**"),
            m.Query("/**"),
            m.Replay("/a/**"),
            m.Announce("/n", (m.SignalDefinition("/a", Signal.EVENT),) * 31),
            m.Ping(),
        )
        for message in usual:
            for timestamp_us in (None, 5):
                with self.subTest(message=type(message).__name__, timestamp_us=timestamp_us):
                    self.assertEqual(_cost(message, timestamp_us), 1)

    def test_long_addresses_and_patterns_cost_more(self) -> None:
        """By their segments, bytes and wildcards; those that are too long to be accepted cost one."""
        cases: tuple[tuple[m.Message, int], ...] = (
            (m.Set("/aaa" * 128, b"\x00"), 5),
            (m.Publish("/aaa" * 128), 5),
            (m.Get("/aaa" * 64), 1),
            (m.Get("/aaa" * 65), 3),
            (m.Get("/" + "a" * 4_095), 5),
            (m.Subscribe(1, "/**" * 8), 3),
            (m.Subscribe(1, "/a*" * 32), 5),
            (m.Query("/*" * 16), 3),
            (m.Replay("/" + "*" * 8), 2),
            (m.Set("/a" * 3_000, b"\x00"), 1),
            (m.Query("/*" * 30_000), 1),
            (m.Announce("/n", (m.SignalDefinition("/a", Signal.EVENT),) * 320), 11),
            (m.Announce("", (m.SignalDefinition("", Signal.EVENT),) * 10_000), 1 + MAX_EXTRA),
        )
        for message, cost in cases:
            with self.subTest(message=str(message)[:60]):
                self.assertEqual(_cost(message), cost)
                self.assertEqual(_cost(message, 5), cost)


class BundleTests(SynchronousTestCase):
    def test_bundles_cost_their_members(self) -> None:
        """Due now or later; an empty bundle costs one, and long addresses add as much as in a single message."""
        put, long = m.Set("/a", b"\x00"), m.Set("/aaa" * 128, b"\x00")
        for timestamp_us in (None, 5):
            for messages, cost in (
                ((), 1),
                ((put,), 1),
                ((put,) * 300, 300),
                ((long, put, long), 11),
                ((long,) * 100, 500),
            ):
                with self.subTest(members=len(messages), cost=cost):
                    self.assertEqual(_cost(m.Bundle(messages, timestamp_us)), cost)
                    self.assertEqual(_cost(m.Bundle(messages, timestamp_us), 5), cost)

    def test_bundles_cost_no_more_members_than_they_can_hold(self) -> None:
        """A count that the bytes cannot hold is not counted."""
        self.assertEqual(frame_cost(b"\x53\x01\x00\x07\x30\x00\xff\xff\x00\x01\x41"), 1)
        self.assertEqual(frame_cost(b"\x53\x01\x00\x0a\x30\x00\xff\xff" + b"\x00\x01\x41" * 2), 2)
        self.assertEqual(frame_cost(b"\x53\x01\x00\x04\x30\x80\xff\xff"), 1)
        self.assertEqual(frame_cost(b"\x53\x01\x00\x0a\x30\x00\x00\x02\xff\xff\x41\xff\xff\x41"), 2)

    def test_bundles_in_messagepack_cost_their_members(self) -> None:
        """With every MessagePack head of an array, and with the key at any place."""
        put = {"type": "SET", "address": "/a", "value": 1}
        for count in (1, 15, 16, 1_900):
            with self.subTest(count=count):
                self.assertEqual(frame_cost(_packed(*[put] * count, timestamp=None)), count)
        self.assertEqual(frame_cost(_packed()), 1)
        array32 = b"\x82\xa4type\xa6BUNDLE\xa8messages\xdd\x00\x00\x00\x02" + msgpack.packb(put) * 2
        self.assertEqual(frame_cost(encode_frame(array32)), 2)
        named = {"type": "SET", "address": "/room/messages/1", "value": {"type": "text"}}
        self.assertEqual(frame_cost(_packed(named, named)), 2)

    def test_bundles_in_messagepack_cannot_hide_members(self) -> None:
        """Not by a second key of the same name, nor by a value, nor by other encodings of strings."""
        members = b"\xdc\x00\x64" + (b"\x81" + b"\xd9\x04type" + b"\xa4PING") * 100
        key, text = b"\xa8messages", b"\xa6BUNDLE"
        cases = {
            "an equal key before": b"\x83\xa4type" + text + key + b"\x90" + key + members,
            "the key in a value before": b"\x83\xa1x\xaa\x08messages\x91\xa4type" + text + key + members,
            "another form of the key": b"\x82\xa4type" + text + b"\xda\x00\x08messages" + members,
            "the type behind": b"\x82" + key + members + b"\xd9\x04type\xd9\x06BUNDLE",
        }
        for name, payload in cases.items():
            with self.subTest(name):
                self.assertEqual(frame_cost(encode_frame(payload)), 100)

    def test_other_messages_in_messagepack_cost_one(self) -> None:
        """Also if their values have the words of a bundle."""
        for value in (1, "BUNDLE", ["BUNDLE", "messages", 1], {"BUNDLE": {"messages": 1}}):
            with self.subTest(value=value):
                payload = msgpack.packb({"type": "SET", "address": "/a", "value": value})
                self.assertEqual(frame_cost(encode_frame(payload)), 1)

    def test_nodes_in_messagepack_cost_more(self) -> None:
        """At any depth: a node of one byte can take as long as any other. Long texts stay cheap."""
        ints = list(range(100)) * 150
        nested: Any = ints
        for _ in range(10):
            nested = [nested]
        cases = {
            "numbers": (ints, 59),
            "nested": (nested, 59),
            "too many": (list(range(100)) * 300, 1 + MAX_EXTRA),
            "a text": ("A" * 60_000, 1),
            "bytes": (b"A" * 60_000, 1),
            "some texts": ({str(number): "A" * 600 for number in range(100)}, 1),
            "numbers of all sizes": (
                [1.5, 1 << 7, 1 << 15, 1 << 31, 1 << 63, -1 << 6, -1 << 14, -1 << 30, -1 << 62],
                1,
            ),
        }
        for name, (value, cost) in cases.items():
            put = {"type": "SET", "address": "/a", "value": value}
            with self.subTest(name):
                self.assertEqual(frame_cost(encode_frame(msgpack.packb(put))), cost)
                self.assertEqual(frame_cost(_packed(put)), cost)

    def test_parts_of_binary_values_cost_more(self) -> None:
        """Parts that take time to check, in a SET, a PUBLISH or a BUNDLE. Texts, files and numbers stay cheap."""
        cases: dict[str, tuple[Any, int]] = {
            "strings": ([""] * 21_000, 1 + MAX_EXTRA),
            "arrays": ([[]] * 6_000, 1 + (6_001 - FREE_PARTS) // PARTS_A_UNIT),
            "few": ([""] * 2_000, 1),
            "a text": ("line of text\n" * 4_600, 1 + (4_601 - FREE_PARTS) // PARTS_A_UNIT),
            "a long text": ("line of a longer text, as usual\n" * 1_900, 1),
            "a file": (random.Random(1).randbytes(60_000), 1),
            "numbers": ([0.1 * number for number in range(7_000)], 1),
        }
        for name, (obj, cost) in cases.items():
            with self.subTest(name):
                value = encode_value(obj)
                self.assertEqual(_cost(m.Set("/a", value)), cost)
                self.assertEqual(_cost(m.Publish("/a", value=value), 5), cost)
                self.assertEqual(_cost(m.Set("/" + "a" * 300, value)), cost)
                self.assertEqual(_cost(m.Bundle((m.Set("/a", value),))), cost)

    def test_unfinished_nodes_in_messagepack_cost_something(self) -> None:
        """A text that claims more bytes than there are ends the scan."""
        self.assertEqual(frame_cost(encode_frame(b"\x81\xdb\xff\xff\xff\xff" + b"\x01" * 1_000)), 1)


class WithoutFrameTests(SynchronousTestCase):
    """Messages of other doors cost as much as over WebSocket."""

    @given(MESSAGES)
    def test_message_costs_what_its_frame_does(self, message: m.Message) -> None:
        """With values short enough to cost nothing; without ANNOUNCE, which no other door has."""
        if not isinstance(message, m.Announce):
            self.assertEqual(message_cost(message), _cost(message))

    def test_long_addresses_and_patterns_cost_more(self) -> None:
        """As in frames; so do those of each member of a bundle."""
        cases: tuple[tuple[m.Message, int], ...] = (
            (m.Set("/aaa" * 128, b"\x00"), 5),
            (m.Publish("/" + "ä" * 600), 2),
            (m.Get("/" + "a" * 300), 1),
            (m.Subscribe(1, "/**" * 8), 3),
            (m.Subscribe(1, "/a*" * 32), 5),
            (m.Subscribe(1, "/aaa" * 120 + "/*" * 8), 6),
            (m.Query("/*" * 30_000), 1),
            (m.Replay("/" + "*" * 8), 2),
            (m.Bundle((m.Set("/aaa" * 128, b"\x00"), m.Publish("/a"))), 6),
            (m.Bundle(()), 1),
        )
        for message, cost in cases:
            with self.subTest(message=str(message)[:60]):
                self.assertEqual((message_cost(message), _cost(message)), (cost, cost))

    def test_json_costs_what_it_takes_to_parse(self) -> None:
        """In addition to its message; 0 for a long text, and for JSON that is refused because of its length."""
        for data, cost in (
            (b'{"a": 1}', 0),
            (b"[" + b"1," * 254 + b"1]", 1),
            (b"[" + b"1," * 3_900 + b"1]", 15),
            (b'"' + b"a" * 60_000 + b'"', 0),
            (b"[" + b"1," * MAX_JSON_MARKS + b"1]", 0),
            (b"\xff" * 300, 0),
        ):
            with self.subTest(data[:20]):
                self.assertEqual(json_cost(data), cost)


class RobustnessTests(SynchronousTestCase):
    @given(MESSAGES)
    def test_any_message_costs_its_members_at_least(self, message: m.Message) -> None:
        """Without long addresses it costs exactly its members, except an ANNOUNCE."""
        members = max(1, len(message.messages)) if isinstance(message, m.Bundle) else 1
        self.assertGreaterEqual(_cost(message), members)

    @given(
        st.binary(max_size=60),
        st.sampled_from((b"", b"\x53\x01\x00\x20", b"\x53\x21\x00\x20", b"\x53\x01\x00\x20\x30")),
    )
    def test_any_bytes_have_a_cost(self, data: bytes, head: bytes) -> None:
        """At least one, and at most what so few bytes can hold."""
        cost = frame_cost(head + data)
        self.assertGreaterEqual(cost, 1)
        self.assertLessEqual(cost, 1 + MAX_EXTRA)

    def test_damaged_frames_have_a_cost(self) -> None:
        """10,000 frames, made from real ones, each cut at some place."""
        for number, data in enumerate(islice(damaged_frames(seed=50), 10_000)):
            for piece in (data, data[: number % (len(data) + 1)]):
                self.assertGreaterEqual(frame_cost(piece), 1)
