"""Tokens, restarts and clocks that are set, with a relay that runs."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from typing import Any

from clasp_relay.wire.messages import Ack, Bundle, Error, Get, Hello, Subscribe
from tests.integration.accounts import WATCHED, AccountsRelay, AccountsTestCase, Person, event, put, told
from tests.integration.process import wait_until
from tests.integration.raw import Closed, RawClient

DAY_S = 86_400


class TimeCase(AccountsTestCase):
    """Asks who is let in, and how sessions end."""

    def refusal(self, relay: AccountsRelay, token: str) -> tuple[int, Closed]:
        """Says HELLO with a token that lets nobody in; returns the ERROR's code and the close."""
        client = RawClient(relay.port)
        self.addCleanup(client.close)
        client.send(Hello(1, 0xF8, "late", token))
        messages, closed = client.end()
        (error,) = messages
        assert isinstance(error, Error), error
        self.assertEqual(error.message, closed.reason)
        return error.error, closed

    def ends(self, person: Person) -> tuple[int, str]:
        """Waits until a session is ended; returns the ERROR's code and the close reason."""
        messages, closed = person.end()
        self.assertEqual(closed.code, 1008)
        (error,) = [each for each in messages if isinstance(each, Error)]
        return error.error, closed.reason

    def move_clock(self, relay: AccountsRelay, seconds: float) -> None:
        """Sets the clock of a relay's machine, as that relay sees it."""
        before = relay.lines.count("moved\n")
        relay.say(f"clock {seconds}")
        wait_until(lambda: relay.lines.count("moved\n") > before, "the clock is moved")


