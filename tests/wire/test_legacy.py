"""Tests of clasp_relay.wire.legacy: messages of Python and Rust clients, in both spellings, and what is refused."""

from typing import Any, get_args

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import DecodeError, ErrorCode, RequestError
from clasp_relay.wire import messages as m
from clasp_relay.wire.codec import decode
from clasp_relay.wire.constants import (
    MAX_BUNDLE_MEMBERS,
    MAX_DEFINITIONS,
    MAX_DEPTH,
    MAX_SNAPSHOT_PARAMS,
    Phase,
    Signal,
)
from clasp_relay.wire.legacy import decode_legacy, is_legacy
from clasp_relay.wire.values import encode_value
from tests.wire.strategies import OBJECTS

_HALF = encode_value(0.5)


def _pack(**fields: Any) -> bytes:
    """Packs a message; names that are reserved in Python have an underscore at their end."""
    packed: bytes = msgpack.packb({name.rstrip("_"): field for name, field in fields.items()})
    return packed


def _nested(levels: int) -> Any:
    value: Any = None
    for _ in range(levels):
        value = [value]
    return value


_DEFINITION = {
    "address": "/a",
    "type": "param",
    "datatype": "f32",
    "access": "rw",
    "meta": {"unit": "dB", "range": [0, 1.5], "default": None, "description": "level"},
}

_TIMELINE = {"keyframes": [{"time": 0, "value": 0.5}], "loop_": True}

