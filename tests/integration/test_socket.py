"""What happens at the socket: upgrades, frames right and wrong, silence, and limits."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.wire.codec import encode
from clasp_relay.wire.constants import MAX_FRAME_BYTES, Signal
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import (
    Ack,
    Error,
    Get,
    Hello,
    Message,
    Ping,
    Pong,
    Publish,
    Set,
    Snapshot,
    Subscribe,
    Unsubscribe,
    Welcome,
)
from clasp_relay.wire.values import decode_value, encode_value
from tests.integration.process import PATIENCE_S, RelayProcess, RelayTestCase, wait_until
from tests.integration.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Closed, RawClient

HELLO = Hello(1, 0xF8, "raw")


def frame(message: Message) -> bytes:
    """Returns a message as a CLASP frame."""
    return encode_frame(encode(message))


def numbers(messages: list[Message]) -> list[object]:
    """Returns the values of SETs and PUBLISHes in their order."""
    return [decode_value(each.value) for each in messages if isinstance(each, Set | Publish) and each.value]


class SocketTestCase(RelayTestCase):
    """Tests at one relay."""

    relay: RelayProcess

    def setUp(self) -> None:
        """Starts it."""
        super().setUp()
        self.relay = self.start()

    def client(self) -> RawClient:
        """Returns a live client."""
        client = RawClient.live(self.relay.port)
        self.addCleanup(client.close)
        return client

    def upgraded(self, path: str = "/", subprotocols: tuple[str, ...] = ("clasp",), *headers: str) -> RawClient:
        """Returns a client that has not said HELLO."""
        client = RawClient(self.relay.port, path=path, subprotocols=subprotocols, headers=headers)
        self.addCleanup(client.close)
        return client

    def plain(self, request: str) -> str:
        """Returns the whole answer to an HTTP request."""
        with socket.create_connection(("127.0.0.1", self.relay.port), PATIENCE_S) as connection:
            connection.sendall(request.encode())
            data = b""
            while piece := connection.recv(65536):
                data += piece
            return data.decode()

    def assert_serves(self) -> None:
        """Somebody else is served."""
        client = self.client()
        client.send(Set("/serves", encode_value(1)), qos=1)
        client.receive(Ack)
        client.close()


class UpgradeTests(SocketTestCase):
    def test_relay_echoes_a_subprotocol_that_it_knows(self) -> None:
        """Clients fail the connection unless the answer names one that they asked for."""
        for offered, chosen in (
            (("clasp",), "clasp"),
            (("clasp.v2",), "clasp.v2"),
            (("clasp.v2", "clasp"), "clasp"),
            (("mqtt", "clasp"), "clasp"),
            ((), None),
        ):
            with self.subTest(offered=offered):
                client = self.upgraded(subprotocols=offered)
                self.assertEqual(client.response.status, 101)
                self.assertEqual(client.response.headers.get("sec-websocket-protocol"), chosen)
                client.send(HELLO)
                client.receive(Welcome)

    def test_relay_refuses_a_client_of_another_protocol(self) -> None:
        """Who offers subprotocols of which none is known is no CLASP client."""
        self.assertEqual(self.upgraded(subprotocols=("mqtt",)).response.status, 400)

    def test_relay_takes_any_path(self) -> None:
        """Proxies differ in what they leave of a path."""
        for path in ("/", "/clasp", "/ws", "/ws/a/b", "/?x=1", "/%C3%A9"):
            with self.subTest(path):
                client = self.upgraded(path)
                client.send(HELLO)
                client.receive(Welcome)

    def test_relay_does_not_compress(self) -> None:
        """Every client offers permessage-deflate; a small message could inflate to any size."""
        client = self.upgraded("/", ("clasp",), "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
        self.assertEqual(client.response.status, 101)
        self.assertNotIn("sec-websocket-extensions", client.response.headers)

    def test_relay_answers_plain_http_with_426(self) -> None:
        """A wrong rule of a proxy does not look right; health checks are answered."""
        for path, status in (("/", 426), ("/ws", 426), ("/readyz", 426), ("/healthz", 200)):
            with self.subTest(path):
                answer = self.plain(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
                self.assertEqual(int(answer.split()[1]), status, answer)
        self.assertNotIn("101", self.plain("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").split()[1])

    def test_relay_ends_a_request_without_an_end(self) -> None:
        """Headers for ever are not collected."""
        answer = self.plain("GET / HTTP/1.1\r\n" + "X: y\r\n" * 4_000)
        self.assertEqual(int(answer.split()[1]), 431)


class BeginningTests(SocketTestCase):
    def test_relay_welcomes_and_then_shows_all_params(self) -> None:
        """HELLO is answered by WELCOME, then by a SNAPSHOT, even of nothing."""
        first = self.upgraded()
        first.send(HELLO)
        before_us = time.time() * 1e6
        welcome = first.receive(Welcome)
        self.assertEqual((welcome.version, welcome.name, len(welcome.session)), (1, "CLASP Relay", 36))
        self.assertLess(abs(welcome.time_us - before_us), PATIENCE_S * 1e6)
        self.assertEqual(first.receive(Snapshot).params, ())
        first.send(Set("/a", encode_value(1)), qos=1)
        first.receive(Ack)
        second = self.upgraded()
        second.send(HELLO)
        second.receive(Welcome)
        self.assertEqual([param.address for param in second.receive(Snapshot).params], ["/a"])

    def test_relay_handles_what_came_with_hello_after_it(self) -> None:
        """The npm client subscribes and sets before WELCOME is there."""
        client = self.upgraded()
        client.send(HELLO, Subscribe(1, "/**"), Set("/a", encode_value(1)), Ping())
        client.receive(Welcome)
        messages = client.receive_until(lambda message: isinstance(message, Pong))
        self.assertEqual([type(each) for each in messages], [Snapshot, Set, Pong])

    def test_relay_ends_who_begins_with_anything_else(self) -> None:
        """An ERROR where one can be sent, then a close whose reason says the cause."""
        for data in (frame(Set("/a", encode_value(1))), frame(Ping()), b"", b"junk", b"\x53\x01\x00\x01\xee"):
            with self.subTest(data):
                client = self.upgraded()
                client.send_frame(data)
                messages, closed = client.end()
                self.assertEqual([type(each) for each in messages], [Error])
                self.assertEqual(closed.code, CloseCode.POLICY_VIOLATION)
                assert isinstance(messages[0], Error)
                self.assertEqual(closed.reason, messages[0].message)
        self.assert_serves()

    def test_relay_refuses_a_second_hello_and_changes_nothing(self) -> None:
        """The session goes on as what it is; the table of sessions does not grow."""
        client = self.client()
        client.send(Set("/mine", encode_value(1), lock=True), qos=1)
        holder = client.receive(Ack).holder
        for _ in range(50):
            client.send(HELLO)
            self.assertEqual(client.refusal().error, ErrorCode.MESSAGE)
        client.send(Set("/mine", encode_value(2), lock=True), qos=1)
        self.assertEqual(client.receive(Ack).holder, holder)

    def test_relay_ends_who_says_nothing_and_serves_others_meanwhile(self) -> None:
        """10 s from connect to HELLO: for silent TCP connections, half requests, and upgrades without HELLO."""
        began_s = time.monotonic()
        silent = [socket.create_connection(("127.0.0.1", self.relay.port), PATIENCE_S) for _ in range(20)]
        half = socket.create_connection(("127.0.0.1", self.relay.port), PATIENCE_S)
        half.sendall(b"GET / HTTP/1.1\r\n")
        for connection in (*silent, half):
            self.addCleanup(connection.close)
        upgraded = self.upgraded()
        self.assert_serves()
        messages, closed = upgraded.end()
        self.assertGreater(time.monotonic() - began_s, 9)
        self.assertEqual([each.error for each in messages if isinstance(each, Error)], [ErrorCode.UNAUTHENTICATED])
        self.assertEqual((closed.code, closed.reason), (CloseCode.POLICY_VIOLATION, "no HELLO within 10 s"))
        for connection in (*silent, half):
            self.assertEqual(_last(connection), b"")


def _last(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1)
    except ConnectionResetError:
        return b""


class FrameTests(SocketTestCase):
    def test_relay_ends_a_text_message(self) -> None:
        """Text is no CLASP: an ERROR, then a close that says so."""
        client = self.client()
        client.send_frame(b'{"type":"PING"}', TEXT)
        messages, closed = client.end()
        self.assertEqual([each.error for each in messages if isinstance(each, Error)], [ErrorCode.MESSAGE])
        self.assertEqual((closed.code, closed.reason), (CloseCode.UNSUPPORTED_DATA, "text messages are no CLASP"))

    def test_relay_takes_a_message_in_fragments(self) -> None:
        """Pings may stand between them."""
        client = self.client()
        data = encode_frame(encode(Set("/a", encode_value("x" * 300))), qos=1)
        client.send_frame(data[:3], BINARY, fin=False)
        client.send_frame(b"between", PING)
        client.send_frame(data[3:200], CONTINUATION, fin=False)
        client.send_frame(data[200:], CONTINUATION)
        self.assertEqual(client.receive_frame(), (PONG, b"between"))
        self.assertEqual(client.receive(Ack).revision, 1)

    def test_relay_ends_a_client_that_does_not_mask(self) -> None:
        """RFC 6455 §5.1: a server must close then, with 1002."""
        client = self.client()
        client.send_frame(frame(Ping()), masked=False)
        self.assertEqual(client.end()[1].code, CloseCode.PROTOCOL_ERROR)

    def test_relay_sends_without_a_mask(self) -> None:
        """RFC 6455 §5.1: a client must close otherwise."""
        client = self.client()
        client.send(Ping())
        client.socket.settimeout(PATIENCE_S)
        self.assertEqual(client.socket.recv(7), b"\x82\x05" + frame(Pong()))

    def test_relay_takes_the_largest_frame_and_no_larger_one(self) -> None:
        """65,547 bytes are a frame with a timestamp and a full payload; one more closes with 1009."""
        client = self.client()
        overhead = len(encode(Set("/a", encode_value(""))))
        payload = encode(Set("/a", encode_value("x" * (65_535 - overhead))))
        largest = encode_frame(payload, 1, 1_700_000_000_000_000)
        self.assertEqual(len(largest), MAX_FRAME_BYTES)
        client.send_frame(largest)
        self.assertIsInstance(client.receive_any(), Ack | Error)
        client.send_frame(largest + b"\0")
        self.assertEqual(client.end()[1].code, CloseCode.TOO_BIG)

    def test_relay_ends_a_message_that_grows_too_long_in_fragments(self) -> None:
        """The limit is the message's, before and after HELLO."""
        for client in (self.client(), self.upgraded()):
            client.send_frame(bytes(40_000), BINARY, fin=False)
            client.send_frame(bytes(25_548), CONTINUATION, fin=False)
            self.assertEqual(client.end()[1].code, CloseCode.TOO_BIG)

    def test_relay_answers_a_close(self) -> None:
        """With the same code, and then the end of the connection."""
        client = self.client()
        client.send_frame((1000).to_bytes(2, "big"), CLOSE)
        self.assertEqual(client.end()[1].code, 1000)
        self.assertEqual(client.wait_for_eof(), b"")


