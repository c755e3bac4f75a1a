"""The log of a real relay: every event once, nothing secret at any level, no line per message."""

from __future__ import annotations

import json
import re
from typing import Any

from clasp_relay.wire.codec import encode
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import Hello, Set, Subscribe
from clasp_relay.wire.values import encode_value
from tests.integration.accounts import AccountsRelay, AccountsTestCase, Api, put
from tests.integration.process import wait_until
from tests.integration.raw import CLOSE, RawClient

PASSWORD = "correct horse battery staple"
WRONG = "a wrong password that somebody typed"
VALUE = "a value that is its user's own"
FOREIGN = "no-token-of-ours-at-all"
BROKEN = "token-in-a-broken-hello"
EVIL = "evil\n2026-01-31T12:00:00.000Z error net: forged\x1b[2J"

_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (error|warn |info |debug|trace) [a-z]+: ")

EVENTS = {
    "start": r"relay: CLASP Relay listens on 127\.0\.0\.1:\d+ for WebSocket connections\n",
    "start of the auth API": r"relay: the auth API listens on 127\.0\.0\.1:\d+\n",
    "no state": r"storage: there is no state file .*state\.json: the relay starts empty\n",
    "register": r"auth: registration from 127\.0\.0\.1 succeeded, user u-",
    "login": r"auth: sign-in from 127\.0\.0\.1 succeeded, user u-",
    "refused login": r"auth: sign-in from 127\.0\.0\.1 failed: wrong name or password, or no valid token\n",
    "guest": r"auth: guest sign-in from 127\.0\.0\.1 succeeded, user u-",
    "rate limit of the auth API": r"auth: refused calls of register from 127\.0\.0\.1: 1 \(too many attempts\)",
    "the others of that minute": r"auth: refused calls of register from 127\.0\.0\.1: [2-9] \(too many attempts\)",
    "refused HELLO": r"core: connections from 127\.0\.0\.1 that ended before their HELLO was accepted: 1; .* token",
    "connect": r"core: session [0-9a-f-]+ connected from 127\.0\.0\.1: client evil\\x0a2026.*\\x1b\[2J, user u-",
    "disconnect": r"core: session [0-9a-f-]+ from 127\.0\.0\.1 disconnected after [0-9.]+ s: "
    r"closed by the client \(1000 evil\\x0a2026.* error net: forged.*\) \(user u-.*, "
    r"\d\d+ messages, \d+ errors\)",
    "message errors": r"core: messages of session [0-9a-f-]+ refused: 1, the last one with ERROR 200: ",
    "the others of that session": r"core: messages of session [0-9a-f-]+ refused: \d\d+, the last one with ERROR 200: ",
    "rate limit of messages": r"core: session [0-9a-f-]+ from 127\.0\.0\.1 is over its rate limit; "
    r"messages dropped: 1 \(user u-",
    "the others of that sender": r"core: session [0-9a-f-]+ from 127\.0\.0\.1 is over its rate limit; "
    r"messages dropped: \d\d+ \(user u-",
    "slow consumer": r"net: session [0-9a-f-]+ from 127\.0\.0\.1 is slow: \d+ bytes wait; frames dropped: 1\n",
    "snapshot": r"storage: snapshot saved: \d+ params, \d+ bytes in \d+ ms",
    "stop": r"relay: the relay is stopping; open sessions: \d+\n",
    "stopped": r"relay: the relay has stopped; all sessions were closed; all changes are saved\n",
}
"""What happens in ``full_session``, each with the line that tells it."""


