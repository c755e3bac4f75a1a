"""Another protocol beside CLASP: a text protocol of lines, in and out, under the same rules.

It is the smallest codec that there can be, and shows that the core knows no encoding: sessions of both protocols are in
one room, and each gets what it may see in its own language, encoded once for all who speak it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.ports import Audience, Codec, Frame, Outbox
from clasp_relay.core.session.sessions import Session
from clasp_relay.errors import DecodeError, ErrorCode
from clasp_relay.wire.constants import Phase, Signal
from clasp_relay.wire.messages import (
    Ack,
    Error,
    Get,
    Hello,
    Message,
    ParamFields,
    Ping,
    Pong,
    Publish,
    Set,
    SignalDefinition,
    Subscribe,
    Value,
    Welcome,
)
from clasp_relay.wire.values import decode_value, encode_value
from tests.core.guard import Guard, Rule, members_of
from tests.core.world import CODEC, Client, MemoryFanOut, World, heard, value


class LineCodec:
    """``set /a 1``, ``publish /a hi``, ``subscribe 1 /a/**``: one line is one message."""

    def __init__(self) -> None:
        self.encoded = 0
        """How many messages to subscribers were encoded."""

    def decode(self, data: bytes, /) -> tuple[Message, int]:
        """See ``core.ports.Codec``."""
        try:
            word, *rest = data.decode().split(" ")
            return self._message(word, rest), 1
        except (ValueError, KeyError) as error:
            raise DecodeError(f"no such line: {error}") from None

    def _message(self, word: str, rest: list[str]) -> Message:
        if word == "hello":
            return Hello(1, 0, "lines", rest[0])
        if word == "set":
            address, text = rest
            return Set(address, encode_value(text))
        if word == "publish":
            address, text = rest
            return Publish(address, Signal.EVENT, Phase.START, encode_value(text))
        if word == "subscribe":
            number, pattern = rest
            return Subscribe(int(number), pattern)
        if word == "get":
            return Get(*rest)
        if word == "ping":
            return Ping()
        raise KeyError(word)

    def cost(self, _data: bytes, /) -> int:
        """See ``core.ports.Codec``."""
        return 1

    def set(self, address: str, value: Value, revision: int, _lock: bool, _unlock: bool, _ttl: int | None, /) -> bytes:
        """See ``core.ports.Codec``."""
        self.encoded += 1
        return f"{address} = {decode_value(value)} ({revision})".encode()

    def publish(self, message: Publish, /) -> bytes:
        """See ``core.ports.Codec``."""
        self.encoded += 1
        said = None if message.value is None else decode_value(message.value)
        return f"{message.address}: {said}".encode()

    def ack(
        self,
        address: str | None = None,
        revision: int | None = None,
        _locked: bool | None = None,
        _holder: str | None = None,
        /,
    ) -> bytes:
        """See ``core.ports.Codec``."""
        return f"ok {address} ({revision})".encode()

    def encode(self, message: Message, /) -> bytes:
        """See ``core.ports.Codec``."""
        if isinstance(message, Welcome):
            return f"welcome to {message.name}".encode()
        if isinstance(message, Error):
            return f"error {message.error}: {message.message}".encode()
        assert isinstance(message, Pong), message
        return b"pong"

    def snapshot(self, params: Iterable[ParamFields], /) -> Iterator[bytes]:
        """See ``core.ports.Codec``."""
        for param in params:
            yield f"{param.address} is {decode_value(param.value)} ({param.revision})".encode()

    def result(self, definitions: Iterable[SignalDefinition], /) -> Iterator[bytes]:
        """See ``core.ports.Codec``."""
        for definition in definitions:
            yield f"{definition.address} is a signal".encode()


class Lines(Client):
    """A session of that protocol."""

    def say(self, line: str) -> list[str]:
        """Sends a line and returns what came back."""
        self.outbox.frames.clear()
        self.send_bytes(line.encode())
        return self.lines()

    def lines(self) -> list[str]:
        """Returns the lines that arrived since the last call."""
        found = [frame.wire.decode() for frame in self.outbox.frames]
        self.outbox.frames.clear()
        return found


class CountingFanOut(MemoryFanOut):
    """Notes the audiences to which frames are sent."""

    def __init__(self) -> None:
        self.audiences: list[Audience] = []

    def fan_out(self, audience: Audience, frame: Frame, exclude: Outbox | None = None) -> None:
        """Notes an audience, and sends to it."""
        self.audiences.append(audience)
        super().fan_out(audience, frame, exclude)


class TwoProtocolsTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A relay with rules, a CLASP client and two clients of the line protocol."""
        self.codec = LineCodec()
        codec: Codec = self.codec
        self.guard = Guard()
        self.guard.rules["/room"] = Rule(members_of("/members"))
        self.world = World(permissions=self.guard)
        self.clasp = self.world.join("ann")
        self.lines = [Lines(self.world, codec) for _ in range(2)]
        for client, name in zip(self.lines, ("bob", "cem"), strict=True):
            self.assertEqual(client.say(f"hello {name}"), ["welcome to CLASP Relay"])
        self.clasp.send(Set("/members", value(["ann", "bob"])))

    def test_each_session_hears_a_change_in_its_own_protocol(self) -> None:
        """A SET over CLASP arrives as a line, and a line arrives as a SET."""
        self.clasp.send(Subscribe(1, "/a/**"))
        self.assertEqual(self.lines[0].say("subscribe 1 /a/*"), [])
        self.clasp.send(Set("/a/b", value("x")))
        self.assertEqual(self.lines[0].lines(), ["/a/b = x (1)"])
        self.clasp.hear()
        self.assertEqual(self.lines[0].say("set /a/b y"), ["/a/b = y (2)", "ok /a/b (2)"])
        self.assertEqual(heard(self.clasp.hear()), [("/a/b", "y")])

    def test_a_message_is_encoded_once_for_all_sessions_of_a_protocol(self) -> None:
        """However many get it."""
        for client in self.lines:
            client.say("subscribe 1 /a")
        self.clasp.send(Subscribe(1, "/a"))
        before = self.codec.encoded
        self.clasp.send(Set("/a", value("x")))
        self.assertEqual(self.codec.encoded, before + 1)
        self.clasp.send(Publish("/a", Signal.EVENT, value=value("hi")))
        self.assertEqual(self.codec.encoded, before + 2)
        self.assertEqual([client.lines() for client in self.lines], [["/a = x (1)", "/a: hi"]] * 2)

    def test_session_hears_itself_where_its_protocol_has_it_so(self) -> None:
        """Also its signals; in CLASP a sender never gets its own."""
        for client, hears_itself in zip(self.lines, (True, False), strict=True):
            client.session.hears_itself = hears_itself
            client.say("subscribe 1 /a")
            self.assertEqual(client.say("publish /a hi"), ["/a: hi"] if hears_itself else [])

    def test_the_same_rules_hold(self) -> None:
        """A session that may not see a room is told nothing of it, in either protocol; one that may is told all."""
        for client in self.lines:
            client.say("subscribe 1 /room/**")
        self.clasp.send(Set("/room/1", value("secret")))
        self.assertEqual([client.lines() for client in self.lines], [["/room/1 = secret (1)"], []])
        self.assertEqual(self.lines[0].say("get /room/1"), ["/room/1 is secret (1)"])
        self.assertEqual(self.lines[1].say("get /room/1"), ["/room/1 is None (0)"])

    def test_the_same_refusals_are_read(self) -> None:
        """A line out of scope is refused like a SET, and an invalid line by the same gate."""
        (refused,) = self.lines[0].say("set /secret x")
        self.assertTrue(refused.startswith(f"error {int(ErrorCode.SCOPE)}: "), refused)
        (unknown,) = self.lines[0].say("dance")
        self.assertTrue(unknown.startswith(f"error {int(ErrorCode.MESSAGE)}: "), unknown)
        self.assertEqual(self.lines[0].say("ping"), ["pong"])

    def test_a_member_that_joins_gets_what_was_said_in_its_protocol(self) -> None:
        """As the SNAPSHOT of a subscription."""
        self.clasp.send(Set("/a", value("x")))
        self.assertEqual(self.lines[0].say("subscribe 1 /**"), ["/members is ['ann', 'bob'] (1)", "/a is x (1)"])


class MessagesWithoutBytesTests(SynchronousTestCase):
    """A protocol that has messages already needs no decoder."""

    def test_a_message_is_accepted_as_it_is(self) -> None:
        """It passes the same gate, and is answered."""
        world = World()
        client = world.join()
        world.relay.accept(client.session, Set("/a", value(1)), 1)
        world.relay.accept(client.session, Hello(1, 0, "again"), 0)
        acked, refused = client.hear()
        self.assertEqual(acked, Ack("/a", 1))
        assert isinstance(refused, Error), refused
        self.assertEqual(refused.error, ErrorCode.MESSAGE)

    def test_nothing_is_accepted_of_a_session_that_has_ended(self) -> None:
        """Like its bytes."""
        world = World()
        client = world.join()
        client.leave()
        world.relay.accept(client.session, Set("/a", value(1)), 1)
        self.assertIsNone(world.relay.params.get("/a"))
        self.assertEqual(client.hear(), [])


class AudienceTests(SynchronousTestCase):
    def test_a_room_of_two_protocols_has_two_audiences(self) -> None:
        """One for each codec, and each of them is one object for all addresses with the same listeners."""
        world = World()
        fan_out = CountingFanOut()
        world.relay.recipients._fan_out = fan_out
        line_codec = LineCodec()
        sessions: list[Session] = []
        for codec in (CODEC, line_codec, line_codec):
            client = Client(world, codec)
            sessions.append(client.session)
            world.relay.accept(client.session, Hello(1, 0, "x"), 0)
            world.relay.accept(client.session, Subscribe(1, "/a"), 0)
            world.relay.accept(client.session, Subscribe(2, "/b"), 0)
        for address in ("/a", "/b"):
            world.relay.accept(sessions[0], Set(address, value(1)), 0)
        self.assertEqual([len(audience.outboxes) for audience in fan_out.audiences], [1, 2, 1, 2])
        self.assertEqual([audience.codec for audience in fan_out.audiences[:2]], [CODEC, line_codec])
        self.assertIs(fan_out.audiences[0], fan_out.audiences[2])
        self.assertIs(fan_out.audiences[1], fan_out.audiences[3])
