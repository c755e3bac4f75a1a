"""Whose name and whose id it is, passwords, the administrator, and 200 who sign in at once."""

from __future__ import annotations

import json
import re
import sqlite3
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from clasp_relay.wire.messages import Get, Subscribe
from tests.integration.accounts import PASSWORD, WATCHED, AccountsRelay, AccountsTestCase, Api, event, put, told
from tests.integration.process import environment, wait_until

RUST_PASSWORD = "correct horse battery"
RUST_HASH = "$argon2id$v=19$m=19456,t=2,p=1$ne+mJzzhvr7A4JZ+ygfwdg$BWxctXQCItlR15nAM6Pkp7/5DY79dR71q9eTQcw+ffM"
"""Of that password, made with the argon2 crate 0.5 and its defaults, as the Rust relay does."""

RUST_SCHEMA = (
    "CREATE TABLE users (id TEXT PRIMARY KEY, username TEXT UNIQUE NOT NULL, password_hash TEXT NOT NULL,"
    " created_at INTEGER NOT NULL)"
)

MANY = 200
WRONG = {"username": "Alice", "password": "wrong password"}
IDENTITY = "This identity belongs to a registered user or to another guest who is signed in."

MIB = 1024 * 1024
HASHES_MIB = 4 * 19
"""What four hashes at once take."""


class PeopleCase(AccountsTestCase):
    """Makes the files of a Rust relay, and asks what was hashed."""

    def rust_users(self, users: list[tuple[str, str]]) -> Path:
        """Writes a users.db as the Rust relay does; everybody has the same password."""
        path = self.folder / "data" / "users.db"
        path.parent.mkdir()
        with closing(sqlite3.connect(path)) as db, db:
            db.execute(RUST_SCHEMA)
            rows = [(user_id, username, RUST_HASH, 1_700_000_000) for user_id, username in users]
            db.executemany("INSERT INTO users VALUES (?, ?, ?, ?)", rows)
        return path

    def turns(self, relay: AccountsRelay) -> dict[str, Any]:
        """Returns what a watched relay has seen since the last time."""
        before = len(self._reports(relay))
        relay.say("turns")
        wait_until(lambda: len(self._reports(relay)) > before, "the turns are told")
        return dict(json.loads(self._reports(relay)[-1]))

    def _reports(self, relay: AccountsRelay) -> list[str]:
        return [line.removeprefix("turns ") for line in relay.lines if line.startswith("turns {")]


class RustUsersTests(PeopleCase):
    """Those who have an account today keep it."""

    def test_users_of_the_rust_relay_sign_in_and_connect(self) -> None:
        """With their ids; two whose names differ in case only are two; the file goes on being theirs."""
        path = self.rust_users([("u-1", "Alice"), ("u-2", "alice"), ("u-3", "b\u200bob")])
        relay = self.start_accounts("--app-config", "chat")
        for username, user_id in (("Alice", "u-1"), ("alice", "u-2"), ("ALICE", "u-1"), ("b\u200bob", "u-3")):
            with self.subTest(username=username):
                answer = relay.api.call("login", {"username": username, "password": RUST_PASSWORD})
                self.assertEqual((answer.status, answer.body.get("user_id")), (200, user_id))
                person = self.sign_in(relay, answer.body["token"])
                self.assertEqual(person.code(put(f"/chat/user/{user_id}/profile", {"name": username}), 1), 0)
        self.assertEqual(relay.api.call("login", WRONG).status, 401)
        self.assertEqual(relay.api.call("register", {"username": "aLICE", "password": PASSWORD}).status, 409)
        self.assertEqual(relay.api.call("guest", {"user_id": "u-1"}).body["error"], IDENTITY)
        self.assertEqual(relay.stop(), 0)
        with closing(sqlite3.connect(path)) as db:
            kept = db.execute("SELECT id, username, password_hash FROM users ORDER BY id").fetchall()
        self.assertEqual(
            kept, [("u-1", "Alice", RUST_HASH), ("u-2", "alice", RUST_HASH), ("u-3", "b\u200bob", RUST_HASH)]
        )