class RestartTests(TimeCase):
    """What a restart changes: nothing."""

    def test_tokens_are_valid_after_a_restart_and_ended_ones_are_not(self) -> None:
        """Revoked stays revoked, expired expired; in the file there are digests only."""
        relay = self.start_accounts("--token-ttl", "86400")
        api = relay.api
        kept, revoked, old = api.guest("kept"), api.guest("revoked"), api.guest("old")
        user = api.register("Uma", user_id="uma")
        self.assertEqual(api.call("logout", None, revoked).status, 200)
        self.assertEqual(relay.stop(), 0)
        with closing(sqlite3.connect(self.folder / "data" / "users.db")) as db, db:
            db.execute("UPDATE tokens SET expires_at = ? WHERE subject = 'old'", (int(time.time()) - 10,))
        for token in (kept, revoked, old, user):
            for file in (self.folder / "data").rglob("*"):
                if file.is_file():
                    self.assertNotIn(token.encode(), file.read_bytes())
        relay = self.start_accounts()
        for token, user_id in ((kept, "kept"), (user, "uma")):
            self.assertEqual(relay.api.call("me", bearer=token, method="GET").body["user_id"], user_id)
            self.sign_in(relay, token)
        self.assertEqual(self.refusal(relay, revoked)[0], 300)
        self.assertEqual(self.refusal(relay, old)[0], 302)
        self.assertEqual(relay.api.call("me", bearer=old, method="GET").status, 401)
        self.assertEqual(relay.api.call("me", bearer=revoked, method="GET").status, 401)

    def test_last_message_of_a_killed_relay_leaves_its_users_signed_in(self) -> None:
        """A token is on disk before it is given out."""
        relay = self.start_accounts()
        token = relay.api.guest("ann")
        relay.kill()
        self.sign_in(self.start_accounts(), token)

    def test_room_keeps_its_creator_and_its_rules(self) -> None:
        """Who wrote what is kept with the state, so the policy decides as before."""
        relay = self.start_accounts("--app-config", "chat")
        tokens = {name: relay.api.guest(name) for name in ("ann", "bob")}
        meta = "/chat/room/r1/meta"
        self.assertEqual(self.sign_in(relay, tokens["ann"]).code(put(meta, {"name": "R"}), 1), 0)
        self.assertEqual(self.sign_in(relay, tokens["ann"]).code(put("/chat/room/r2/meta", {"name": "R"}), 1), 0)
        self.assertEqual(self.sign_in(relay, tokens["ann"]).code(put("/chat/room/r2/meta", None), 1), 0)
        self.assertEqual(relay.stop(), 0)
        relay = self.start_accounts("--app-config", "chat")
        ann, bob = (self.sign_in(relay, tokens[name]) for name in ("ann", "bob"))
        for room in ("r1", "r2"):
            self.assertEqual(bob.code(put(f"/chat/room/{room}/meta", {"name": "mine"}), 1), 403)
            self.assertEqual(ann.code(put(f"/chat/room/{room}/meta", {"name": "New"}), 1), 0)

    def test_what_a_guest_wrote_for_itself_ends_when_it_has_been_away_for_long(self) -> None:
        """At the start, by a null; accounts, other guests and other addresses keep theirs."""
        relay = self.start_accounts("--app-config", "chat")
        names = ("gone", "here", "uma")
        tokens = [relay.api.guest("gone"), relay.api.guest("here"), relay.api.register("Uma", user_id="uma")]
        for name, token in zip(names, tokens, strict=True):
            person = self.sign_in(relay, token)
            self.assertEqual(person.code(put(f"/chat/user/{name}/profile", {"name": name}), 1), 0)
            self.assertEqual(person.code(put(f"/chat/room/{name}/meta", {"name": name}), 1), 0)
        self.assertEqual(relay.stop(), 0)
        with closing(sqlite3.connect(self.folder / "data" / "users.db")) as db, db:
            db.execute(
                "UPDATE tokens SET created_at = created_at - :age, expires_at = expires_at - :age,"
                " first_expires_at = first_expires_at - :age WHERE subject IN ('gone', 'uma')",
                {"age": 91 * DAY_S},
            )
        path = self.folder / "data" / "state.json"
        state = json.loads(path.read_text("utf-8"))
        for param in state["params"]:
            param["timestamp"] -= 91 * DAY_S * 1_000_000
        path.write_text(json.dumps(state), "utf-8")
        relay = self.start_accounts("--app-config", "chat")
        wait_until(lambda: "1 params ended that guests had written for themselves" in relay.log, "the profile ends")
        here = self.sign_in(relay, tokens[1])
        shown = dict(told(here.ask(*(Get(f"/chat/user/{name}/profile") for name in names))))
        self.assertEqual(
            [shown[f"/chat/user/{name}/profile"] for name in names], [None, {"name": "here"}, {"name": "uma"}]
        )
        self.assertEqual(len(told(here.ask(*(Get(f"/chat/room/{name}/meta") for name in names)))), 3)
        (ack,) = self.sign_in(relay, relay.api.guest("gone")).ask(
            put("/chat/user/gone/profile", {"name": "new"}), qos=1
        )
        self.assertEqual((type(ack), getattr(ack, "revision", None)), (Ack, 3))


