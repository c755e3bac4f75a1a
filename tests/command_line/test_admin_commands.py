"""``clasp-relay admin``: what it prints, stores and refuses."""

from __future__ import annotations

import json
import time
from argparse import ArgumentTypeError
from pathlib import Path

from clasp_relay.access.names import name_keys
from clasp_relay.access.tokens import digest_of
from clasp_relay.command_line.admin_commands import _day, run
from clasp_relay.storage.audit import AuditEntry
from clasp_relay.storage.users import Claim
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.command_line.commands import CommandTestCase
from tests.storage.test_users_sqlite import token, user


class AdminCommandTests(CommandTestCase):
    """Commands on a folder with the users Alice (u1) and Bob (u2)."""

    command = staticmethod(run)

    def setUp(self) -> None:
        """Makes it."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        super().setUp()
        self.users = SqliteUsers(self.folder / "users.db", name_keys)
        self.addCleanup(self.users.close)
        now_s = int(time.time())
        for user_id, name in (("u1", "Alice"), ("u2", "Bob")):
            record = token(name, user_id, created_s=now_s)
            self.users.add_user(user(user_id, name), name_keys(name), record, Claim(None, False, now_s))

    def test_administrators_are_granted_listed_and_revoked(self) -> None:
        """By name, irrespective of case, or by id."""
        self.ask("grant", "alice")
        self.ask("grant", "u2")
        self.ask("disable", "Bob")
        lines = self.ask("list").splitlines()
        self.assertEqual(
            [line.split() for line in lines], [["ID", "NAME", "DISABLED"], ["u1", "Alice", "no"], ["u2", "Bob", "yes"]]
        )
        self.ask("revoke", "Alice")
        shown = json.loads(self.ask("list", "--json"))
        self.assertEqual(shown, [{"user_id": "u2", "username": "Bob", "disabled": True}])
        self.assertIn("is no administrator", self.refusal("revoke", "Alice"))

    def test_account_is_disabled_and_enabled(self) -> None:
        """Its tokens are revoked."""
        self.ask("disable", "Alice")
        self.assertEqual([each.subject for each in self.users.valid_tokens(0)], ["u2"])
        self.ask("enable", "Alice")
        self.assertEqual(self.users.administration.decided().disabled, frozenset())
        self.assertIn("is not disabled", self.refusal("enable", "Alice"))

    def test_person_is_deleted(self) -> None:
        """With or without what they said, which must be said; a guest by the id, and a name comes before an id."""
        record = token("guest", "Bob", created_s=int(time.time()), guest=True)
        claim = Claim(None, False, int(time.time()))
        self.users.add_guest_token(record, name_keys("Somebody"), claim)
        self.ask("delete", "Bob", "--messages", "erase")
        self.assertIn("Bob (u2) is deleted", self.stderr.getvalue())
        self.ask("delete", "Bob", "--messages", "keep")
        self.ask("delete", "u1", "--messages", "keep")
        found = sorted(self.users.administration.deletions())
        self.assertEqual(found, [("Bob", False), ("u1", False), ("u2", True)])
        self.assertEqual(self.users.administration.counts(), (0, 0))
        self.assertIn("there is no user or guest 'Bob'", self.refusal("delete", "Bob", "--messages", "erase"))
        self.assertIn("--messages", self.refusal("delete", "Alice"))
        rows = [json.loads(line) for line in self.ask("audit", "export").splitlines()]
        self.assertEqual(
            [(row["action"], row["target"], row["detail"]) for row in rows],
            [
                ("admin.delete", each, {"messages": choice})
                for each, choice in (("u2", "erase"), ("Bob", "keep"), ("u1", "keep"))
            ],
        )

    def test_link_for_a_new_password_is_printed_alone(self) -> None:
        """And kept as a digest."""
        path = self.ask("reset-password", "Alice").removesuffix("\n")
        self.assertRegex(path, r"^/console/reset#[0-9a-f]{32}$")
        secret = path.partition("#")[2]
        found = self.users.administration.reset_of(digest_of(secret), int(time.time()))
        self.assertEqual(found.user_id, "u1")
        self.assertNotIn(secret.encode(), (self.folder / "users.db").read_bytes())

    def test_nobody_is_found(self) -> None:
        """Whatever is asked."""
        for verb in ("grant", "revoke", "disable", "enable", "reset-password"):
            with self.subTest(verb=verb):
                self.assertIn(f"admin {verb}: there is no user 'Carol'", self.refusal(verb, "Carol"))

    def test_audit_log_has_every_command_and_is_exported(self) -> None:
        """As JSON lines, the oldest first; by day, too."""
        for verb in ("grant", "disable", "enable", "reset-password", "revoke"):
            self.ask(verb, "Alice")
        rows = [json.loads(line) for line in self.ask("audit", "export").splitlines()]
        actions = ["admin.grant", "admin.disable", "admin.enable", "admin.reset_password", "admin.revoke"]
        self.assertEqual([row["action"] for row in rows], actions)
        self.assertEqual(
            {(row["actor"], row["actor_name"], row["target"]) for row in rows}, {("", "command line", "u1")}
        )
        self.users.audit.add([AuditEntry(_day("2026-01-31") + hour * 3_600, "x") for hour in (-1, 0, 23, 24)])
        some = self.ask("audit", "export", "--from", "2026-01-31", "--to", "2026-02-01").splitlines()
        self.assertEqual([json.loads(line)["at"] - _day("2026-01-31") for line in some], [0, 23 * 3_600])

    def test_text_that_is_no_day_is_refused(self) -> None:
        """With what is expected."""
        self.assertEqual(_day("1970-01-02"), 86_400)
        for text in ("", "today", "2026-1-1", "2026-02-30", "2026-01-01T00:00"):
            with self.subTest(text), self.assertRaises(ArgumentTypeError) as caught:
                _day(text)
            self.assertIn(f"got {text!r}, expected a day", str(caught.exception))