class IdentityTests(PeopleCase):
    """Nobody becomes somebody else."""

    def test_guest_s_id_is_its_own(self) -> None:
        """Whoever shows one of its tokens has it; without one it is 409, in words that the original app looks for."""
        relay = self.start_accounts("--app-config", "chat")
        api = relay.api
        first = api.guest("ann")
        for path, body in (
            ("guest", {"user_id": "ann"}),
            ("register", {"username": "Ann", "password": PASSWORD, "user_id": "ann"}),
        ):
            with self.subTest(path=path):
                for bearer in (None, api.guest(f"somebody-{path}"), "cpsk_" + 32 * "0"):
                    answer = api.call(path, body, bearer)
                    self.assertEqual((answer.status, answer.body), (409, {"error": IDENTITY}))
        second = api.token("guest", {"user_id": "ann"}, first)
        registered = api.token("register", {"username": "Ann", "password": PASSWORD, "user_id": "ann"}, second)
        self.assertEqual(api.call("me", bearer=registered, method="GET").body["user_id"], "ann")
        self.assertEqual(api.call("guest", {"user_id": "ann"}, first).status, 409, "a user is no guest any more")
        self.assertEqual(api.call("me", bearer=first, method="GET").status, 200, "a new token ends no older one")

    def test_compatible_policy_lets_anybody_be_a_guest_again_but_no_user(self) -> None:
        """The original app asks for a new token at every Connect, and has none to show."""
        api = self.start_accounts("--app-config", "chat-compat").api
        api.guest("ann")
        api.guest("ann")
        api.register("Ann", user_id="uma")
        self.assertEqual(api.call("guest", {"user_id": "uma"}).body, {"error": IDENTITY})

    def test_names_are_one_irrespective_of_case_and_form(self) -> None:
        """A taken name is told in words that cost the original app nothing."""
        api = self.start_accounts("--app-config", "chat").api
        api.register("Zoë")
        for name in ("zoë", "ZOË", "Zoe\u0308", "  Zoë "):
            with self.subTest(name=name):
                answer = api.call("register", {"username": name, "password": PASSWORD})
                self.assertEqual(answer.status, 409)
                self.assertNotIn("identity", answer.body["error"].lower())
                self.assertEqual(api.call("login", {"username": name, "password": PASSWORD}).status, 200)
        for name in ("x", "a\u202eb", "a\nb", 33 * "x"):
            with self.subTest(name=name):
                self.assertEqual(api.call("register", {"username": name, "password": PASSWORD}).status, 400)

    def test_success_clears_the_counters_of_that_name_only(self) -> None:
        """Signing in with an account of one's own buys no more guesses at another's."""
        api = self.start_accounts("--app-config", "chat").api
        for name in ("Alice", "Eve"):
            api.register(name)
        statuses = []
        for _ in range(3):
            statuses += [api.call("login", WRONG).status for _ in range(2)]
            self.assertEqual(api.call("login", {"username": "Eve", "password": PASSWORD}).status, 200)
        self.assertEqual(statuses, [401] * 5 + [429])

    def test_unknown_name_costs_the_relay_what_a_wrong_password_does(self) -> None:
        """One hash is verified in both cases, and the answers are the same."""
        self.rust_users([("u-1", "Alice")])
        relay = self.start_accounts("--app-config", "chat", command=WATCHED)
        bodies = []
        for name in ("Alice", "Nobody"):
            self.turns(relay)
            answer = relay.api.call("login", {"username": name, "password": "wrong password"})
            bodies.append((answer.status, answer.body))
            self.assertEqual(self.turns(relay)["hashes"], 1)
        self.assertEqual(bodies[0], bodies[1])
        self.assertEqual(bodies[0][0], 401)