CASES: tuple[tuple[dict[str, Any], m.Message], ...] = (
    (
        {"type": "HELLO", "version": 1, "name": "n", "features": ["param", "federation", "bogus"], "token": "t"},
        m.Hello(1, 0x84, "n", "t"),
    ),
    ({"type": "HELLO", "version": 1, "name": "n", "token": None}, m.Hello(1, 0, "n")),
    (
        {"type": "WELCOME", "version": 1, "session": "s", "name": "n", "features": ["event"], "time": 2**63 + 1},
        m.Welcome(1, 0x40, 2**63 + 1, "s", "n"),
    ),
    (
        {"type": "ANNOUNCE", "namespace": "/n", "signals": [_DEFINITION, {"address": "/b", "type": "event"}]},
        m.Announce(
            "/n",
            (
                m.SignalDefinition("/a", Signal.PARAM, "f32", "rw", "dB", (0.0, 1.5), None, "level"),
                m.SignalDefinition("/b", Signal.EVENT),
            ),
        ),
    ),
    ({"type": "SUBSCRIBE", "id": 1, "pattern": "/a/**"}, m.Subscribe(1, "/a/**")),
    ({"type": "SUBSCRIBE", "id": 1, "pattern": "/a", "types": [], "options": {}}, m.Subscribe(1, "/a")),
    (
        {
            "type": "SUBSCRIBE",
            "id": 1,
            "pattern": "/a",
            "types": ["param", "stream"],
            "options": {"maxRate": 30, "epsilon": 1, "history": 2, "window": 3},
        },
        m.Subscribe(1, "/a", 5, 30, 1.0),
    ),
    ({"type": "UNSUBSCRIBE", "id": 2**32 - 1}, m.Unsubscribe(2**32 - 1)),
    ({"type": "PUBLISH", "address": "/e"}, m.Publish("/e")),
    ({"type": "PUBLISH", "address": "/e", "payload": None}, m.Publish("/e")),
    (
        {"type": "PUBLISH", "address": "/e", "signal": "event", "value": 0.5, "payload": 1, "samples": [1]},
        m.Publish("/e", Signal.EVENT, value=_HALF),
    ),
    (
        {"type": "PUBLISH", "address": "/s", "signal": "stream", "samples": [0.5, 0], "rate": 60, "timestamp": 9},
        m.Publish("/s", Signal.STREAM, samples=_HALF[1:] + bytes(8), timestamp_us=9, rate=60),
    ),
    (
        {"type": "PUBLISH", "address": "/g", "signal": "gesture", "phase": "end", "id": 7, "payload": {"x": 0.5}},
        m.Publish("/g", Signal.GESTURE, Phase.END, encode_value({"x": 0.5}), id=7),
    ),
    (
        {"type": "PUBLISH", "address": "/t", "signal": "timeline", "timeline": _TIMELINE},
        m.Publish("/t", Signal.TIMELINE, value=encode_value(_TIMELINE)),
    ),
    (
        {"type": "PUBLISH", "address": "/t", "signal": "timeline", "keyframes": [], "loop": False, "startTime": 5},
        m.Publish("/t", Signal.TIMELINE, value=encode_value({"keyframes": [], "loop": False, "start_time": 5})),
    ),
    ({"type": "SET", "address": "/a", "value": None}, m.Set("/a", b"\x00")),
    (
        {"type": "SET", "address": "/a", "value": b"\x00\xff", "revision": 42, "lock": True, "unlock": False},
        m.Set("/a", b"\x09\x00\x02\x00\xff", 42, True, False),
    ),
    ({"type": "SET", "address": "/a", "value": 0.5, "ttl": "Never"}, m.Set("/a", _HALF, ttl=0)),
    ({"type": "SET", "address": "/a", "value": 0.5, "ttl": {"Sliding": 60}}, m.Set("/a", _HALF, ttl=60)),
    ({"type": "SET", "address": "/a", "value": 0.5, "ttl": {"Absolute": 60}}, m.Set("/a", _HALF, ttl=0x8000003C)),
    ({"type": "SET", "address": "/a", "value": 0.5, "ttl": 60, "absolute": True}, m.Set("/a", _HALF, ttl=0x8000003C)),
    ({"type": "SET", "address": "/a", "value": 0.5, "ttl": 0, "absolute": False}, m.Set("/a", _HALF, ttl=0)),
    ({"type": "SET", "address": "/a", "value": 0.5, "ttl": None, "absolute": True}, m.Set("/a", _HALF)),
    ({"type": "GET", "address": "/a", "what": "ever"}, m.Get("/a")),
    (
        {"type": "SNAPSHOT", "params": [{"address": "/a", "value": 0.5, "revision": 1, "writer": "w", "timestamp": 2}]},
        m.Snapshot((m.SnapshotParam("/a", _HALF, 1, "w", 2),)),
    ),
    (
        {"type": "REPLAY", "pattern": "/a", "from": 1, "to": 2, "limit": 3, "types": ["timeline"]},
        m.Replay("/a", 1, 2, 3, 16),
    ),
    (
        {"type": "BUNDLE", "timestamp": None, "messages": [{"type": "PUBLISH", "address": "/a"}]},
        m.Bundle((m.Publish("/a"),)),
    ),
    ({"type": "SYNC", "t1": 1, "t3": 3}, m.Sync(1, None, 3)),
    ({"type": "PING"}, m.Ping()),
    ({"type": "PONG"}, m.Pong()),
    ({"type": "ACK"}, m.Ack()),
    (
        {"type": "ACK", "address": "/a", "revision": 1, "locked": False, "holder": "h", "correlation_id": 7},
        m.Ack("/a", 1, False, "h", 7),
    ),
    ({"type": "ERROR", "code": 301, "message": "no", "correlationId": 7}, m.Error(301, "no", None, 7)),
    ({"type": "QUERY", "pattern": "/a/**"}, m.Query("/a/**")),
    (
        {"type": "RESULT", "signals": [{"address": "/a", "type": "gesture"}]},
        m.Result((m.SignalDefinition("/a", Signal.GESTURE),)),
    ),
)


