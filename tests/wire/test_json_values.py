"""Tests of clasp_relay.wire.json_values."""

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import DecodeError, ErrorCode, RequestError
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.json_values import CODEC, EVENT_STREAM, EventStreamCodec, parse_json, to_json, value_from_json
from clasp_relay.wire.messages import Error, Pong, Publish, SignalDefinition, SnapshotParam
from clasp_relay.wire.values import decode_value, encode_value

PAIRS: list[tuple[object, Any]] = [
    (None, None),
    (True, True),
    (7, 7),
    (7.0, 7.0),
    ("é", "é"),
    (b"\x00\xff", {"$bytes": "AP8="}),
    (math.inf, {"$float": "inf"}),
    (-math.inf, {"$float": "-inf"}),
    ([1, {"a": b"x"}], [1, {"a": {"$bytes": "eA=="}}]),
    ({"$bytes": 1, "b": 2}, {"$bytes": 1, "b": 2}),
]


class ValueTests(SynchronousTestCase):
    """Values as JSON, and JSON as values."""

    def test_values_stand_for_themselves_or_for_an_object_with_one_key(self) -> None:
        """In both directions, with their types."""
        for obj, shown in PAIRS:
            with self.subTest(repr(obj)):
                value = encode_value(obj)
                self.assertEqual(repr(to_json(value)), repr(shown))
                self.assertEqual(value_from_json(shown), value)
        self.assertEqual(to_json(encode_value(math.nan)), {"$float": "nan"})
        self.assertTrue(math.isnan(decode_value(value_from_json({"$float": "nan"}))))

    def test_what_no_value_is_is_refused(self) -> None:
        """With ERROR 402 and the address."""
        deep: list[object] = []
        for _ in range(5_000):
            deep = [deep]
        cases: list[Any] = [{"$bytes": "?"}, {"$bytes": 1}, {"$float": "one"}, {"$float": []}, 1 << 64, deep]
        cases.append({"__proto__": 1})
        for number, parsed in enumerate(cases):
            with self.subTest(number), self.assertRaises(RequestError) as caught:
                value_from_json(parsed, "/a")
            self.assertEqual((caught.exception.code, caught.exception.address), (ErrorCode.VALUE, "/a"))

    @given(st.binary(max_size=40))
    def test_any_bytes_are_json_or_an_error(self, data: bytes) -> None:
        """No other exception is raised."""
        try:
            parse_json(data)
        except DecodeError:
            return

    def test_json_is_parsed_strictly(self) -> None:
        """JSON that two parsers may read differently is refused."""
        for data in (b"", b"\xff", b'{"a":1,"a":2}', b"NaN", b'"\\ud800"', b"[" * 100_000):
            with self.subTest(data[:20]):
                self.assertRaises(DecodeError, parse_json, data)
        self.assertEqual(parse_json('{"a":"é"}'.encode()), {"a": "é"})

    def test_json_that_would_take_long_is_refused(self) -> None:
        """With many marks of any kind, if a client sent it. A long text without marks is accepted."""
        self.assertEqual(len(parse_json(b"[" + b",".join([b"[]"] * 6_000) + b"]")), 6_000)
        for part in (b"[]", b'""', b"1", b'{"":0}', b"[[[]]]"):
            with self.subTest(part):
                error = self.assertRaises(DecodeError, parse_json, b"[" + b",".join([part] * 6_000) + b"]", 4_000)
                self.assertIn("send it in parts", error.message)
        self.assertEqual(parse_json(b'"' + b"text " * 10_000 + b'"', 4_000), "text " * 10_000)
        self.assertEqual(parse_json(b"[" + b",".join([b"0.123456"] * 3_990) + b"]", 4_000), [0.123456] * 3_990)


class CodecTests(SynchronousTestCase):
    """Answers as JSON objects; nothing is decoded."""

    def test_each_answer_is_one_object(self) -> None:
        """With the fields that an HTTP client needs."""
        value = encode_value(1)
        param = SnapshotParam("/a", value, 3, "w", 5)
        definition = SignalDefinition("/a", Signal.PARAM)
        cases = [
            (CODEC.set("/a", value, 2, False, False, None), b'{"address": "/a", "value": 1, "revision": 2}'),
            (CODEC.publish(Publish("/a", value=value)), b'{"address": "/a", "value": 1}'),
            (CODEC.publish(Publish("/a")), b'{"address": "/a", "value": null}'),
            (CODEC.ack("/a", 4), b'{"revision": 4}'),
            (CODEC.encode(Error(403, "No.")), b'{"code": 403, "error": "No."}'),
            (CODEC.encode(Pong()), b"{}"),
            (*CODEC.snapshot([param]), b'{"address": "/a", "value": 1, "revision": 3, "timestamp": 5, "writer": "w"}'),
            (*CODEC.result([definition]), b'{"address": "/a"}'),
        ]
        for told, expected in cases:
            self.assertEqual(told, expected)
        self.assertRaises(DecodeError, CODEC.decode, b"{}")
        self.assertEqual(CODEC.cost(b"{}"), 1)

    def test_each_delivery_of_a_stream_is_one_event(self) -> None:
        """With its data in one line, also if a text has line breaks; other answers become comments."""
        value = encode_value("a\r\n\u2028")
        data = b'data: {"address": "/a", "value": "a\\r\\n\xe2\x80\xa8", "revision": 2}\n\n'
        param = SnapshotParam("/a", value, 2, "w", 5)
        numbered = EventStreamCodec("/end", lambda: 7)
        marked, live = EventStreamCodec("/end"), b'event: live\ndata: {"complete": %s}\n\n'
        cases = [
            (EVENT_STREAM.set("/a", value, 2, False, False, None), b"event: set\n" + data),
            (*EVENT_STREAM.snapshot([param]), b"event: set\n" + data),
            (
                EVENT_STREAM.publish(Publish("/a", Signal.GESTURE)),
                b'event: publish\ndata: {"address": "/a", "signal": "gesture", "value": null}\n\n',
            ),
            (EVENT_STREAM.encode(Error(302, "No.")), b'event: problem\ndata: {"code": 302, "error": "No."}\n\n'),
            (EVENT_STREAM.encode(Pong()), b":\n\n"),
            (marked.publish(Publish("/end", Signal.EVENT, value=encode_value({"complete": True}))), live % b"true"),
            (marked.publish(Publish("/end", Signal.EVENT, value=encode_value([True]))), live % b"false"),
            (marked.publish(Publish("/end", Signal.EVENT, value=encode_value({"more": True}))), b":\n\n"),
            (numbered.set("/a", value, 2, False, False, None), b"id: 7\nevent: set\n" + data),
            (
                numbered.publish(Publish("/a")),
                b'id: 7\nevent: publish\ndata: {"address": "/a", "signal": "event", "value": null}\n\n',
            ),
            # What waits for its socket does not say that all before it was seen.
            (*numbered.snapshot([param]), b"event: set\n" + data),
            (marked.publish(Publish("/end", Signal.EVENT)), EVENT_STREAM.publish(Publish("/end", Signal.EVENT))),
        ]
        for told, expected in cases:
            self.assertEqual(told, expected)