class DamageTests(SocketTestCase):
    def test_relay_survives_deep_nesting_before_and_after_hello(self) -> None:
        """18 kB of nested arrays are one ERROR, or the end of one connection."""
        nested = b"\x21\x0a" + b"\x00\x02/a" + b"\x00\x01\x0a" * 6_000 + b"\x00\x00"
        legacy = b"\x83\xa4type\xa3SET\xa7address\xa2/a\xa5value" + b"\x91" * 18_000 + b"\xc0"
        for payload in (nested, legacy):
            client = self.client()
            client.send_frame(encode_frame(payload))
            self.assertEqual(client.refusal().error, ErrorCode.MESSAGE)
            newcomer = self.upgraded()
            newcomer.send_frame(encode_frame(payload))
            self.assertEqual(newcomer.end()[1].code, CloseCode.POLICY_VIOLATION)
        self.assert_serves()

    def test_relay_answers_every_truncation_and_cleans_up_afterwards(self) -> None:
        """Truncated frames are ERRORs; the session's locks and subscriptions go with the connection all the same."""
        watcher = self.client()
        client = self.client()
        client.send(Subscribe(1, "/**"), Set("/held", encode_value(1), lock=True), qos=1)
        client.receive_until(lambda message: isinstance(message, Ack))
        whole = encode(Set("/a", encode_value({"k": [1, 2.5, "x", b"y"]}), revision=1, ttl=60))
        for size in range(1, len(whole)):
            client.send_frame(encode_frame(whole[:size]))
            messages = client.settle()
            self.assertEqual([type(each) for each in messages], [Error], whole[:size])
            if size == 90:
                break
        client.send_raw(b"\x82\xfe\xff")
        client.reset()
        watcher.send(Set("/watched", encode_value(0)))

        def is_free() -> bool:
            watcher.send(Set("/held", encode_value(2)), qos=1)
            return isinstance(watcher.receive_any(), Ack)

        wait_until(is_free, "the lock of a session that is gone is free")
        self.assert_serves()

    def test_relay_ends_who_sends_nothing_but_junk(self) -> None:
        """100 undecodable frames in 10 s; the first ones only cost an ERROR each."""
        client = self.client()
        for _ in range(99):
            client.send_frame(b"junk!")
        self.assertEqual([type(each) for each in client.settle()], [Error] * 99)
        client.send_frame(b"junk!")
        messages, closed = client.end()
        self.assertEqual((len(messages), closed.code), (1, CloseCode.POLICY_VIOLATION))
        self.assert_serves()