class LegacyTests(SynchronousTestCase):
    def test_maps_are_read_as_messages(self) -> None:
        """Every kind, with all fields and with few, in both spellings."""
        for fields, message in CASES:
            with self.subTest(fields=fields):
                self.assertEqual(decode(_pack(**fields)), message)
        self.assertEqual({type(message) for _, message in CASES}, set(get_args(m.Message)))

    def test_every_size_of_map_is_recognised(self) -> None:
        """By the first byte alone, whatever the flags of the frame are."""
        legacy = {code for code in range(256) if is_legacy(code)}
        self.assertEqual(legacy, {*range(0x80, 0x90), 0xDE, 0xDF})
        for head in (b"\x81", b"\xde\x00\x01", b"\xdf\x00\x00\x00\x01"):
            with self.subTest(head=head.hex()):
                self.assertEqual(decode(head + b"\xa4type\xa4PING"), m.Ping())

    def test_values_may_nest_as_deep_as_binary_ones(self) -> None:
        """Also in a bundle."""
        deepest = {"type": "SET", "address": "/a", "value": _nested(MAX_DEPTH)}
        too_deep = {"type": "SET", "address": "/a", "value": _nested(MAX_DEPTH + 1)}
        self.assertEqual(
            decode(_pack(type="BUNDLE", messages=[deepest])),
            m.Bundle((m.Set("/a", b"\x0a\x00\x01" * MAX_DEPTH + b"\x00"),)),
        )
        for payload in (_pack(**too_deep), _pack(type="BUNDLE", messages=[too_deep])):
            self.assertIn("nested deeper", self.assertRaises(DecodeError, decode, payload).message)

    def test_a_payload_is_refused_when_it_is_not_one_valid_map(self) -> None:
        """Each with ERROR 101; declared sizes are checked."""
        ping = b"\x81\xa4type\xa4PING"
        cases = (
            b"\x80",
            b"\x81",
            b"\x81\xa4type",
            b"\xde\xff\xff",
            b"\xdf\xff\xff\xff\xff",
            ping + b"\x00",
            ping + ping,
            b"\x81\xa4type\xa4PIN\xff",
            b"\x82\xa4type\xa4PING\x05\x01",
            b"\x82\xa4type\xa4PING\xc4\x01a\x01",
            b"\x82\xa4type\xa4PING\xa1x\xc1",
            b"\x82\xa4type\xa4PING\xa1x\xd6\x01\x00\x00\x00\x00",
            b"\x82\xa4type\xa4PING\xa1x" + b"\x91" * 60_000,
            b"\x81" * 60_000,
        )
        for payload in cases:
            with self.subTest(payload=payload[:40].hex()):
                self.assertEqual(self.assertRaises(DecodeError, decode, payload).code, ErrorCode.MESSAGE)

    def test_a_message_is_refused_when_it_has_too_many_nodes(self) -> None:
        """In flat or nested lists, in maps or members; the bundle of 1,900 SETs of the Python client is accepted."""
        start = b"\x83\xa4type\xa3SET\xa7address\xa2/a\xa5value"
        # The map, its three keys and two other values are seven nodes.
        self.assertIsInstance(decode(start + b"\xdc\x1f\x39" + b"\xc0" * 7_993), m.Set)
        cases = {
            "one too many": start + b"\xdc\x1f\x3a" + b"\xc0" * 7_994,
            "flat": start + b"\xdc\xea\x60" + b"\xc0" * 60_000,
            "empty arrays": start + b"\xdc\xea\x60" + b"\x90" * 60_000,
            "empty maps": start + b"\xdc\xea\x60" + b"\x80" * 60_000,
            "entries": start + b"\xde\x4e\x20" + b"\xa0\xc0" * 20_000,
            "nested": start + b"\xdc\x07\xd0" + (b"\x91" * 29 + b"\xc0") * 2_000,
            "nested maps": start + b"\xdc\x03\xe8" + (b"\x81\xa0" * 29 + b"\xc0") * 1_000,
            "members": b"\x82\xa4type\xa6BUNDLE\xa8messages\xdc\xea\x60" + b"\x80" * 60_000,
            "members that are no list": b"\x82\xa4type\xa6BUNDLE\xa8messages\xde\x0f\xa0" + b"\xa0\xc0" * 4_000,
            "values of few members": _pack(type="BUNDLE", messages=[{"value": [0] * 2_100}] * 4),
            "no message": b"\xdc\x1f\x40" + b"\xc0" * 8_000,
        }
        for name, payload in cases.items():
            with self.subTest(name=name):
                message = self.assertRaises(DecodeError, decode_legacy, payload).message
                self.assertIn("MessagePack message ha", message)
                self.assertIn("000 keys, values and items", message)
        put = {"type": "SET", "address": "/a/b", "value": 1}
        bundle = decode(_pack(type="BUNDLE", timestamp=None, messages=[put] * 1_900))
        self.assertEqual(bundle, m.Bundle((m.Set("/a/b", encode_value(1)),) * 1_900))

    def test_nesting_beyond_the_limit_is_refused_in_words(self) -> None:
        """By the limit of values, or by that of msgpack where the nesting is not in a value."""
        value = self.assertRaises(DecodeError, decode, _pack(type="SET", address="/a", value=_nested(33)))
        self.assertIn("deeper than 32", value.message)
        other = b"\x82\xa4type\xa4PING\xa1x" + b"\x91" * 2_000 + b"\xc0"
        self.assertIn("nested too deep", self.assertRaises(DecodeError, decode, other).message)

    def test_a_message_is_refused_when_its_type_is_unknown(self) -> None:
        """Names are in capitals; numbers are refused, since libraries do not agree on their meaning."""
        for name in ("set", "NOPE", "", "x" * 1000):
            with self.subTest(name=name[:10]):
                error = self.assertRaises(DecodeError, decode, _pack(type=name, address="/a", value=1))
                self.assertIn("unknown message type", error.message)
                self.assertLess(len(error.message), 100)
        for document in ({"type": 0x21}, {"type": None}, {}):
            with self.subTest(document=document):
                self.assertIn("'type'", self.assertRaises(DecodeError, decode, _pack(**document)).message)

    def test_a_message_is_refused_when_a_field_is_wrong(self) -> None:
        """The error names the field."""
        put = {"type": "SET", "address": "/a", "value": 1}
        publish = {"type": "PUBLISH", "address": "/a"}
        subscribe = {"type": "SUBSCRIBE", "id": 1, "pattern": "/a"}
        cases: tuple[tuple[str, dict[str, Any]], ...] = (
            ("value", {"type": "SET", "address": "/a"}),
            ("address", {**put, "address": 1}),
            ("address", {"type": "SET", "value": 1}),
            ("value", {**put, "value": 2**63}),
            ("revision", {**put, "revision": -1}),
            ("revision", {**put, "revision": 1.0}),
            ("revision", {**put, "revision": True}),
            ("lock", {**put, "lock": 1}),
            ("ttl", {**put, "ttl": 2**31}),
            ("ttl", {**put, "ttl": "Always"}),
            ("Sliding", {**put, "ttl": {}}),
            ("Absolute", {**put, "ttl": {"Absolute": -1}}),
            ("absolute", {**put, "ttl": 1, "absolute": "yes"}),
            ("signal", {**publish, "signal": "nope"}),
            ("signal", {**publish, "signal": 1}),
            ("phase", {**publish, "phase": "middle"}),
            ("samples", {**publish, "samples": [1, "x"]}),
            ("samples", {**publish, "samples": [True]}),
            ("samples", {**publish, "samples": 1}),
            ("id", {**publish, "id": 2**32}),
            ("timestamp", {**publish, "timestamp": "now"}),
            ("payload", {**publish, "payload": "x" * 65_536}),
            ("pattern", {**subscribe, "pattern": None}),
            ("types", {**subscribe, "types": "param"}),
            ("types", {**subscribe, "types": [1]}),
            ("types", {**subscribe, "types": ["nope"]}),
            ("max_rate", {**subscribe, "options": {"maxRate": 1.5}}),
            ("epsilon", {**subscribe, "options": {"epsilon": "x"}}),
            ("range", {"type": "RESULT", "signals": [{**_DEFINITION, "meta": {"range": [1]}}]}),
            ("code", {"type": "ERROR", "code": 2**16, "message": ""}),
            ("features", {"type": "HELLO", "version": 1, "name": "", "features": [1]}),
        )
        for field, fields in cases:
            with self.subTest(field=field, fields=str(fields)[:80]):
                error = self.assertRaises(DecodeError, decode, _pack(**fields))
                self.assertEqual(error.code, ErrorCode.MESSAGE)
                self.assertIn(f"'{field}'", error.message)

    def test_a_part_is_refused_when_it_is_no_map(self) -> None:
        """A member, a param, a signal, or the options; and values that only MessagePack has."""
        cases: tuple[dict[str, Any], ...] = (
            {"type": "BUNDLE", "messages": [1]},
            {"type": "BUNDLE", "messages": {"0": {"type": "PING"}}},
            {"type": "BUNDLE", "messages": [{"type": "BUNDLE", "messages": []}]},
            {"type": "SNAPSHOT", "params": ["/a"]},
            {"type": "SUBSCRIBE", "id": 1, "pattern": "/a", "options": []},
            {"type": "SET", "address": "/a", "value": msgpack.Timestamp(1)},
            {"type": "SET", "address": "/a", "value": msgpack.ExtType(5, b"x")},
            {"type": "SET", "address": "/a", "value": {b"k": 1}},
        )
        for fields in cases:
            with self.subTest(fields=str(fields)):
                self.assertRaises(DecodeError, decode, _pack(**fields))

    def test_a_bundle_holds_only_sets_and_publishes(self) -> None:
        """A member of another kind is refused with its name, before its fields are read."""
        for name in ("PING", "GET", "RESULT"):
            with self.subTest(name):
                payload = _pack(type="BUNDLE", messages=[{"type": name}])
                error = self.assertRaises(RequestError, decode, payload)
                self.assertEqual(error.message, f"a bundle may hold SET and PUBLISH, not {name}")

    def test_federation_sync_is_refused_by_its_name(self) -> None:
        """No other field is read."""
        error = self.assertRaises(RequestError, decode, _pack(type="FEDERATION_SYNC", op=1))
        self.assertEqual(error.code, ErrorCode.MESSAGE)
        self.assertEqual(error.message, "FEDERATION_SYNC is not offered by this relay")

    def test_lists_are_bounded(self) -> None:
        """At the limit a list is accepted; with one entry more it is refused before any entry is read."""
        signal = {"address": "/a", "type": "param"}
        param = {"address": "/a", "value": 1, "revision": 1}
        cases: tuple[tuple[dict[str, Any], str, dict[str, Any], int], ...] = (
            ({"type": "ANNOUNCE", "namespace": "/n"}, "signals", signal, MAX_DEFINITIONS),
            ({"type": "RESULT"}, "signals", signal, MAX_DEFINITIONS),
            ({"type": "SNAPSHOT"}, "params", param, MAX_SNAPSHOT_PARAMS),
        )
        for fields, name, entry, most in cases:
            with self.subTest(fields=fields):
                message = decode(_pack(**fields, **{name: [entry] * most}))
                self.assertEqual(len(getattr(message, name)), most)
                error = self.assertRaises(RequestError, decode, _pack(**fields, **{name: [0] * (most + 1)}))
                self.assertIn(f"'{name}' has {most + 1} entries, at most {most}", error.message)
        error = self.assertRaises(RequestError, decode, _pack(type="BUNDLE", messages=[0] * (MAX_BUNDLE_MEMBERS + 1)))
        self.assertIn(f"'messages' has {MAX_BUNDLE_MEMBERS + 1} entries", error.message)

    def test_rusts_bytes_stay_an_array(self) -> None:
        """Rust writes bytes as a list of integers, which cannot be distinguished from a list."""
        message = decode(_pack(type="SET", address="/a", value=[0, 255]))
        self.assertEqual(message, m.Set("/a", encode_value([0, 255])))

    @given(OBJECTS)
    def test_any_value_is_the_same_as_in_binary(self, obj: Any) -> None:
        """Integers become I64, numbers F64; maps keep their order."""
        message = decode(_pack(type="SET", address="/a", value=obj))
        self.assertEqual(message, m.Set("/a", encode_value(obj)))

    @given(
        st.sampled_from([fields["type"] for fields, _ in CASES]),
        st.dictionaries(st.sampled_from(sorted({name for fields, _ in CASES for name in fields} - {"type"})), OBJECTS),
    )
    def test_any_map_is_a_message_or_a_decode_error(self, name: str, fields: dict[str, Any]) -> None:
        """For fields of every name with values of every type."""
        try:
            decode_legacy(_pack(type=name, **fields))
        except DecodeError as error:
            self.assertEqual(error.code, ErrorCode.MESSAGE)
