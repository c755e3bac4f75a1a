"""Tests of clasp_relay.wire.mqtt.mapping: topics and addresses, filters and patterns, payloads and values."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import NULL
from clasp_relay.wire.mqtt.mapping import (
    address_topic,
    filter_pattern,
    is_filter,
    payload_cost,
    payload_value,
    topic_address,
    value_payload,
)
from clasp_relay.wire.values import decode_value, encode_value


class TopicTests(SynchronousTestCase):
    def test_topic_is_an_address_below_the_namespace(self) -> None:
        """And an address is the topic again."""
        for prefix, topic, address in (("/mqtt", "a/b", "/mqtt/a/b"), ("", "a", "/a"), ("/m", "a b/ä$", "/m/a b/ä$")):
            with self.subTest(topic):
                self.assertEqual(topic_address(prefix, topic), address)
                self.assertEqual(address_topic(prefix, address), topic)

    def test_topic_that_no_address_has(self) -> None:
        """With an empty segment or a wildcard, too long, or below ``$``, which is reserved for servers."""
        for topic in ("", "/a", "a/", "a//b", "a/+", "#", "a*", "$SYS/x", "a/" * 200 + "a", "x" * 5000):
            with self.subTest(topic[:20]):
                self.assertIsNone(topic_address("/mqtt", topic))

    def test_address_that_no_topic_has(self) -> None:
        """In another namespace, the namespace itself, and with characters that are wildcards in MQTT."""
        for address in ("/mqtt", "/mqttx/a", "/other", "/mqtt/a+b", "/mqtt/#", "/mqtt/$SYS", "/mqtt/a\0b"):
            with self.subTest(address):
                self.assertIsNone(address_topic("/mqtt", address))

    def test_filters_are_valid_or_not(self) -> None:
        """As the standard says (4.7.1)."""
        for text in ("a", "+", "#", "a/+/b", "a/#", "+/+", "/", "a//b", "$SYS/#"):
            self.assertTrue(is_filter(text), text)
        for text in ("", "a+", "a/+b", "#/a", "a#", "a/#/b"):
            self.assertFalse(is_filter(text), text)

    def test_filters_are_patterns(self) -> None:
        """``#`` also matches its parent, in both protocols."""
        for text, pattern in (("a/+/b", "/mqtt/a/*/b"), ("a/#", "/mqtt/a/**"), ("#", "/mqtt/**"), ("+", "/mqtt/*")):
            with self.subTest(text):
                self.assertEqual(filter_pattern("/mqtt", text), pattern)
        self.assertTrue(Pattern.parse("/mqtt/a/**").matches("/mqtt/a"))
        for text in ("a//b", "/a", "a/", "$SYS/#", "a*b", "+/" * 40 + "+"):
            with self.subTest(text):
                self.assertIsNone(filter_pattern("/mqtt", text))


class PayloadTests(SynchronousTestCase):
    def test_json_is_what_it_says(self) -> None:
        """Also with white space around the JSON."""
        for payload, value in (
            (b"1", 1),
            (b" -2.5\n", -2.5),
            (b'{"a": [1, null, "x"]}', {"a": [1, None, "x"]}),
            (b"true", True),
            (b'"text"', "text"),
            (b"[]", []),
            (b"9223372036854775807", 2**63 - 1),
        ):
            with self.subTest(payload):
                self.assertEqual(decode_value(payload_value(payload, is_retained=True)), value)

    def test_json_that_would_take_long_is_a_text(self) -> None:
        """A string, like JSON that CLASP would not keep as it is."""
        for part in ("[]", "1", '{"":0}'):
            with self.subTest(part):
                text = "[" + ",".join([part] * 6_000) + "]"
                self.assertEqual(payload_value(text.encode(), is_retained=False), encode_value(text))
        numbers = [0.125] * 3_990
        self.assertEqual(payload_value(json.dumps(numbers).encode(), is_retained=True), encode_value(numbers))

    def test_payload_costs_what_it_takes_to_parse(self) -> None:
        """Only if it is parsed: not for a text, nor for JSON that is too long to be parsed."""
        numbers = b"[" + b"1," * 1_024 + b"1]"
        for payload, cost in (
            (numbers, 4),
            (b" \n" + numbers, 4),
            (b"[1]", 0),
            (b"x" + numbers, 0),
            (b"[" + b"1," * 5_000 + b"1]", 0),
            (b"", 0),
        ):
            with self.subTest(payload[:5], size=len(payload)):
                self.assertEqual(payload_cost(payload), cost)

    def test_what_is_no_json_is_text_or_bytes(self) -> None:
        """Also JSON that CLASP would not keep as it is."""
        deep = b"[" * 40 + b"]" * 40
        for payload in (
            b"hello",
            b"21.5 C",
            b"nonsense",
            b"{",
            b'{"a": 1, "a": 2}',
            b"9223372036854775808",
            b"1" * 5000,
            b"1e999",
            b"NaN",
            b"[Infinity]",
            b'"\\ud800"',
            deep,
            b"[" * 30_000,
            b"[" + b"1," * 30_000 + b"1]",
        ):
            with self.subTest(payload[:20]):
                self.assertEqual(decode_value(payload_value(payload, is_retained=True)), payload.decode())
        self.assertEqual(decode_value(payload_value(b"\xff\0", is_retained=False)), b"\xff\0")

    def test_null_deletes_as_an_empty_payload_only(self) -> None:
        """The JSON text ``null`` is a string if it is retained."""
        self.assertEqual(payload_value(b"", is_retained=True), NULL)
        self.assertEqual(payload_value(b"null", is_retained=False), NULL)
        self.assertEqual(decode_value(payload_value(b"null", is_retained=True)), "null")

    def test_key_that_clasp_refuses_is_refused(self) -> None:
        """At any depth, whatever other keys there are."""
        for payload in (b'{"__proto__": 1}', '[{"\ufeffa": 1}]'.encode()):
            with self.subTest(payload), self.assertRaises(RequestError):
                payload_value(payload, is_retained=True)

    def test_values_are_payloads(self) -> None:
        """Strings and bytes raw, the rest as JSON."""
        for value, payload in (
            ("text", b"text"),
            (b"\xff", b"\xff"),
            (1, b"1"),
            (0.5, b"0.5"),
            (True, b"true"),
            ([1, b"\1"], b'[1,"AQ=="]'),
            ({"ä": None}, '{"ä":null}'.encode()),
            (None, b""),
        ):
            with self.subTest(payload):
                self.assertEqual(value_payload(encode_value(value)), payload)
        self.assertEqual(value_payload(None), b"")

    @given(st.binary(max_size=100) | st.text(max_size=50).map(str.encode))
    def test_any_payload_has_a_value(self, payload: bytes) -> None:
        """Or it is refused because of a key."""
        try:
            value = payload_value(payload, is_retained=True)
        except RequestError:
            return
        found = decode_value(value)
        if isinstance(found, str) and payload[:1] != b'"' and not payload.strip().startswith(b'"'):
            self.assertEqual(found.encode(), payload)

    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**63 - 1)
            | st.floats(allow_nan=False, allow_infinity=False),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            max_leaves=8,
        )
    )
    def test_json_comes_back(self, value: object) -> None:
        """As the same value."""
        if value is not None:
            payload = value_payload(encode_value(value))
            self.assertEqual(json.loads(payload), value)
            self.assertEqual(decode_value(payload_value(payload, is_retained=True)), value)