class AdminTests(PeopleCase):
    """The administrator's token."""

    def test_admin_token_is_made_once_and_may_everything_for_ever(self) -> None:
        """Its file is its owner's only; rules, visibility and limits of time are not for it."""
        relay = self.start_accounts("--app-config", "chat", "--admin-token", "admin.token", command=WATCHED)
        file = self.folder / "admin.token"
        token = file.read_text("ascii").strip()
        self.assertRegex(token, r"^cpsk_[0-9a-f]{32}$")
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        me = relay.api.call("me", bearer=token, method="GET")
        self.assertEqual((me.body["scopes"], me.body["expires_at"]), (["admin:/**"], None))
        self.assertEqual(relay.api.call("logout", None, token).status, 401)
        ann = self.guest(relay, "ann")
        for address in ("/chat/room/r1/meta", "/chat/user/ann/friends/bob"):
            self.assertEqual(ann.code(put(address, {"passwordHash": "h"}), 1), 0)
        before = len(relay.lines)
        relay.say(f"clock {10 * 366 * 86_400}")
        wait_until(lambda: "moved\n" in relay.lines[before:], "ten years pass")
        admin = self.admin(relay)
        seen = dict(told(admin.ask(Subscribe(1, "/**"))))
        self.assertEqual(seen["/chat/user/ann/friends/bob"], {"passwordHash": "h"})
        self.assertEqual(seen["/chat/room/r1/meta"], {"passwordHash": "h", "creatorId": "ann"})
        self.assertEqual(admin.code(put("/chat/user/ann/profile", {"name": "x"}), 1), 0)
        self.assertEqual(admin.code(put("/any/where", 1), 1), 0)
        self.assertNotIn(token, relay.log)
        relay.stop()
        relay = self.start_accounts("--admin-token", "admin.token")
        self.assertEqual(file.read_text("ascii").strip(), token)
        self.admin(relay)
        relay.stop()
        relay = self.start_accounts()
        self.assertEqual(relay.api.call("me", bearer=token, method="GET").status, 401, "no file, no administrator")

    def test_banned_user_is_stopped_by_the_server_at_once(self) -> None:
        """It neither writes nor hears any more, and cannot come back."""
        relay = self.start_accounts("--app-config", "chat", "--rate-limit", "0")
        ann, ben = self.guest(relay, "ann"), self.guest(relay, "ben")
        room = "/chat/room/r1"
        ann.ask(put(f"{room}/meta", {"isPublic": True}))
        ben.ask(Subscribe(1, f"{room}/messages"), put(f"{room}/presence/ben", {"name": "Ben"}))
        self.assertEqual(ben.code(event(f"{room}/messages", {"text": "before"})), 0)
        self.assertEqual(ann.code(put(f"{room}/bans/ben", {"bannedBy": "ann"}), 1), 0)
        ann.ask(event(f"{room}/messages", {"text": "without him"}))
        self.assertEqual(told(ben.settle()), [])
        for message in (
            event(f"{room}/messages", {"text": "after"}),
            put(f"{room}/presence/ben", {"name": "Ben"}),
            put(f"{room}/typing/ben", {"name": "Ben"}),
            put(f"{room}/crypto/pubkey/ben", {"publicKey": {}}),
            event(f"{room}/crypto/keyex/ann", {"fromId": "ben"}),
            put(f"{room}/reactions/m/x/ben", {"n": 1}),
            put(f"{room}/bans/ben", None),
        ):
            with self.subTest(message=message):
                self.assertEqual(ben.code(message, 1), 403)
        self.assertEqual(ann.code(put(f"{room}/bans/ben", None), 1), 0)
        self.assertEqual(ben.code(put(f"{room}/presence/ben", {"name": "Ben"}), 1), 0)

    def test_guesses_at_a_room_s_password_are_limited(self) -> None:
        """Five a minute for each user and room; beyond it 429, even with the right one."""
        relay = self.start_accounts("--app-config", "chat", "--rate-limit", "0")
        ann, ben, eve = (self.guest(relay, name) for name in ("ann", "ben", "eve"))
        room = "/chat/room/r1"
        ann.ask(put(f"{room}/meta", {"isPublic": True, "passwordHash": "h", "passwordSalt": "s"}))
        shown = {"isPublic": True, "passwordSalt": "s", "creatorId": "ann"}
        self.assertEqual(told(ben.ask(Get(f"{room}/meta"))), [(f"{room}/meta", shown)])
        proof = f"{room}/crypto/proof/ben"
        self.assertEqual([ben.code(put(proof, {"hash": str(n)}), 1) for n in range(6)], [403] * 5 + [429])
        self.assertEqual(ben.code(put(proof, {"hash": "h"}), 1), 429)
        self.assertEqual(eve.code(put(f"{room}/crypto/proof/eve", {"hash": "h"}), 1), 0)
        self.assertEqual(eve.code(put(f"{room}/presence/eve", {"name": "E"}), 1), 0)
        self.assertEqual(ben.code(put(f"{room}/presence/ben", {"name": "B"}), 1), 403)


