"""Event streams behind their HTTP side: what a reader is sent, and how a stream ends."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.doors import event_stream
from clasp_relay.doors.door import DoorCounts
from clasp_relay.doors.event_stream import HEARTBEAT_S, Asked, EventStream, codec_of
from clasp_relay.doors.stream import StreamFactory
from clasp_relay.errors import CloseCode, Disconnect, ErrorCode, RequestError
from clasp_relay.net.admission import NetLimits
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Bundle, Hello, Message, Publish, Set
from clasp_relay.wire.values import encode_value
from tests.core.world import START_US, one_turn, rules_of
from tests.doors.site import DoorClient, Site

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
EVENTS = {"path": "/a/**", "signals": ["event"]}
EVERYTHING = {"path": "/a/**", "signals": ["param", "event"]}
WHOLE, NOT_ALL = ("live", {"complete": True}), ("live", {"complete": False})


def events_of(data: bytes) -> list[tuple[str, Any]]:
    """Takes what a reader gets apart, as an EventSource does: comments and ``retry`` are none."""
    found = []
    for block in data.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":") and line)
        if "data" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def ids_of(data: bytes) -> list[int]:
    """Returns the ids that a reader notes, in order."""
    return [int(found) for found in re.findall(rb"^id: ([0-9]+)$", data, re.MULTILINE)]


def cuts_of(data: bytes) -> list[tuple[int | None, list[tuple[str, Any]]]]:
    """Returns what a reader has seen wherever its connection may break: the id that it noted last, and the events."""
    found: list[tuple[int | None, list[tuple[str, Any]]]] = [(None, [])]
    for block in data.removeprefix(HEAD).split(b"\n\n")[:-1]:
        ids, seen = ids_of(block), events_of(block + b"\n\n")
        found.append((ids[0] if ids else found[-1][0], [*found[-1][1], *seen]))
    return found


def told(*events: tuple[str, Any]) -> list[tuple[str, Any]]:
    """Leaves out what says that a stream is live."""
    return [each for each in events if each[0] != "live"]


def published(value: object, address: str = "/a/x") -> tuple[str, Any]:
    """Returns the event that a PUBLISH becomes."""
    return "publish", {"address": address, "signal": "event", "value": value}


class StreamTestCase(SynchronousTestCase):
    """A relay in open mode."""

    def setUp(self) -> None:
        """With a session that writes."""
        self.counts = DoorCounts("sse")
        self.use(Site(NetLimits(max_sessions=3, outbox_bytes=65_547)))

    def use(self, site: Site) -> None:
        """Has another relay."""
        self.site, self.codec, self.writer = site, codec_of(site.relay), site.clasp()

    def open(self, pattern: str = "/a/**", room_bytes: int = 1 << 40, last_id: int | None = None) -> DoorClient:
        """Returns a reader of a stream."""
        site = self.site
        asked = Asked("", pattern, HEAD, lambda sentence: b"refused: " + sentence.encode(), last_id=last_id)
        make = lambda: EventStream(site.gate, self.counts, site.relay, self.codec, asked)  # noqa: E731
        return site.connect(StreamFactory(site.gate, self.counts, make), room_bytes=room_bytes)

    def say(self, *messages: Message, name: str = "clasp") -> None:
        """Has the writer, or another session, say something, and does not let the event loop turn."""
        (session,) = [each for each in self.site.relay.sessions.all() if each.name == name]
        for message in messages:
            self.site.relay.accept(session, message, 0)


class EventStreamTests(StreamTestCase):
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


class ResumeTests(StreamTestCase):
    """What a reader that was interrupted is told, with the id that it saw last."""

    def setUp(self) -> None:
        """History of events."""
        super().setUp()
        self.keep(EVENTS)

    def keep(self, *rules: Mapping[str, object]) -> None:
        """Has a relay that keeps something else."""
        self.use(Site(NetLimits(outbox_bytes=65_547), history=rules_of(*rules)))

    def resumed(self, last_id: int | None) -> list[tuple[str, Any]]:
        """Returns what a reader is told that comes back."""
        reader = self.open(last_id=last_id)
        self.site.turn(1)
        heard = events_of(reader.heard().removeprefix(HEAD))
        reader.pipe.lose()
        self.site.turn(1)
        return heard

    def last_id_of(self, reader: DoorClient) -> int:
        """Interrupts a reader, and returns the id that it saw last."""
        last_id = ids_of(reader.heard())[-1]
        reader.pipe.lose()
        self.site.turn(1)
        return last_id

    def test_nothing_is_skipped_or_repeated_wherever_a_stream_breaks(self) -> None:
        """Also of events of the same microsecond, of a bundle, and where others are told between its members."""
        self.site.say(self.writer, Publish("/a/x", value=encode_value("before")))
        reader = self.open()
        self.site.clasp("other")
        members = [Publish("/a/x", value=encode_value(number)) for number in range(200)]
        self.say(*members[:3], Bundle(tuple(members[3:10])), Bundle(tuple(members[10:190])))
        keeping = self.site.relay.keeping
        assert keeping is not None
        while not keeping._untold:
            one_turn(self.site.reactor)
        self.say(Publish("/a/x", value=encode_value("between")), name="other")
        self.site.turn()
        self.say(*members[190:])
        heard = reader.heard()
        everything = told(*events_of(heard.removeprefix(HEAD)))
        values = [each["value"] for _, each in everything]
        self.assertEqual(sorted(map(str, values)), sorted([*map(str, range(200)), "between"]))
        self.assertNotIn(values.index("between"), (0, 190, 200))
        between = values.index("between")
        ids = ids_of(heard)
        self.assertEqual(ids, sorted(ids))
        cuts = cuts_of(heard)[3:]
        self.assertEqual(len(cuts), len(everything) + 1)
        for last_id, seen in [*cuts[:40:5], *cuts[between - 2 : between + 4], *cuts[-15::3]]:
            with self.subTest(seen=len(seen)):
                again = self.resumed(last_id)
                self.assertEqual(again[-1], WHOLE)
                missed = [each for each in everything if each not in seen]
                repeated = [each for each in told(*again) if each not in missed]
                self.assertEqual([each for each in told(*again) if each in missed], sorted(missed, key=again.index))
                self.assertEqual(len(told(*again)) - len(repeated), len(missed))
                # What is told while a long bundle is may come twice, and nothing else.
                self.assertLessEqual({str(each["value"]) for _, each in repeated}, {"between"})

    def test_heartbeat_has_an_id(self) -> None:
        """That of the last entry: what a reader of little has seen moves on with the others."""
        reader = self.open("/a/quiet")
        self.site.say(self.writer, Publish("/a/x"))
        reader.heard()
        self.site.turn(HEARTBEAT_S + 1)
        heard = reader.heard()
        self.assertRegex(heard, rb"^:\nid: [0-9]+\n\n$")
        assert self.site.relay.keeping is not None
        self.assertEqual(ids_of(heard), [self.site.relay.keeping.position_us])

    def test_what_happens_meanwhile_comes_behind_what_was_missed(self) -> None:
        """So that the id that was seen last always tells what is missing."""
        self.site.say(self.writer, Publish("/a/x", value=encode_value(0)))
        last_id = self.last_id_of(self.open())
        self.site.say(self.writer, *(Publish("/a/x", value=encode_value(number)) for number in range(1, 600)))
        reader = self.open(last_id=last_id)
        self.say(Publish("/a/x", value=encode_value(600)), Set("/a/p", encode_value(1)))
        self.site.reactor.advance(0)
        self.say(Publish("/a/x", value=encode_value(601)))
        heard = reader.heard()
        missed = [published(number) for number in range(1, 600)]
        meanwhile = [published(600), ("set", {"address": "/a/p", "value": 1, "revision": 1}), published(601)]
        self.assertEqual(events_of(heard.removeprefix(HEAD)), [*missed, WHOLE, *meanwhile])
        self.assertEqual(ids_of(heard), sorted(ids_of(heard)))
        self.site.say(self.writer, Publish("/a/x", value=encode_value(602)))
        self.assertEqual(events_of(reader.heard()), [published(602)])

    def test_params_come_as_they_are_now_where_history_has_no_sets(self) -> None:
        """In front of the signals that were missed."""
        self.site.say(self.writer, Publish("/a/x", value=encode_value(0)))
        last_id = self.last_id_of(self.open())
        self.site.say(self.writer, Publish("/a/x", value=encode_value(1)), Set("/a/p", encode_value(3)))
        set_now = ("set", {"address": "/a/p", "value": 3, "revision": 1})
        self.assertEqual(self.resumed(last_id), [set_now, published(1), WHOLE])

    def test_params_come_as_what_was_missed_where_history_has_them(self) -> None:
        """Deletes, too, and no snapshot."""
        self.keep(EVERYTHING)
        self.site.say(self.writer, Set("/a/p", encode_value(1)), Set("/a/q", encode_value(1)))
        last_id = self.last_id_of(self.open())
        missed = Set("/a/p", encode_value(2)), Set("/a/p", NULL), Publish("/a/x", value=encode_value(1))
        self.site.say(self.writer, *missed)
        self.assertEqual(
            self.resumed(last_id),
            [
                ("set", {"address": "/a/p", "value": 2, "revision": 2}),
                ("set", {"address": "/a/p", "value": None, "revision": 3}),
                published(1),
                WHOLE,
            ],
        )

    def test_many_sets_that_were_missed_end_with_one_mark(self) -> None:
        """However many times a REPLAY has to tell."""
        self.keep(EVERYTHING)
        self.site.say(self.writer, Set("/a/p", encode_value(0)))
        last_id = self.last_id_of(self.open())
        for number in range(700):
            self.say(Set(f"/a/{'x' * 60}/{number}", encode_value(number)))
        again = self.resumed(last_id)
        self.assertEqual([each["value"] for kind, each in again if kind == "set"], list(range(700)))
        self.assertEqual([each for each in again if each[0] == "live"], [WHOLE])

    def test_where_not_all_is_kept_what_is_set_comes_behind_it(self) -> None:
        """And the reader is told that something is missing."""
        self.keep({**EVERYTHING, "max_count": 1})
        self.site.say(self.writer, Set("/a/p", encode_value(1)))
        last_id = self.last_id_of(self.open())
        self.site.say(self.writer, Set("/a/p", encode_value(2)), Set("/a/p", encode_value(3)), Set("/a/q", NULL))
        self.site.say(self.writer, Set("/a/q", encode_value(4)))
        p, q = [
            ("set", {"address": f"/a/{name}", "value": value, "revision": revision})
            for name, value, revision in (("p", 3, 3), ("q", 4, 2))
        ]
        again = self.resumed(last_id)
        self.assertEqual(again[-1], NOT_ALL)
        self.assertEqual(sorted(map(str, again[:-1])), sorted(map(str, (p, q, p, q))))

    def test_id_that_the_relay_does_not_know_is_answered_with_what_is_set(self) -> None:
        """Where it was never given, and where nothing is kept."""
        self.keep(EVERYTHING)
        self.site.say(self.writer, Set("/a/p", encode_value(1)))
        set_now = ("set", {"address": "/a/p", "value": 1, "revision": 1})
        self.assertEqual(self.resumed(self.site.clock.now_us() + 1_000_000), [set_now, NOT_ALL])
        self.use(Site())
        self.site.say(self.writer, Set("/a/p", encode_value(1)))
        self.assertEqual(self.resumed(1), [set_now, NOT_ALL])
        self.assertEqual(ids_of(self.open().heard()), [])

    def test_ids_go_on_over_a_restart_whatever_the_clock_says(self) -> None:
        """What comes after it has later ids, also when the clock was set back meanwhile."""
        self.site.say(self.writer, Publish("/a/x", value=encode_value(0)), Publish("/a/x", value=encode_value(1)))
        first = ids_of(self.open().heard())[-1]
        self.site.say(self.writer, Publish("/a/x", value=encode_value(2)))
        last_us = ids_of(self.open().heard())[-1]
        self.site.reactor.advance(3_600)
        site = Site(history=rules_of(EVENTS), memory=self.site.memory)
        site.clock.now_us = lambda: START_US - 3_600_000_000  # type: ignore[method-assign]
        assert site.relay.keeping is not None
        site.relay.keeping.begin(last_us)
        self.use(site)
        self.site.say(self.writer, Publish("/a/x", value=encode_value(3)))
        self.assertEqual(self.resumed(first), [published(2), published(3), WHOLE])

    def test_too_much_that_happens_meanwhile_ends_the_stream(self) -> None:
        """Which comes back, and goes on where it was."""
        self.site.say(self.writer, Publish("/a/x", value=encode_value(0)))
        last_id = self.last_id_of(self.open())
        text = "x" * 10_000
        self.site.say(self.writer, *(Publish("/a/x", value=encode_value(text)) for _ in range(300)))
        reader = self.open(last_id=last_id)
        self.say(*(Publish("/a/x", value=encode_value(text)) for _ in range(7)))
        heard = events_of(reader.heard().removeprefix(HEAD))
        self.assertEqual(heard[-1][0], "problem")
        self.assertTrue(reader.is_closed)
        self.assertEqual(self.site.writer.counters.slow_closes, 1)

    def test_history_that_cannot_be_read_is_said(self) -> None:
        """The stream goes on with what happens."""
        self.site.say(self.writer, Publish("/a/x", value=encode_value(0)))
        last_id = self.last_id_of(self.open())

        def refuse(*_: object) -> None:
            raise RequestError(ErrorCode.LIMIT, "too many")

        replays = self.site.relay.replays
        assert replays is not None
        problem = ("problem", {"code": 429, "error": "too many"})
        self.patch(replays, "ask", refuse)
        self.assertEqual(self.resumed(last_id), [problem, NOT_ALL])
        self.patch(replays, "ask", lambda *_: None)
        self.assertEqual(self.resumed(last_id), [NOT_ALL])

    def test_reader_that_comes_back_while_a_bundle_is_told_misses_nothing(self) -> None:
        """Nor hears anything twice: neither of the bundle, nor what others said meanwhile. Or it leaves again."""
        self.site.say(self.writer, Publish("/a/x", value=encode_value("before")))
        last_id = self.last_id_of(self.open())
        self.site.clasp("other")
        keeping = self.site.relay.keeping
        assert keeping is not None
        self.say(Bundle(tuple(Publish("/a/x", value=encode_value(number)) for number in range(180))))
        while not keeping._untold:
            one_turn(self.site.reactor)
        self.say(Publish("/a/x", value=encode_value("between")), name="other")
        gone, reader = self.open(last_id=last_id), self.open(last_id=last_id)
        gone.pipe.lose()
        self.site.turn(1)
        told_now = events_of(reader.heard().removeprefix(HEAD))
        self.assertEqual(told_now[-1], WHOLE)
        values = [str(data["value"]) for _, data in told_now[:-1]]
        self.assertEqual(sorted(values), sorted([*map(str, range(180)), "between"]))
        self.assertNotIn(b"publish", gone.heard())
        self.assertEqual(len([each for each in self.site.relay.sessions.all() if each.door]), 1)

    def test_reader_that_leaves_meanwhile_keeps_nothing(self) -> None:
        """Whatever it was told by then."""
        for rules, room_bytes in ((EVENTS, 0), (EVERYTHING, 0), (EVERYTHING, 40_000)):
            with self.subTest(rules=rules, room_bytes=room_bytes):
                self.keep(rules)
                self.site.say(self.writer, Publish("/a/x", value=encode_value(0)))
                last_id = self.last_id_of(self.open())
                self.say(*(Publish("/a/x", value=encode_value(number)) for number in range(300)))
                self.say(*(Set(f"/a/{number}", encode_value(number)) for number in range(300)))
                reader = self.open(last_id=last_id, room_bytes=room_bytes)
                self.site.turn()
                (session,) = [each for each in self.site.relay.sessions.all() if each.door]
                reader.pipe.lose()
                self.site.turn(1)
                self.assertEqual((len(self.site.relay.sessions), session.account.bytes), (1, 0))