class CapacityTests(RelayTestCase):
    def test_relay_refuses_more_sessions_than_it_may_have(self) -> None:
        """ERROR 503 after the upgrade, then close 1013, both in words; a place that is free again is given."""
        relay = self.start("--max-sessions", "3")
        clients = [RawClient.live(relay.port) for _ in range(3)]
        extra = RawClient(relay.port)
        messages, closed = extra.end()
        self.assertEqual([each.error for each in messages if isinstance(each, Error)], [ErrorCode.OVERLOADED])
        self.assertEqual(closed.code, CloseCode.TRY_AGAIN_LATER)
        self.assertIn("full", closed.reason)
        clients.pop().close()

        def has_place() -> bool:
            try:
                clients.append(RawClient.live(relay.port))
            except Closed:
                return False
            return True

        wait_until(has_place, "a place is free again")
        for client in clients:
            client.close()

    def test_relay_closes_connections_beyond_twice_the_sessions(self) -> None:
        """At accept, before anything is said."""
        relay = self.start("--max-sessions", "3")
        silent = [socket.create_connection(("127.0.0.1", relay.port), PATIENCE_S) for _ in range(6)]
        beyond = socket.create_connection(("127.0.0.1", relay.port), PATIENCE_S)
        self.assertEqual(_last(beyond), b"")
        for connection in (*silent, beyond):
            connection.close()


