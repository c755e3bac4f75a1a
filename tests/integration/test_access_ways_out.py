"""Each way by which a value leaves a relay, at the socket, for those who may see it and those who may not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import count

from clasp_relay.wire.constants import Phase, Signal
from clasp_relay.wire.messages import (
    NULL,
    Ack,
    Announce,
    Bundle,
    Error,
    Get,
    Message,
    Publish,
    Query,
    Replay,
    Set,
    SignalDefinition,
    Snapshot,
    Subscribe,
)
from clasp_relay.wire.values import PyValue, encode_value
from tests.integration.accounts import AccountsRelay, AccountsTestCase, Person, event, put, told

ROOMY = ("--rate-limit", "0", "--admin-token", "admin.token")

SECRET: PyValue = {"text": "hello", "secret": "s3cret"}
REDACTED: PyValue = {"text": "hello"}

P2P = "/clasp/p2p/signal/{}"

POLICY = {
    "scopes": ["read:/**", "write:/**"],
    "snapshot_visibility": [
        {"path": "/hidden/**", "visible": False},
        {"path_contains": "/text/", "visible": False},
        {"path": "/owned/{id}/**", "visible": "owner", "owner_segment": "id"},
        {"path": "/state/{n}", "visible": "require_state_not_null", "lookup": "/open/{session}"},
        {
            "path": "/checked/{n}",
            "visible": "checks",
            "checks": [{"type": "state_field_has_session", "lookup": "/members", "field": "who"}],
        },
        {"path": "/literal/{n}", "visible": True, "literal": ["n"]},
        {"path": "/clasp/p2p/signal/{to}", "visible": "require_state_not_null", "lookup": "/p2p/{session}"},
    ],
    "snapshot_transforms": [
        {"path": "/redacted/**", "redact_fields": ["secret"]},
        {
            "path": "/clasp/p2p/signal/**",
            "redact_fields": ["secret"],
            "unless": [{"type": "state_field_equals", "lookup": "/p2p/{session}", "field": "all", "value": True}],
        },
    ],
}

RULES: dict[str, str] = {
    "/hidden/{n}": "admin",
    "/any/text/{n}": "admin",
    "/owned/friend/{n}": "admin friend",
    "/state/{n}": "admin friend",
    "/checked/{n}": "admin friend",
    "/literal/{n}": "admin",
    "/redacted/{n}": "admin",
    "/free/{n}": "admin friend reader",
}
"""An address, and who sees it whole by a pattern that says nothing of it; admins are beyond every rule."""


class Ways:
    """Each way out: what ``name`` is told when the writer puts something at an address.

    Args:
        case: has the relay and the tokens.
        writer: puts it there.
    """

    def __init__(self, case: WaysOutTests, writer: Person) -> None:
        self._case = case
        self._writer = writer

    def hello(self, name: str, address: str) -> list[Message]:
        """The SNAPSHOT after WELCOME."""
        self._do(put(address, SECRET))
        return self._case.join(name).first

    def subscribe(self, name: str, address: str) -> list[Message]:
        """The SNAPSHOT after SUBSCRIBE."""
        self._do(put(address, SECRET))
        return self._case.join(name).ask(Subscribe(1, "/**"))

    def get(self, name: str, address: str) -> list[Message]:
        """The SNAPSHOT that answers GET."""
        self._do(put(address, SECRET))
        return self._case.join(name).ask(Get(address))

    def live_set(self, name: str, address: str) -> list[Message]:
        """A SET."""
        return self._live(name, put(address, SECRET))

    def live_event(self, name: str, address: str) -> list[Message]:
        """A PUBLISH."""
        return self._live(name, event(address, SECRET))

    def stream(self, name: str, address: str) -> list[Message]:
        """A stream, through a subscription with a maximum rate."""
        message = Publish(address, Signal.STREAM, value=encode_value(SECRET))
        return self._live(name, message, Subscribe(1, "/**", max_rate=1000))

    def throttled_set(self, name: str, address: str) -> list[Message]:
        """A SET, likewise."""
        return self._live(name, put(address, SECRET), Subscribe(1, "/**", max_rate=1000))

    def gesture(self, name: str, address: str) -> list[Message]:
        """A gesture."""
        return self._live(name, Publish(address, Signal.GESTURE, Phase.START, value=encode_value(SECRET), id=1))

    def bundle(self, name: str, address: str) -> list[Message]:
        """A SET inside a bundle."""
        return self._live(name, Bundle((put("/free/other", 1), put(address, SECRET))))

    def bundled_event(self, name: str, address: str) -> list[Message]:
        """A PUBLISH inside a bundle."""
        return self._live(name, Bundle((event(address, SECRET),)))

    def scheduled(self, name: str, address: str) -> list[Message]:
        """A bundle that is due in a moment."""
        person = self._case.join(name)
        person.ask(Subscribe(1, "/**"))
        now_us = time.time_ns() // 1000
        self._do(Bundle((put(address, SECRET), put(f"{address}/end", True)), now_us + 20_000))
        admin = self._case.join("admin")
        admin.send(Subscribe(1, address + "/end"))
        admin.receive_until(lambda message: (address + "/end", True) in told([message]))
        return person.settle()

    def query(self, name: str, address: str) -> list[Message]:
        """An announced signal."""
        self._do(Announce("/announced", (SignalDefinition(address, Signal.PARAM),)))
        return self._case.join(name).ask(Query("/**"))

    def _live(self, name: str, message: Message, asked: Subscribe | None = None) -> list[Message]:
        person = self._case.join(name)
        person.ask(asked or Subscribe(1, "/**"))
        self._do(message)
        return person.settle()

    def _do(self, message: Message) -> None:
        refused = [each for each in self._writer.ask(message) if isinstance(each, Error)]
        self._case.assertEqual(refused, [])


WAYS: dict[str, Callable[[Ways, str, str], list[Message]]] = {
    name: way for name, way in vars(Ways).items() if not name.startswith("_")
}


class WaysOutTests(AccountsTestCase):
    """Nobody gets what is not theirs, whichever way."""

    relay: AccountsRelay

    def start_policy(self, policy: object) -> None:
        """Starts a relay under a policy, with some people."""
        path = self.folder / "app.json"
        path.write_text(json.dumps(policy), "utf-8")
        self.relay = self.start_accounts("--app-config", str(path), *ROOMY)
        self.tokens = {name: self.relay.api.guest(name) for name in ("friend", "reader", "writer")}
        self.people: list[Person] = []
        self.tokens["admin"] = (self.folder / "admin.token").read_text("ascii").strip()

    def join(self, name: str) -> Person:
        """Connects somebody."""
        person = self.sign_in(self.relay, self.tokens[name])
        self.people.append(person)
        return person

    def leave(self) -> None:
        """Ends the sessions of everybody, so that nothing goes to them any more."""
        while self.people:
            self.people.pop().close()

    def test_who_may_not_see_gets_nothing_or_less_by_any_way(self) -> None:
        """Every way out against every kind of rule."""
        self.start_policy(POLICY)
        writer = self.sign_in(self.relay, self.tokens["writer"])
        writer.ask(put("/open/friend", 1), put("/members", {"who": {"friend": 1}}))
        numbers = count(1)
        for rule, who in RULES.items():
            for way, tell in WAYS.items():
                for name in ("admin", "friend", "reader"):
                    address = rule.format(n=f"{next(numbers)}")
                    with self.subTest(rule=rule, way=way, name=name):
                        shown = [value for at, value in told(tell(Ways(self, writer), name, address)) if at == address]
                        sees = name in who.split() or (way == "get" and rule.startswith("/literal"))
                        if way == "query":
                            self.assertEqual(shown, [True] if sees or rule.startswith("/redacted") else [])
                        elif sees:
                            self.assertEqual(shown, [SECRET])
                        elif rule.startswith("/redacted"):
                            self.assertEqual(shown, [REDACTED])
                        else:
                            self.assertEqual(shown, [None] if way == "get" else [])
                    self.leave()
        self.assertEqual(self.join("admin").code(Replay("/**")), 501)

    def test_peer_to_peer_signals_keep_to_the_rules_too(self) -> None:
        """Whoever may not see what is sent to it gets nothing; another one without what it must not read."""
        self.start_policy(POLICY)
        writer = self.join("writer")
        for value, expected in ((None, []), ({"all": False}, [REDACTED]), ({"all": True}, [SECRET])):
            with self.subTest(value=value):
                writer.ask(put("/p2p/friend", value))
                friend, reader = self.join("friend"), self.join("reader")
                reader.ask(Subscribe(1, "/**"))
                address = P2P.format(friend.session)
                writer.ask(event(address, SECRET))
                self.assertEqual([shown for at, shown in told(friend.settle()) if at == address], expected)
                self.assertEqual(told(reader.settle()), [], "it is between two")

    def test_null_reaches_those_who_saw_what_it_ends(self) -> None:
        """And the others do not learn that there was something."""
        self.start_policy(POLICY)
        writer, friend, reader = self.join("writer"), self.join("friend"), self.join("reader")
        for person in (friend, reader):
            person.ask(Subscribe(1, "/owned/**"))
        writer.ask(put("/owned/friend/x", SECRET), Set("/owned/friend/x", NULL))
        self.assertEqual([value for _, value in told(friend.settle())], [SECRET, None])
        self.assertEqual(reader.settle(), [])

    def test_ack_and_error_tell_a_writer_nothing_it_may_not_see(self) -> None:
        """A revision is all, and a wrong one names only numbers."""
        self.start_policy(POLICY)
        self.join("writer").ask(put("/hidden/x", SECRET))
        reader = self.join("reader")
        (answer,) = reader.ask(put("/hidden/x", 1, revision=7), qos=1)
        self.assertIsInstance(answer, Error)
        self.assertNotIn("s3cret", str(answer))
        (answer,) = reader.ask(put("/hidden/x", 1), qos=1)
        self.assertIsInstance(answer, Ack)


class CatchUpTests(AccountsTestCase):
    """Who comes inside a room of the chat is told what is there."""

    def snapshots(self, messages: list[Message]) -> list[str]:
        """Returns the addresses in SNAPSHOTs, in order."""
        return [each.address for message in messages if isinstance(message, Snapshot) for each in message.params]

    def test_newcomer_gets_what_its_subscriptions_match_once(self) -> None:
        """It subscribed before its first presence; nothing of crypto/ comes, and the next beat brings nothing."""
        relay = self.start_accounts("--app-config", "chat", *ROOMY)
        ann, bob, eve = (self.guest(relay, name) for name in ("ann", "bob", "eve"))
        room = "/chat/room/r1"
        ann.ask(
            put(f"{room}/meta", {"isPublic": True}),
            put(f"{room}/bans/zed", {"by": "ann"}),
            put(f"{room}/reactions/m1/x/ann", {"n": 1}),
            put(f"{room}/receipts/ann", {"n": 1}),
            put(f"{room}/crypto/pubkey/ann", {"publicKey": {}}),
        )
        patterns = ("messages", "presence/*", "bans/*", "reactions/**", "receipts/*", "crypto/pubkey/*")
        for person in (bob, eve):
            before = person.ask(*(Subscribe(number, f"{room}/{rest}") for number, rest in enumerate(patterns)))
            self.assertEqual(self.snapshots(before), [])
        entered = bob.ask(put(f"{room}/presence/bob", {"name": "Bob"}))
        self.assertEqual(
            sorted(self.snapshots(entered)),
            [f"{room}/bans/zed", f"{room}/reactions/m1/x/ann", f"{room}/receipts/ann"],
        )
        for _ in range(3):
            self.assertEqual(self.snapshots(bob.ask(put(f"{room}/presence/bob", {"name": "Bob"}))), [])
        self.assertEqual(self.snapshots(eve.settle()), [])
        ann.ask(event(f"{room}/messages", {"text": "hi"}))
        self.assertEqual(told(bob.settle()), [(f"{room}/messages", {"text": "hi", "userId": "ann"})])
        self.assertEqual([at for at, _ in told(eve.settle()) if at.endswith("messages")], [])

    def test_who_is_kicked_and_comes_back_is_caught_up_again(self) -> None:
        """What came in between is among it."""
        relay = self.start_accounts("--app-config", "chat", *ROOMY)
        ann, bob = (self.guest(relay, name) for name in ("ann", "bob"))
        room = "/chat/room/r1"
        ann.ask(put(f"{room}/meta", {"isPublic": True}))
        bob.ask(Subscribe(1, f"{room}/receipts/*"), put(f"{room}/presence/bob", {"name": "Bob"}))
        ann.ask(put(f"{room}/presence/bob", None), put(f"{room}/receipts/ann", {"n": 1}))
        self.assertEqual(told(bob.settle()), [])
        self.assertEqual(
            self.snapshots(bob.ask(put(f"{room}/presence/bob", {"name": "Bob"}))), [f"{room}/receipts/ann"]
        )
