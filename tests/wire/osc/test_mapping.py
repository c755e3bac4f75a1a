"""Tests of clasp_relay.wire.osc.mapping: OSC messages as CLASP messages, and values as OSC packets."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import DecodeError
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Ack, Publish, Set, SnapshotParam
from clasp_relay.wire.osc.mapping import OscCodec, message_of, packet_of, prefix_of
from clasp_relay.wire.osc.packets import Argument, OscMessage, decode_packet
from clasp_relay.wire.values import encode_value

SET: list[tuple[tuple[Argument, ...], object]] = [
    ((0.5,), 0.5),
    ((7,), 7),
    (("text",), "text"),
    ((b"\1",), b"\1"),
    ((True,), True),
    ((1, 2.0), [1, 2.0]),
    (((1, 2),), [1, 2]),
    ((1, None), [1, None]),
    (((),), []),
]

BACK: list[tuple[object, tuple[Argument, ...]]] = [
    (0.5, (0.5,)),
    (7, (7,)),
    ("text", ("text",)),
    (b"\1", (b"\1",)),
    (False, (False,)),
    ([1, 2.0], (1, 2.0)),
    ([1, [2]], (1, (2,))),
    ([], ((),)),
    (None, (None,)),
]


class MappingTests(SynchronousTestCase):
    def test_arguments_are_set(self) -> None:
        """A single argument as itself, several as a list."""
        for arguments, value in SET:
            with self.subTest(arguments):
                self.assertEqual(
                    message_of("/osc", OscMessage("/a/b", arguments)), Set("/osc/a/b", encode_value(value))
                )

    def test_no_argument_and_null_are_events(self) -> None:
        """As of a button that was pressed, which has no state."""
        self.assertEqual(message_of("/osc", OscMessage("/a")), Publish("/osc/a", Signal.EVENT))
        self.assertEqual(message_of("/osc", OscMessage("/a", (None,))), Publish("/osc/a", Signal.EVENT, value=NULL))

    def test_pattern_and_value_that_do_not_exist_are_refused(self) -> None:
        """A message has to have one address; a list has at most 65,535 items."""
        for message in (OscMessage("/a/*", (1,)), OscMessage("/a/{x,y}"), OscMessage("/a", ("x" * 65_536,))):
            with self.subTest(message.address), self.assertRaises(DecodeError):
                message_of("", message)

    def test_values_are_arguments(self) -> None:
        """A list becomes several arguments."""
        for value, arguments in BACK:
            with self.subTest(value=value):
                packet = packet_of("/osc", "/osc/a", encode_value(value))
                self.assertEqual(decode_packet(packet), OscMessage("/a", arguments))
        self.assertEqual(decode_packet(packet_of("/osc", "/osc/a", None)), OscMessage("/a", (None,)))

    def test_what_osc_cannot_say_is_left_out(self) -> None:
        """Maps at any depth, NUL in a text, addresses in other namespaces, and the namespace itself."""
        for address, value in (
            ("/osc/a", {}),
            ("/osc/a", [1, {"a": 1}]),
            ("/osc/a", "\0"),
            ("/other/a", 1),
            ("/osc", 1),
            ("/oscar", 1),
        ):
            with self.subTest(address=address, value=value):
                self.assertEqual(packet_of("/osc", address, encode_value(value)), b"")

    def test_slash_is_the_whole_tree(self) -> None:
        """Then the prefix is empty."""
        self.assertEqual((prefix_of("/"), prefix_of("/osc")), ("", "/osc"))
        self.assertEqual(message_of("", OscMessage("/a", (1,))), Set("/a", encode_value(1)))


class CodecTests(SynchronousTestCase):
    def test_deliveries_are_packets(self) -> None:
        """Answers are empty."""
        codec = OscCodec("/osc")
        one = packet_of("/osc", "/osc/a", encode_value(1))
        self.assertEqual(codec.set("/osc/a", encode_value(1), 1, False, False, None), one)
        self.assertEqual(codec.publish(Publish("/osc/a", value=encode_value(1))), one)
        params = [SnapshotParam("/osc/a", encode_value(1), 1), SnapshotParam("/b", encode_value(1), 1)]
        self.assertEqual(list(codec.snapshot(params)), [one, b""])
        self.assertEqual((codec.ack("/a", 1), codec.encode(Ack()), list(codec.result(()))), (b"", b"", []))

    def test_packet_is_no_single_message(self) -> None:
        """The door decodes packets itself."""
        codec = OscCodec("/osc")
        self.assertEqual(codec.cost(b"x"), 1)
        with self.assertRaises(DecodeError):
            codec.decode(b"/a\0\0")
