"""Tests of clasp_relay.logs.relay_log."""

import weakref

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.session.identity import Identity
from clasp_relay.core.session.sessions import Session
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.logs.levels import LogLevels
from clasp_relay.logs.relay_log import RelayLog, described
from clasp_relay.logs.tally import MAX_OFFENDERS, WINDOW_S
from clasp_relay.wire import messages as m
from clasp_relay.wire.constants import Signal
from tests.core.world import CODEC, START_US, MemoryOutbox, WorldClock, value
from tests.logs.events import collect, said

HOME = "192.0.2.1"
OVER = RequestError(ErrorCode.POLICY, "not your room", "/chat/room/1")


class RelayLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes a log and a session."""
        self.events = collect(self)
        self.clock = WorldClock()
        self.log = RelayLog(LogLevels.parse("info"), self.clock)
        self.session = Session("S", MemoryOutbox(), HOME, CODEC, START_US)
        self.session.name = "phone"
        self.addCleanup(self.log.flush)

    def test_refusal_is_not_kept_until_it_is_logged(self) -> None:
        """With its traceback it has the message and all that this was handled with."""
        for _ in range(3):
            refusal = RequestError(ErrorCode.LIMIT, "slow down", "/a")
            self.log.refused(self.session, refusal)
            kept = weakref.ref(refusal)
            del refusal
            self.assertIsNone(kept())
        self.log.flush()
        self.assertEqual(len(said(self.events)), 2)

    def test_it_wants_only_what_is_logged(self) -> None:
        """Operations at debug of core, frames at trace of net."""
        for text, wants in (
            ("info", (False, False)),
            ("debug", (True, False)),
            ("trace", (True, True)),
            ("info,core=debug", (True, False)),
            ("debug,core=info,net=trace", (False, True)),
        ):
            with self.subTest(text):
                log = RelayLog(LogLevels.parse(text), self.clock)
                self.assertEqual((log.watches, log.traces), wants)

    def test_session_has_a_line_at_its_beginning_and_at_its_end(self) -> None:
        """With who, where from, how long, how much and why."""
        self.session.identity = Identity("u-1", b"digest")
        self.session.hello_us, self.session.received, self.session.errors = START_US, 7, 2
        self.log.began(self.session)
        self.clock.clock.advance(61.5)
        self.log.ended(self.session, "closed by the client (1000)")
        self.assertEqual(
            said(self.events),
            [
                ("info", "session S connected from 192.0.2.1: client phone, user u-1"),
                (
                    "info",
                    "session S from 192.0.2.1 disconnected after 61.5 s: closed by the client (1000) "
                    "(user u-1, 7 messages, 2 errors)",
                ),
            ],
        )

    def test_sources_have_one_line_a_minute(self) -> None:
        """For each address: a program may send each of its packets from another port."""
        for _ in range(100):
            session = Session("T", MemoryOutbox(), HOME, CODEC, START_US)
            session.door = "osc"
            self.log.began(session)
            self.log.ended(session, "idle")
        self.clock.clock.advance(WINDOW_S)
        begin = "new OSC sources at 192.0.2.1"
        self.assertEqual(
            said(self.events),
            [("info", f"{begin}: 1, the last one session T"), ("info", f"{begin}: 99, the last one session T")],
        )

    def test_client_that_is_a_new_session_each_time_is_its_address(self) -> None:
        """What it does wrong is told once a minute, too; of HTTP by the door, which has an answer to give."""
        for door in ("osc", "http-single"):
            for number in range(100):
                session = Session(f"T{number}", MemoryOutbox(), HOME, CODEC, START_US)
                session.door = door
                self.log.began(session)
                self.log.refused(session, OVER)
                self.log.limited(session)
                self.log.ended(session, "answered")
        self.clock.clock.advance(WINDOW_S)
        over = "from 192.0.2.1 is over its rate limit; messages dropped"
        said_once = [
            ("new OSC sources at 192.0.2.1: {}, the last one session T{}", "info"),
            ("OSC: messages from 192.0.2.1 refused: {}, the last one because: not your room", "warn"),
            (f"session T{{1}} {over}: {{0}} (user none)", "warn"),
            ("HTTP requests from 192.0.2.1 with a session of their own: {}, the last one session T{}", "info"),
            (f"session T{{1}} {over}: {{0}} (user none)", "warn"),
        ]
        self.assertEqual(
            said(self.events),
            [(level, text.format(count, last)) for count, last in ((1, 0), (99, 99)) for text, level in said_once],
        )

    def test_what_a_door_refuses_has_one_line_a_minute(self) -> None:
        """For each door and address."""
        for _ in range(3):
            self.log.door_refused("OSC", HOME, "damaged")
        self.clock.clock.advance(WINDOW_S)
        begin = "OSC: messages from 192.0.2.1 refused"
        self.assertEqual(
            said(self.events),
            [
                ("warn", f"{begin}: 1, the last one because: damaged"),
                ("warn", f"{begin}: 2, the last one because: damaged"),
            ],
        )

    def test_connections_without_a_hello_have_one_line_a_minute(self) -> None:
        """For each address: whoever opens connections and says nothing does not fill the log."""
        for _ in range(100):
            self.log.ended(Session("T", MemoryOutbox(), HOME, CODEC, START_US), "x" * 300)
        self.log.ended(Session("U", MemoryOutbox(), "192.0.2.2", CODEC, START_US), "the client hung up")
        self.clock.clock.advance(WINDOW_S)
        begin = "connections from 192.0.2.1 that ended before their HELLO was accepted"
        cause = "after 0.0 s: " + "x" * 200 + "…"
        self.assertEqual(
            said(self.events),
            [
                ("info", f"{begin}: 1; the last one, T, {cause}"),
                (
                    "info",
                    "connections from 192.0.2.2 that ended before their HELLO was accepted: 1; "
                    "the last one, U, after 0.0 s: the client hung up",
                ),
                ("info", f"{begin}: 99; the last one, T, {cause}"),
            ],
        )

    def test_session_without_a_name_or_a_user_is_told_in_words(self) -> None:
        """As in open mode."""
        self.session.name = ""
        self.log.began(self.session)
        self.assertEqual(said(self.events), [("info", "session S connected from 192.0.2.1: client unnamed, user none")])

    def test_refusals_have_one_line_a_minute(self) -> None:
        """With the count and the last one's words."""
        for refusal in (OVER, OVER, RequestError(ErrorCode.MESSAGE, "what?")):
            self.log.refused(self.session, refusal)
        self.clock.clock.advance(WINDOW_S)
        self.assertEqual(
            said(self.events),
            [
                ("info", "messages of session S refused: 1, the last one with ERROR 403: not your room (/chat/room/1)"),
                ("info", "messages of session S refused: 2, the last one with ERROR 101: what?"),
            ],
        )

    def test_offenders_have_one_line_a_minute_each(self) -> None:
        """However often they do it; all that is left is said at the end."""
        for _ in range(10):
            self.log.limited(self.session)
            self.log.turned_away(HOME, "the server is full")
            self.log.slow("S", HOME, 1_100_000)
            self.log.signed("login", HOME, "Limited", "")
        self.assertEqual(
            said(self.events),
            [
                ("warn", "session S from 192.0.2.1 is over its rate limit; messages dropped: 1 (user none)"),
                ("warn", "connections from 192.0.2.1 refused: 1, the last one because: the server is full"),
                ("warn", "session S from 192.0.2.1 is slow: 1100000 bytes wait; frames dropped: 1"),
                ("warn", "refused calls of login from 192.0.2.1: 1 (too many attempts)"),
            ],
        )
        self.log.flush()
        self.assertEqual([line.count("9") for _, line in said(self.events)], [2, 2, 2, 2])

    def test_too_many_offenders_are_counted_together(self) -> None:
        """One more line."""
        for number in range(MAX_OFFENDERS + 3):
            self.log.turned_away(str(number), "full")
        self.log.flush()
        self.assertEqual(
            said(self.events)[-2:],
            [
                ("warn", "events from too many clients to log each client: 1"),
                ("warn", "events from too many clients to log each client: 2"),
            ],
        )

    def test_every_call_of_the_auth_api_has_a_line(self) -> None:
        """With its outcome and the client's address."""
        self.log.signed("register", HOME, "ok", "u-1")
        self.log.signed("login", HOME, "Unauthenticated", "")
        self.log.signed("logout", HOME, "ok", "")
        self.assertEqual(
            said(self.events),
            [
                ("info", "registration from 192.0.2.1 succeeded, user u-1"),
                ("info", "sign-in from 192.0.2.1 failed: wrong name or password, or no valid token"),
                ("info", "sign-out from 192.0.2.1 succeeded"),
            ],
        )

    def test_calls_that_nothing_limits_have_one_line_a_minute(self) -> None:
        """What was malformed, and tokens that were none."""
        for call, outcome, reason in (
            ("login", "BadInput", "malformed request"),
            ("guest", "Busy", "the relay is busy"),
            ("logout", "Unauthenticated", "wrong name or password, or no valid token"),
        ):
            with self.subTest(call):
                for _ in range(5):
                    self.log.signed(call, HOME, outcome, "")
                self.assertEqual(said(self.events), [("warn", f"refused calls of {call} from 192.0.2.1: 1 ({reason})")])

    def test_operations_are_debug_lines_and_frames_are_traces(self) -> None:
        """Frames in hexadecimal, in and out."""
        self.log.operation(self.session, m.Get("/a"))
        self.log.frame(self.session, b"\x53")
        self.log.sent("S", b"\x82\x01a")
        self.assertEqual(
            said(self.events),
            [("debug", "session S: GET /a"), ("trace", "session S < 53"), ("trace", "session S > 820161")],
        )


class DescriptionTests(SynchronousTestCase):
    def test_operation_is_described_without_its_value(self) -> None:
        """By its name and what it is about."""
        for message, words in (
            (m.Hello(1, 0, "client", "a token"), "HELLO"),
            (m.Set("/a", value("private")), "SET /a"),
            (m.Publish("/a", Signal.STREAM, value=value("private")), "PUBLISH stream /a"),
            (m.Subscribe(1, "/a/**"), "SUBSCRIBE /a/**"),
            (m.Announce("/a"), "ANNOUNCE /a"),
            (m.Bundle((m.Set("/a", value(1)),)), "BUNDLE of 1"),
            (m.Ping(), "PING"),
            (m.Get("/" + "a" * 300), "GET /" + "a" * 199 + "…"),
        ):
            with self.subTest(words):
                self.assertEqual(described(message), words)
