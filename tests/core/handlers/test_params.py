"""Tests of clasp_relay.core.handlers.params: what SET and GET answer."""

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import ErrorCode
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import NULL, Ack, Error, Get, Set, Snapshot, SnapshotParam
from tests.core.guard import Guard
from tests.core.world import START_US, World, codes, value


class AckTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A session."""
        self.world = World()
        self.client = self.world.join()

    def test_ack_comes_only_where_qos_asks_for_it(self) -> None:
        """A binary ACK ends the Python client's loop, and it sends QoS 0; an ERROR comes always."""
        for revision, qos in enumerate((0, 1, 2), 1):
            with self.subTest(qos=qos):
                expected = [Ack("/a", revision)] if qos else []
                self.assertEqual(self.client.ask(Set("/a", value(1)), qos), expected)
                self.assertEqual(codes(self.client.ask(Set("a", value(1)), qos)), [ErrorCode.ADDRESS])

    def test_ack_of_a_lock_names_the_holder(self) -> None:
        """Only where the SET asked for the lock."""
        me = self.client.session.id
        self.assertEqual(self.client.ask(Set("/a", value(1), lock=True), 1), [Ack("/a", 1, True, me)])
        self.assertEqual(self.client.ask(Set("/a", value(1)), 1), [Ack("/a", 2)])

    def test_set_in_messagepack_is_answered_in_binary(self) -> None:
        """Any client message may come so."""
        document = {"type": "SET", "address": "/a", "value": 1, "ttl": {"Sliding": 5}}
        self.client.send_bytes(encode_frame(msgpack.packb(document), 1))
        self.assertEqual(self.client.hear(), [Ack("/a", 1)])


class GetTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A session."""
        self.world = World()
        self.client = self.world.join()

    def test_get_answers_with_the_param(self) -> None:
        """Value, revision, writer and time."""
        self.client.send(Set("/a", b"\x02\x05"))
        self.client.send(Set("/a/b", value(1)))
        expected = SnapshotParam("/a", b"\x02\x05", 1, self.client.session.id, START_US)
        self.assertEqual(self.client.ask(Get("/a")), [Snapshot((expected,))])

    def test_get_of_nothing_answers_with_null(self) -> None:
        """At once, with revision 0: never set, or deleted."""
        self.client.send(Set("/gone", value(1)))
        self.client.send(Set("/gone", NULL))
        for address in ("/never", "/gone"):
            with self.subTest(address=address):
                expected = SnapshotParam(address, NULL, 0, None, START_US)
                self.assertEqual(self.client.ask(Get(address)), [Snapshot((expected,))])

    def test_get_that_cannot_be_answered_is_refused(self) -> None:
        """No address, out of scope, or longer than any that can be set."""
        guarded = World(permissions=Guard()).join("alice")
        for client, address, code in (
            (self.client, "a", ErrorCode.ADDRESS),
            (self.client, "/*", ErrorCode.ADDRESS),
            (guarded, "/secret", ErrorCode.SCOPE),
            (self.client, "/" + "x" * 4_096, ErrorCode.ADDRESS),
        ):
            with self.subTest(address=address[:9]):
                (error,) = client.ask(Get(address))
                assert isinstance(error, Error)
                self.assertEqual(error.error, code)
        self.assertEqual(self.world.faults, [])