class LogTestCase(AccountsTestCase):
    """Has everything happen that is told in the log."""

    secrets: list[str]

    def full_session(self, *options: str) -> AccountsRelay:
        """Runs a relay through all of ``EVENTS``, and stops it."""
        relay = self.start_accounts(
            "--app-config", "none", "--rate-limit", "200", "--admin-token", "admin.token", *options
        )
        admin = (self.folder / "admin.token").read_text("ascii").strip()
        api = relay.api
        tokens = [api.register("alice", PASSWORD), api.token("login", {"username": "alice", "password": PASSWORD})]
        api.call("login", {"username": "alice", "password": WRONG})
        tokens.append(api.token("guest", {"name": "bob"}))
        self.exhaust(api)
        self.secrets = [admin, *tokens, PASSWORD, WRONG, FOREIGN, BROKEN]
        self.refused(relay)
        self.slow(relay, admin)
        self.evil(relay, tokens[1])
        wait_until(lambda: "closed by the client (1000" in relay.log, "the end of a session is told")
        self.assertEqual(relay.stop(), 0)
        return relay

    def exhaust(self, api: Api) -> None:
        """Registers until that is refused, and goes on."""
        for number in range(13):
            api.call("register", {"username": f"user{number}", "password": "short"})
            api.call("register", {"username": f"user{number}", "password": PASSWORD})

    def refused(self, relay: AccountsRelay) -> None:
        """Connects with tokens that are none, and with a HELLO that is broken."""
        for data in (
            encode_frame(encode(Hello(1, 0, "x", FOREIGN))),
            encode_frame(encode(Hello(1, 0, "x", BROKEN)) + b"\x00"),
        ):
            client = RawClient(relay.port)
            client.send_frame(data)
            client.end()
            client.close()

    def slow(self, relay: AccountsRelay, admin: str) -> None:
        """Subscribes and does not read."""
        reader = RawClient(relay.port, receive_buffer=4096)
        reader.send(Hello(1, 0, "reader", admin), Subscribe(1, "/big/**"))
        reader.receive_any()
        writer = self.sign_in(relay, admin)
        wait_until(lambda: self.wrote_until_slow(relay, writer), "a session is slow")
        reader.close()

    def wrote_until_slow(self, relay: AccountsRelay, writer: Any) -> bool:
        """Writes a little more."""
        writer.ask(*(put(f"/big/{number}", "x" * 60_000) for number in range(10)))
        return "is slow" in relay.log

    def evil(self, relay: AccountsRelay, token: str) -> None:
        """Has a name that would forge a line, is refused, and sends more than it may."""
        client = RawClient(relay.port)
        client.send(Hello(1, 0, EVIL, token))
        client.receive_any()
        client.send(*[Set("/bad*", encode_value(VALUE))] * 5)
        client.settle()
        # Behind the many a PING would be dropped too.
        client.send(*[Set("/bad*", encode_value(VALUE))] * 2_000)
        wait_until(lambda: "is over its rate limit" in relay.log or not relay.is_running, "somebody sends too much")
        client.send_frame(b"\x03\xe8" + EVIL.encode(), CLOSE)
        client.end()
        client.close()

    def assert_no_secret(self, log: str) -> None:
        """Checks that no secret is in a log, in any writing."""
        for secret in self.secrets:
            for form in (secret, secret.encode().hex(), secret.removeprefix("cpsk_"), secret[5:].encode().hex()):
                self.assertNotIn(form, log)


class TextLogTests(LogTestCase):
    def test_every_event_is_told_once_and_no_message_has_a_line(self) -> None:
        """At info; the lines are well-formed whatever clients call themselves."""
        relay = self.full_session()
        for name, pattern in EVENTS.items():
            with self.subTest(name):
                self.assertTrue(re.search(pattern, relay.log), relay.log)
        for name in ("start", "guest", "connect", "refused login", "stop", "stopped", "message errors"):
            self.assertEqual(len(re.findall(EVENTS[name], relay.log)), 1, name)
        strange = [line for line in relay.lines if not _LINE.match(line)]
        self.assertEqual(strange, [])
        for word in ("IPv4Address", "starting on", "0 params loaded", "nobody in particular", "saved: True"):
            self.assertNotIn(word, relay.log)
        self.assertNotIn("/big/", relay.log)
        self.assertLess(len(relay.lines), 80, relay.log)
        self.assert_no_secret(relay.log)
        self.assertNotIn(VALUE, relay.log)

    def test_operations_are_told_at_debug_without_values(self) -> None:
        """Of the part that was asked for only."""
        relay = self.full_session("--log-level", "warn,core=debug,relay=info")
        self.assertIn(": SET /bad*\n", relay.log)
        self.assertIn(": HELLO\n", relay.log)
        self.assertNotIn("info  auth: ", relay.log)
        self.assertNotIn(VALUE, relay.log)
        self.assert_no_secret(relay.log)


class TraceLogTests(LogTestCase):
    def test_trace_has_every_frame_and_no_secret(self) -> None:
        """JSON lines, each an object; frames in hexadecimal both ways."""
        relay = self.full_session("--log-level", "trace", "--log-format", "json")
        events = [json.loads(line) for line in relay.lines]
        self.assertEqual({"time", "level", "part", "event", "message"} - set.intersection(*map(set, events)), set())
        traces = [event for event in events if event["level"] == "trace"]
        self.assertTrue(any(VALUE.encode().hex() in event["frame"] for event in traces))
        self.assertEqual({" < " in event["message"] for event in traces}, {True, False})
        masked = [event for event in traces if "**" in event["frame"]]
        self.assertGreaterEqual(len(masked), 3)
        ended = [event for event in events if event["event"] == "session.disconnected"]
        self.assertTrue(all(event["address"] == "127.0.0.1" and event["duration_s"] >= 0 for event in ended), ended)
        began = next(event for event in events if event["event"] == "session.connected" and event["client"] == EVIL)
        self.assertEqual((began["level"], began["part"]), ("info", "core"))
        self.assert_no_secret(relay.log)