class ManyTests(PeopleCase):
    """Everybody signs in at the same time, as after a restart."""

    def test_many_who_sign_in_at_once_do_not_stop_the_conversation(self) -> None:
        """Hashes are made on threads of their own, four at once; all get in, and memory is bounded by that.

        They come from several addresses, as people do: of one, eight may wait for their hash.
        """
        self.rust_users([(f"u-{number}", f"user {number}") for number in range(MANY)])
        relay = self.start_accounts("--app-config", "none", "--rate-limit", "0", command=WATCHED)
        ann, ben = self.guest(relay, "ann"), self.guest(relay, "ben")
        ben.ask(Subscribe(1, "/talk/**"))
        self.turns(relay)
        before_bytes = relay.rss_bytes

        def login(number: int) -> int:
            api = Api(relay.auth_port, f"127.0.1.{1 + number // 8}")
            return api.call("login", {"username": f"User {number}", "password": RUST_PASSWORD}).status

        exchanged = highest_bytes = 0
        with ThreadPoolExecutor(MANY) as pool:
            calls = [pool.submit(login, number) for number in range(MANY)]
            while not all(call.done() for call in calls):
                ann.send(event("/talk/now", exchanged))
                (heard,) = told([ben.receive_any()])
                self.assertEqual(heard, ("/talk/now", exchanged))
                exchanged += 1
                highest_bytes = max(highest_bytes, relay.rss_bytes)
                time.sleep(0.002)
        self.assertEqual([call.result() for call in calls], [200] * MANY)
        seen = self.turns(relay)
        self.assertEqual(seen["hashes"], MANY)
        self.assertLessEqual(seen["most_hashes_at_once"], 4)
        self.assertNotIn(seen["loop_thread"], seen["threads"])
        self.assertGreater(exchanged, 20, "messages while the others signed in")
        self.assertLess((highest_bytes - before_bytes) / MIB, 2 * HASHES_MIB)


class CheckConfigTests(PeopleCase):
    """What an operator is told about a policy."""

    def check(self, *arguments: str) -> tuple[int, str, str]:
        """Runs check-config; returns status, output and errors."""
        command = [sys.executable, "-c", "from clasp_relay.cli import main; main()", "check-config", *arguments]
        result = subprocess.run(
            command, cwd=self.folder, env=environment(), capture_output=True, text=True, timeout=60, check=False
        )
        return result.returncode, result.stdout, result.stderr

    def test_operator_learns_who_may_do_what_with_the_state_that_is_there(self) -> None:
        """At every depth of a group, by which rule, and why."""
        relay = self.start_accounts("--app-config", "chat")
        self.assertEqual(self.guest(relay, "ann").code(put("/chat/registry/ns-meta/a/b/c", {"n": 1}), 1), 0)
        relay.stop()
        about = ("--state", "data/state.json", "--value", "{}")
        for user, address, verdict in (
            ("ann", "/chat/registry/ns-meta/a/b/c", "ann may write"),
            ("eve", "/chat/registry/ns-meta/a/b/c", "eve may not write"),
            ("eve", "/chat/registry/ns-meta/a/b/c/__auth", "eve may not write"),
            ("eve", "/chat/registry/ns-meta/a/b/d", "eve may write"),
        ):
            with self.subTest(user=user, address=address):
                status, output, errors = self.check("chat", "--as", user, "--write", address, *about)
                self.assertEqual((status, errors), (0, ""))
                self.assertIn(f"{verdict} {address}", output)
                self.assertTrue(re.search(r"^rule: write_rules\[\d+\] /chat/registry/ns-meta/", output, re.MULTILINE))

    def test_relay_and_check_refuse_the_same_files_in_the_same_words(self) -> None:
        """One line, with the key's path."""
        (self.folder / "app.json").write_text('{"write_rules": [{"path": "/a", "check": []}]}', "utf-8")
        status, output, errors = self.check("app.json")
        self.assertEqual((status, output), (1, ""))
        self.assertIn("app.json: write_rules[0].check", errors)
        self.assertEqual(errors.count("\n"), 1)
        error = self.assertRaises(AssertionError, self.start_accounts, "--app-config", "app.json")
        self.assertIn("app.json: write_rules[0].check", str(error))