@contextlib.contextmanager
def ending(client: RawClient) -> Iterator[None]:
    """Ends a connection in the end, so that no thread goes on to wait for what it receives."""
    try:
        yield
    finally:
        client.socket.shutdown(socket.SHUT_RDWR)


class LivenessTests(RelayTestCase):
    def test_relay_keeps_a_listener_and_ends_a_dead_peer(self) -> None:
        """Who only answers pings lives for ever; who answers nothing is closed after the timeout."""
        relay = self.start("--session-timeout", "2")
        listener, dead = RawClient.live(relay.port), RawClient.live(relay.port)
        listener.send(Subscribe(1, "/news"))
        listener.settle()
        with ThreadPoolExecutor(1) as thread, ending(listener):
            came = thread.submit(listener.receive, Set)  # answers pings until then
            opcodes = []
            while CLOSE not in opcodes:
                opcode, payload = dead.receive_frame()
                opcodes.append(opcode)
            self.assertEqual(payload, CloseCode.POLICY_VIOLATION.to_bytes(2, "big") + b"nothing was received for 2 s")
            self.assertIn(PING, opcodes)
            # Not before: it would say nothing, and be ended as well.
            writer = RawClient.live(relay.port)
            until_s = time.monotonic() + 3
            while time.monotonic() < until_s:
                writer.settle()
            writer.send(Set("/news", encode_value("still here")))
            self.assertEqual(came.result(PATIENCE_S).value, encode_value("still here"))
        for client in (listener, dead, writer):
            client.close()


