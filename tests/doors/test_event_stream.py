"""Event streams behind their HTTP side: what a reader is sent, and how a stream ends."""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.doors import event_stream
from clasp_relay.doors.door import DoorCounts
from clasp_relay.doors.event_stream import HEARTBEAT_S, Asked, EventStream
from clasp_relay.doors.stream import StreamFactory
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode, RequestError
from clasp_relay.net.admission import NetLimits
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Hello, Publish, Set
from clasp_relay.wire.values import encode_value
from tests.core.world import rules_of
from tests.doors.site import DoorClient, Site

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


def events_of(data: bytes) -> list[tuple[str, Any]]:
    """Takes what a reader gets apart, as an EventSource does: comments and ``retry`` are none."""
    found = []
    for block in data.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":") and line)
        if "data" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


class EventStreamTests(SynchronousTestCase):
    """A relay in open mode."""

    def setUp(self) -> None:
        """With a session that writes."""
        self.site = Site(NetLimits(max_sessions=3, outbox_bytes=65_547))
        self.counts = DoorCounts("sse")
        self.writer = self.site.clasp()

    def open(self, pattern: str = "/a/**", room_bytes: int = 1 << 40, last_id: int | None = None) -> DoorClient:
        """Returns a reader of a stream."""
        asked = Asked("", pattern, HEAD, lambda sentence: b"refused: " + sentence.encode(), last_id=last_id)
        make = lambda: EventStream(self.site.gate, self.counts, self.site.relay, asked)  # noqa: E731
        return self.site.connect(StreamFactory(self.site.gate, self.counts, make), room_bytes=room_bytes)

    def test_what_is_set_comes_first_then_what_happens(self) -> None:
        """Of the pattern alone; a delete is a null."""
        self.site.say(self.writer, Set("/a/x", encode_value(0.5)), Set("/b", encode_value(1)))
        reader = self.open()
        heard = reader.heard()
        self.assertTrue(heard.startswith(HEAD + b"retry: 2000\n\n"), heard)
        first = {"address": "/a/x", "value": 0.5, "revision": 1}
        self.assertEqual(events_of(heard.removeprefix(HEAD)), [("set", first), ("live", {})])
        self.site.say(
            self.writer,
            Set("/a/x", encode_value("new\nline")),
            Set("/b", encode_value(2)),
            Set("/a/x", NULL),
            Publish("/a/cue", value=encode_value(b"x")),
            Publish("/a/level", Signal.STREAM),
        )
        self.assertEqual(
            events_of(reader.heard()),
            [
                ("set", {"address": "/a/x", "value": "new\nline", "revision": 2}),
                ("set", {"address": "/a/x", "value": None, "revision": 3}),
                ("publish", {"address": "/a/cue", "signal": "event", "value": {"$bytes": "eA=="}}),
                ("publish", {"address": "/a/level", "signal": "stream", "value": None}),
            ],
        )

    def test_stream_is_a_session_until_its_reader_leaves(self) -> None:
        """Counted with the others; what the reader sends is ignored."""
        reader = self.open()
        reader.send(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual((self.site.gate.sessions, len(self.site.relay.sessions), self.counts.clients), (2, 2, 1))
        (session,) = [each for each in self.site.relay.sessions.all() if each.door]
        self.assertEqual((session.door, session.name, session.id), ("sse", "EventSource", reader.protocol.session_id))
        reader.pipe.lose()
        self.site.turn(1)
        self.assertEqual((self.site.gate.sessions, len(self.site.relay.sessions), self.counts.clients), (1, 1, 0))
        self.assertEqual(reader.protocol.session_id, "")

    def test_one_stream_too_many_is_refused(self) -> None:
        """With a whole response."""
        readers = [self.open() for _ in range(3)]
        self.assertEqual(readers[2].heard(), b"refused: the server is full (3 sessions)")
        self.assertTrue(readers[2].is_closed)
        self.assertEqual(self.counts.refused, 1)

    def test_silence_is_filled_with_comments(self) -> None:
        """Also after the deadline of other doors for a first message, and not for a reader that takes nothing."""
        reader = self.open()
        reader.heard()
        self.site.turn(HEARTBEAT_S + 1)
        self.assertEqual(reader.heard(), b":\n\n")
        self.assertFalse(reader.is_closed)
        stuck = self.open(room_bytes=0)
        self.site.turn(3 * HEARTBEAT_S + 1)
        self.assertLess(reader.heard().count(b":\n\n"), 5)
        stuck.pipe.drain()
        self.assertNotIn(b":\n\n", stuck.pipe.taken.partition(b"event: live")[2])
        reader.protocol.close(CloseCode.GOING_AWAY, "going away")
        self.site.turn(HEARTBEAT_S + 1)
        self.assertEqual(reader.heard(), b"")

    def test_reader_that_is_too_slow_is_ended(self) -> None:
        """Events of a stuck reader are kept up to the bound; the others go on."""
        stuck, reader = self.open(room_bytes=0), self.open()
        for _ in range(60):
            self.site.say(self.writer, Publish("/a/cue", value=encode_value("x" * 20_000)))
        self.site.turn(15)
        self.assertTrue(stuck.is_closed)
        self.assertEqual(
            len([kind for kind, _ in events_of(reader.heard().removeprefix(HEAD)) if kind == "publish"]), 60
        )

    def test_reader_that_was_interrupted_gets_the_signals_that_it_missed(self) -> None:
        """From the id on that it saw last; of params what is set now, since not every change need be kept."""
        self.site = Site(history=rules_of({"path": "/a/kept", "signals": ["event"]}))
        self.writer = self.site.clasp()
        self.site.say(self.writer, Publish("/a/kept", value=encode_value(0)))
        self.site.turn(1)
        reader = self.open()
        heard = reader.heard()
        (last_id,) = re.findall(rb"^id: ([0-9]+)$", heard, re.MULTILINE)
        self.assertEqual(int(last_id), self.site.clock.now_us())
        self.site.turn(HEARTBEAT_S + 1)
        (last_id,) = re.findall(rb"^id: ([0-9]+)\n\n$", reader.heard(), re.MULTILINE)
        reader.pipe.lose()
        self.site.turn(1)
        said = [Publish("/a/kept", value=encode_value(number)) for number in (1, 2)]
        self.site.say(self.writer, *said, Publish("/a/lost"), Set("/a/x", encode_value(3)))
        again = self.open(last_id=int(last_id))
        self.site.turn()
        told = events_of(again.heard().removeprefix(HEAD))
        set_now = ("set", {"address": "/a/x", "value": 3, "revision": 1})
        missed = [("publish", {"address": "/a/kept", "signal": "event", "value": number}) for number in (1, 2)]
        self.assertEqual(told, [set_now, *missed, ("live", {"complete": True})])
        self.site.say(self.writer, said[0])
        self.assertEqual(events_of(again.heard()), missed[:1])

    def test_reader_that_cannot_be_told_what_it_missed_is_live_at_once(self) -> None:
        """Where nothing is kept, or too many ask."""
        told = events_of(self.open(last_id=1).heard().removeprefix(HEAD))
        self.assertEqual(told, [("live", {})])
        self.site = Site(history=rules_of({"path": "/a/kept", "signals": ["event"]}))

        def refuse(*_: object) -> None:
            raise RequestError(ErrorCode.LIMIT, "too many")

        self.patch(self.site.relay.replays, "ask", refuse)
        told = events_of(self.open(last_id=1).heard().removeprefix(HEAD))
        self.assertEqual(told, [("problem", {"code": 429, "error": "too many"}), ("live", {})])

    def test_end_of_the_token_is_told(self) -> None:
        """As a problem, and the response ends."""
        reader = self.open()
        reader.heard()
        (session,) = [each for each in self.site.relay.sessions.all() if each.door]
        self.site.relay.end(session, Disconnect(CloseCode.POLICY_VIOLATION, "expired", ErrorCode.TOKEN_EXPIRED))
        self.assertEqual(events_of(reader.heard()), [("problem", {"code": 302, "error": "expired"})])
        self.assertTrue(reader.is_closed)

    def test_subscription_that_is_refused_ends_the_stream(self) -> None:
        """The reader is told why."""
        self.patch(event_stream, "Subscribe", lambda number, _: Hello(number, 0, ""))
        reader = self.open()
        kinds = [kind for kind, _ in events_of(reader.heard().removeprefix(HEAD))]
        self.assertEqual(kinds, ["problem"])
        self.assertTrue(reader.is_closed)