class ExpiryTests(TimeCase):
    """A session ends with its token."""

    def test_session_ends_when_its_token_expires(self) -> None:
        """As --token-ttl says; ERROR 302 and a close that says it."""
        relay = self.start_accounts("--token-ttl", "5")
        token = relay.api.guest("ann")
        expires_at = relay.api.call("me", bearer=token, method="GET").body["expires_at"]
        self.assertLessEqual(expires_at, time.time() + 6)
        person = self.sign_in(relay, token)
        self.assertEqual(self.ends(person), (302, "the token has expired: sign in again"))
        self.assertGreaterEqual(time.time(), expires_at)
        self.assertEqual(self.refusal(relay, token)[0], 302)

    def test_expiry_holds_when_the_clock_is_set_forward(self) -> None:
        """What has expired by the new time ends within a second; what is given out then is valid."""
        relay = self.start_accounts("--token-ttl", f"{DAY_S}", command=WATCHED)
        old = relay.api.guest("old")
        person = self.sign_in(relay, old)
        self.move_clock(relay, DAY_S + 1)
        self.assertEqual(self.ends(person), (302, "the token has expired: sign in again"))
        self.assertEqual(self.refusal(relay, old)[0], 302)
        young = self.sign_in(relay, relay.api.guest("young"))
        self.assertEqual(young.settle(), [])

    def test_expiry_holds_when_the_clock_is_set_back(self) -> None:
        """A token that is given out afterwards ends in its time, and not hours later."""
        relay = self.start_accounts("--token-ttl", "5", command=WATCHED)
        self.guest(relay, "before")
        self.move_clock(relay, -DAY_S)
        after = self.guest(relay, "after")
        self.assertEqual(self.ends(after), (302, "the token has expired: sign in again"))

    def test_tokens_given_out_before_the_clock_was_set_go_on(self) -> None:
        """A machine without a battery begins in the past, until it has reached the network."""
        relay = self.start_accounts("--token-ttl", f"{DAY_S}", command=WATCHED)
        past_s = time.time() - 365 * DAY_S
        self.move_clock(relay, -past_s)
        token = relay.api.guest("ann")
        person = self.sign_in(relay, token)
        self.move_clock(relay, past_s)
        time.sleep(1.5)
        self.assertEqual(person.settle(), [])
        expires_s = relay.api.call("me", bearer=token, method="GET").body["expires_at"]
        self.assertLess(abs(expires_s - time.time() - DAY_S), 60)
        self.assertEqual(relay.stop(), 0)
        self.sign_in(self.start_accounts(), token)

    def test_life_times_hold_when_the_clock_is_set_back(self) -> None:
        """A param ends in its time."""
        relay = self.start_accounts("--app-config", "none", command=WATCHED)
        person = self.guest(relay, "ann")
        self.move_clock(relay, -DAY_S)
        person.ask(Subscribe(1, "/x"), put("/x", 1, ttl=2))
        person.receive_until(lambda message: told([message]) == [("/x", None)])