class OrderTests(SocketTestCase):
    def test_fifty_subscribers_get_a_burst_in_order(self) -> None:
        """Params and events of one sender, all of them, in the order sent; none of the events comes back to it."""
        subscribers = [self.client() for _ in range(50)]
        for subscriber in subscribers:
            subscriber.send(Subscribe(1, "/burst/**"))
            subscriber.settle()
        sender = self.client()
        sender.send(Subscribe(1, "/burst/**"))
        sender.settle()
        burst: list[Message] = []
        for number in range(600):
            value = encode_value(number)
            if number % 3:
                burst.append(Set(f"/burst/{number % 7}", value))
            else:
                burst.append(Publish(f"/burst/e{number % 5}", Signal.EVENT, value=value))
        sender.send(*burst)
        self.assertEqual(numbers(sender.settle()), [number for number in range(600) if number % 3])
        for subscriber in subscribers:
            self.assertEqual(numbers(subscriber.settle()), list(range(600)))

    def test_subscriber_gets_a_message_once_and_none_after_it_unsubscribed(self) -> None:
        """However many of its subscriptions match."""
        client, sender = self.client(), self.client()
        client.send(Subscribe(1, "/a/*"), Subscribe(2, "/**"), Subscribe(2, "/a/**"))
        client.settle()
        sender.send(Set("/a/b", encode_value(1)))
        sender.settle()
        self.assertEqual(numbers(client.settle()), [1])
        client.send(Unsubscribe(1), Unsubscribe(2), Unsubscribe(77))
        client.settle()
        sender.send(Set("/a/b", encode_value(2)))
        sender.settle()
        self.assertEqual(client.settle(), [])


class ParamTests(SocketTestCase):
    def test_lock_keeps_others_out_until_it_is_released(self) -> None:
        """ERROR 401 names the holder; only the holder unlocks; its disconnect does too."""
        holder, other = self.client(), self.client()
        holder.send(Set("/a", encode_value(1), lock=True), qos=1)
        ack = holder.receive(Ack)
        self.assertEqual((ack.revision, ack.locked), (1, True))
        assert ack.holder is not None
        for message in (
            Set("/a", encode_value(2)),
            Set("/a", encode_value(2), lock=True),
            Set("/a", encode_value(2), unlock=True),
        ):
            other.send(message)
            refusal = other.refusal()
            self.assertEqual((refusal.error, refusal.address), (ErrorCode.LOCKED, "/a"))
            self.assertIn(ack.holder, refusal.message)
        holder.send(Set("/a", encode_value(3), unlock=True), qos=1)
        self.assertEqual(holder.receive(Ack).revision, 2)
        other.send(Set("/a", encode_value(4), lock=True), qos=1)
        self.assertEqual(other.receive(Ack).revision, 3)

    def test_param_ends_when_its_time_is_over_and_subscribers_are_told(self) -> None:
        """A SET null with a higher revision, at most a second late; the address is empty then."""
        client, watcher = self.client(), self.client()
        watcher.send(Subscribe(1, "/a"))
        watcher.settle()
        client.send(Set("/a", encode_value(1), ttl=1 | 0x8000_0000))
        self.assertEqual(numbers([watcher.receive(Set)]), [1])
        ended = watcher.receive(Set)
        self.assertEqual((ended.value, ended.revision), (b"\x00", 2))
        client.send(Get("/a"))
        param = client.receive(Snapshot).params[0]
        self.assertEqual((param.value, param.revision), (b"\x00", 0))

    def test_writer_of_an_old_revision_is_refused(self) -> None:
        """ERROR 400 says both; revision 0 means that there is no value yet."""
        client = self.client()
        client.send(Set("/a", encode_value(1), revision=0), qos=1)
        self.assertEqual(client.receive(Ack).revision, 1)
        client.send(Set("/a", encode_value(2), revision=0), qos=1)
        self.assertEqual(client.receive(Error).error, ErrorCode.CONFLICT)
        client.send(Set("/a", encode_value(2), revision=1), qos=1)
        self.assertEqual(client.receive(Ack).revision, 2)

    def test_qos_0_is_not_acknowledged(self) -> None:
        """A binary ACK ends the Python client's receive loop."""
        client = self.client()
        client.send(Set("/a", encode_value(1)))
        self.assertEqual(client.settle(), [])
