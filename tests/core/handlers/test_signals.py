"""Tests of clasp_relay.core.handlers.signals: ANNOUNCE and QUERY."""

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import ErrorCode
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import Ack, Announce, Error, Query, Result, SignalDefinition
from tests.core.guard import Guard
from tests.core.world import World, codes


def announce(*addresses: str, namespace: str = "/n") -> Announce:
    """Returns an ANNOUNCE of some params."""
    return Announce(namespace, tuple(SignalDefinition(address, Signal.PARAM, "f32") for address in addresses))


class SignalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A relay that checks scopes."""
        self.world = World(permissions=Guard())
        self.client = self.world.join("alice")

    def found(self, pattern: str) -> list[str]:
        """Returns the addresses that QUERY finds."""
        results = self.client.ask(Query(pattern))
        return [one.address for result in results if isinstance(result, Result) for one in result.signals]

    def test_binary_announce_is_acknowledged(self) -> None:
        """With its namespace, whatever its QoS; an empty one too."""
        for qos in (0, 1, 2):
            self.assertEqual(self.client.ask(announce("/a"), qos), [Ack("/n")])
        self.assertEqual(self.client.ask(Announce("/empty")), [Ack("/empty")])
        self.assertEqual(self.found("/**"), ["/a"])

    def test_announce_in_messagepack_is_acknowledged_where_qos_asks_for_it(self) -> None:
        """The Python client cannot read an ACK, and asks for none."""
        document = {"type": "ANNOUNCE", "namespace": "/n", "signals": [{"address": "/a", "type": "param"}]}
        for qos, expected in ((0, []), (1, [Ack("/n")])):
            self.client.send_bytes(encode_frame(msgpack.packb(document), qos))
            self.assertEqual(self.client.hear(), expected)

    def test_longest_namespace_fits_its_ack(self) -> None:
        """In either encoding."""
        namespace = "/" + "n" * 65_450
        document = {"type": "ANNOUNCE", "namespace": namespace, "signals": []}
        self.client.send_bytes(encode_frame(msgpack.packb(document), 1))
        self.assertEqual(self.client.hear(), [Ack(namespace)])
        longest = "n" * 65_530
        self.assertEqual(self.client.ask(Announce(longest)), [Ack(longest)])
        self.assertEqual(self.world.faults, [])

    def test_one_bad_definition_refuses_all(self) -> None:
        """No address, or out of scope; the ERROR names it."""
        for message, code, address in (
            (announce("/a", "b"), ErrorCode.ADDRESS, "b"),
            (announce("/a", "/secret"), ErrorCode.SCOPE, "/secret"),
        ):
            (error,) = self.client.ask(message)
            assert isinstance(error, Error)
            self.assertEqual((error.error, error.address), (code, address))
        self.assertEqual(self.found("/a"), [])

    def test_query_is_always_answered(self) -> None:
        """Also with nothing; in several RESULTs where one cannot hold all."""
        self.assertEqual(self.client.ask(Query("/none/**")), [Result()])
        for number in range(20):
            self.client.send(Announce("/n", (SignalDefinition(f"/{number}", Signal.PARAM, "x" * 20_000),)))
        self.assertEqual(len(self.client.ask(Query("/*"))), 7)
        self.assertEqual(len(self.found("/*")), 20)

    def test_query_in_messagepack_is_answered_in_binary(self) -> None:
        """As the Python client asks."""
        self.client.send_bytes(encode_frame(msgpack.packb({"type": "QUERY", "pattern": "/**"})))
        self.assertEqual(self.client.hear(), [Result()])

    def test_query_that_may_not_be_is_refused(self) -> None:
        """No pattern, or out of scope."""
        for pattern, code in (("a", ErrorCode.PATTERN), ("/secret/**", ErrorCode.SCOPE)):
            self.assertEqual(codes(self.client.ask(Query(pattern))), [code])