class RevocationTests(TimeCase):
    """A session ends with its token, when it is revoked."""

    def test_logout_ends_all_sessions_of_the_token(self) -> None:
        """Those of another token of the same user go on."""
        relay = self.start_accounts()
        first = relay.api.register("Uma")
        second = relay.api.token("login", {"username": "uma", "password": "correct horse"})
        tabs = [self.sign_in(relay, first) for _ in range(3)]
        other = self.sign_in(relay, second)
        self.assertEqual(relay.api.call("logout", None, first).status, 200)
        for tab in tabs:
            self.assertEqual(self.ends(tab), (302, "the token was revoked: sign in again"))
        self.assertEqual(other.settle(), [])
        self.assertEqual(self.refusal(relay, first)[0], 300)

    def test_new_password_ends_all_other_sessions(self) -> None:
        """Whoever has stolen a token is out; who changed it stays."""
        relay = self.start_accounts()
        mine = relay.api.register("Uma")
        theirs = relay.api.token("login", {"username": "uma", "password": "correct horse"})
        stays, goes = self.sign_in(relay, mine), self.sign_in(relay, theirs)
        change = {"old": "correct horse", "new": "battery staple"}
        self.assertEqual(relay.api.call("password", change, mine).status, 200)
        self.assertEqual(self.ends(goes)[0], 302)
        self.assertEqual(stays.settle(), [])
        self.assertEqual(relay.api.call("login", {"username": "Uma", "password": "correct horse"}).status, 401)

    def test_refresh_gives_another_token_and_ends_none(self) -> None:
        """A client changes over without losing its connection."""
        relay = self.start_accounts()
        first = relay.api.guest("ann")
        person = self.sign_in(relay, first)
        second = relay.api.token("refresh", None, first)
        self.assertNotEqual(first, second)
        self.assertEqual(person.settle(), [])
        for token in (first, second):
            self.sign_in(relay, token)

    def test_sessions_pass_to_the_token_that_replaces_theirs(self) -> None:
        """The old token ends a minute after the new one is used, its sessions do not; they end with the new one."""
        relay = self.start_accounts(command=WATCHED)
        first = relay.api.guest("ann")
        before = self.sign_in(relay, first)
        second = relay.api.token("refresh", None, first)
        since = self.sign_in(relay, first)
        self.move_clock(relay, 3600)
        self.sign_in(relay, first)
        user = self.sign_in(relay, second)
        self.move_clock(relay, 3600)
        self.assertEqual(self.refusal(relay, first)[0], 302)
        time.sleep(1.5)
        for person in (before, since, user):
            self.assertEqual(person.settle(), [])
        self.assertEqual(relay.api.call("logout", None, second).status, 200)
        for person in (before, since, user):
            self.assertEqual(self.ends(person), (302, "the token was revoked: sign in again"))

    def test_what_a_revoked_session_planned_does_not_happen(self) -> None:
        """A bundle for later ends with its token."""
        relay = self.start_accounts("--app-config", "none", "--admin-token", "admin.token")
        token = relay.api.guest("ann")
        person = self.sign_in(relay, token)
        self.assertEqual(person.code(Bundle((put("/later", 1),), time.time_ns() // 1000 + 500_000), 1), 0)
        self.assertEqual(relay.api.call("logout", None, token).status, 200)
        self.ends(person)
        admin = self.admin(relay)
        time.sleep(0.7)
        self.assertEqual(told(admin.ask(Get("/later"))), [("/later", None)])


class PresenceTests(TimeCase):
    """Graces and ends, on a clock that is moved."""

    def test_second_tab_keeps_a_user_inside(self) -> None:
        """A null of one tab ends the presence of both; in the grace the next beat of the other one begins it anew."""
        relay = self.start_accounts("--app-config", "chat", command=WATCHED)
        ann = self.guest(relay, "ann")
        token = relay.api.guest("bob")
        first, second = self.sign_in(relay, token), self.sign_in(relay, token)
        room = "/chat/room/r1"
        ann.ask(put(f"{room}/meta", {"isPublic": True}))
        beat = put(f"{room}/presence/bob", {"name": "Bob"})
        for tab in (first, second):
            tab.ask(Subscribe(1, f"{room}/messages"), beat)
        first.ask(put(f"{room}/presence/bob", None))
        first.close()

        def hears(text: str) -> bool:
            ann.ask(event(f"{room}/messages", {"text": text}))
            heard = told(second.settle())
            self.assertIn(heard, ([], [(f"{room}/messages", {"text": text, "userId": "ann"})]))
            return bool(heard)

        self.assertTrue(hears("in the grace"))
        second.ask(beat)
        self.move_clock(relay, 40)
        self.assertTrue(hears("after the beat"))
        second.ask(put(f"{room}/presence/bob", None))
        self.assertTrue(hears("in the grace again"))
        self.move_clock(relay, 40)
        self.assertFalse(hears("gone, though the session lives"))

    def test_ghost_goes(self) -> None:
        """Presence without a beat ends after a minute, and everybody is told."""
        relay = self.start_accounts("--app-config", "chat", command=WATCHED)
        ann, bob = self.guest(relay, "ann"), self.guest(relay, "bob")
        at = "/chat/room/r1/presence/bob"
        ann.ask(put("/chat/room/r1/meta", {"isPublic": True}), Subscribe(1, "/chat/room/r1/presence/*"))
        bob.ask(put(at, {"name": "Bob"}))
        bob.reset()
        self.move_clock(relay, 61)
        shown: list[Any] = told(ann.receive_until(lambda message: told([message]) == [(at, None)]))
        self.assertEqual(shown, [(at, {"name": "Bob", "account": False}), (at, None)])
