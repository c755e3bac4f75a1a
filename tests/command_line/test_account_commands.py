"""``clasp-relay token`` and ``invite``: what they print, store and refuse."""

import json
import os
import sqlite3
import time
from argparse import ArgumentTypeError
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.names import name_keys
from clasp_relay.access.tokens import digest_of
from clasp_relay.command_line.account_commands import parse_duration, run
from clasp_relay.storage.users import InviteGone
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.command_line.commands import CommandTestCase


class DurationTests(SynchronousTestCase):
    """How long something is valid."""

    def test_duration_is_a_number_and_a_unit(self) -> None:
        """Or never."""
        durations = {"90s": 90, "15m": 900, "12h": 43_200, "30d": 2_592_000, "never": None, "0": None}
        self.assertEqual({text: parse_duration(text) for text in durations}, durations)

    def test_anything_else_is_refused(self) -> None:
        """With the text and what is expected."""
        for text in ("", "90", "-1s", "1.5h", "0s", "1w", "9999999999s", "1 d"):
            with self.subTest(text), self.assertRaises(ArgumentTypeError) as caught:
                parse_duration(text)
            self.assertIn(f"got {text!r}, expected a duration such as 90s", str(caught.exception))


class CommandTests(CommandTestCase):
    """Commands on a folder that is made."""

    command = staticmethod(run)

    def setUp(self) -> None:
        """No folder yet, and an environment that sets nothing."""
        self.folder = Path(self.mktemp())
        super().setUp()

    def users(self) -> SqliteUsers:
        """Opens what the commands have written."""
        users = SqliteUsers(self.folder / "users.db", name_keys)
        self.addCleanup(users.close)
        return users

    def test_damaged_file_is_told_in_one_line(self) -> None:
        """A page of the table that a command reads is overwritten."""
        self.ask("token", "create", "--scopes", "read:/a/**")
        path = self.folder / "users.db"
        with closing(sqlite3.connect(path)) as database:
            (page,) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'device_tokens'").fetchone()
        with path.open("r+b") as file:
            file.seek((page - 1) * 4096)
            file.write(b"\xff" * 4096)
        told = self.refusal("token", "list")
        self.assertIn(f"{path}: the users' database cannot be used (database disk image is malformed); ", told)

    def test_token_is_printed_alone_and_kept_as_a_digest(self) -> None:
        """What it stands for is said on stderr."""
        before_s = int(time.time())
        printed = self.ask(
            "token", "create", "--scopes", "read:/a/**,write:/a/*", "--name", "Desk 1", "--expires", "30d"
        )
        token = printed.removesuffix("\n")
        self.assertRegex(token, r"^cpsk_[0-9a-f]{32}$")
        (device,) = self.users().devices.all()
        self.assertEqual((device.digest, device.name), (digest_of(token), "Desk 1"))
        self.assertEqual(device.scopes, ("read:/a/**", "write:/a/*"))
        assert device.expires_s is not None
        self.assertLessEqual(abs(device.expires_s - before_s - 30 * 86_400), 60)
        self.assertNotIn(token.encode(), (self.folder / "users.db").read_bytes())
        self.assertIn(f"device token {device.id} made: subject clasp.device.{device.id}", self.stderr.getvalue())

    def test_what_was_made_and_revoked_is_in_the_audit_log(self) -> None:
        """Without its secret."""
        self.ask("token", "create", "--scopes", "read:/a", "--name", "Desk")
        invite = self.ask("invite", "create").strip()
        hook = self.ask("hook", "create", "--address", "/chat/room/r/messages").strip()
        users = self.users()
        for noun, made in (
            ("token", users.devices.all()[0].id),
            ("invite", users.invites(0)[0].id),
            ("hook", users.hooks.all()[0].id),
        ):
            self.ask(noun, "revoke", made)
        rows = [row.as_json() for row in users.audit.after(0, 10)]
        verbs = ("create", "revoke")
        expected = [f"{noun}.{verb}" for verb in verbs for noun in ("token", "invite", "hook")]
        self.assertEqual([row["action"] for row in rows], expected)
        self.assertEqual([row["target"] for row in rows[:3]], [row["target"] for row in rows[3:]])
        self.assertNotIn(invite, str(rows))
        self.assertNotIn(hook, str(rows))

    def test_tokens_are_listed_one_a_line_and_as_json(self) -> None:
        """Until they are revoked."""
        self.ask("token", "create", "--scopes", "read:/a", "--subject", "desk", "--name", "Desk 1")
        self.ask("token", "create", "--scopes", "admin:/**")
        first, second = sorted(json.loads(self.ask("token", "list", "--json")), key=lambda each: -len(each["name"]))
        self.assertEqual((first["name"], first["subject"], first["expires_at"]), ("Desk 1", "desk", None))
        self.assertEqual((second["name"], second["scopes"]), ("", ["admin:/**"]))
        head, *lines = (line.split() for line in self.ask("token", "list").splitlines())
        self.assertEqual(head, ["ID", "NAME", "SUBJECT", "SCOPES", "EXPIRES"])
        expected = [
            [first["id"], "Desk", "1", "desk", "read:/a", "never"],
            [second["id"], "-", f"clasp.device.{second['id']}", "admin:/**", "never"],
        ]
        self.assertEqual(sorted(lines), sorted(expected))
        self.assertEqual(self.ask("token", "revoke", first["id"]), "")
        self.assertEqual([each["id"] for each in json.loads(self.ask("token", "list", "--json"))], [second["id"]])

    def test_what_is_wrong_is_said_in_one_line(self) -> None:
        """And nothing is made."""
        cases: list[tuple[tuple[str, ...], str]] = [
            (("token", "make"), "token: argument verb: invalid choice: 'make'"),
            (("token", "create"), "token create: the following arguments are required: --scopes"),
            (("token", "create", "--scopes", "reed:/a"), "'reed:/a': a scope is action:pattern"),
            (("token", "create", "--scopes", "read:/a", "--expires", "1w"), "got '1w', expected a duration"),
            (("token", "create", "--scopes", "read:/a", "--name", "a\nb"), "none of them a control character"),
            (("token", "create", "--scopes", "read:/a", "--subject", "a/b"), "--subject: A user_id has 1 to 64"),
            (("token", "revoke", "none"), "token revoke: no device token has the id 'none'; see clasp-relay token"),
            (("hook", "create", "--address", "/a"), "--address: messages of the chat go to /chat/room/ROOM/messages"),
            (("hook", "create", "--address", "a"), "--address: "),
            (("hook", "create", "--address", "/chat/room/r/messages", "--name", " "), "1 to 40 characters"),
            (("hook", "revoke", "none"), "hook revoke: no hook has the id 'none'; see clasp-relay hook list"),
            (("invite", "revoke", "none"), "invite revoke: no invite has the id 'none'; see clasp-relay invite list"),
            (("invite", "create", "--uses", "0"), "got '0', expected a whole number from 1"),
            (("invite", "create", "--expires", ""), "got '', expected a duration"),
        ]
        for arguments, said in cases:
            with self.subTest(arguments):
                self.assertIn(said, self.refusal(*arguments))
        self.assertEqual(json.loads(self.ask("token", "list", "--json")), [])

    def test_variables_say_where_the_database_is(self) -> None:
        """As for the relay."""
        os.environ["CLASP_AUTH_DB"] = str(self.folder / "other.db")
        self.ask("token", "create", "--scopes", "read:/a")
        self.assertTrue((self.folder / "other.db").exists())
        self.assertFalse((self.folder / "users.db").exists())

    def test_invite_is_printed_alone_and_is_valid(self) -> None:
        """For a week, where nothing else is asked for."""
        invite = self.ask("invite", "create", "--uses", "2").strip()
        self.assertRegex(invite, "^[0-9a-f]{32}$")
        users, now_s = self.users(), int(time.time())
        users.check_invite(digest_of(invite), now_s + 6 * 86_400)
        self.assertRaises(InviteGone, users.check_invite, digest_of(invite), now_s + 8 * 86_400)
        self.assertIn(f"invite {digest_of(invite).hex()[:8]} made: uses: 2, expires: 2", self.stderr.getvalue())

    def test_invites_are_listed_and_revoked(self) -> None:
        """One a line and as JSON; the invite itself is not shown."""
        first = self.ask("invite", "create", "--uses", "2", "--expires", "never").strip()
        second = self.ask("invite", "create").strip()
        ids = [digest_of(invite).hex()[:8] for invite in (first, second)]
        shown = {each["id"]: each for each in json.loads(self.ask("invite", "list", "--json"))}
        self.assertEqual([shown[each]["uses_left"] for each in ids], [2, 1])
        head, *lines = (line.split() for line in self.ask("invite", "list").splitlines())
        self.assertEqual(head, ["ID", "USES", "EXPIRES"])
        self.assertIn([ids[0], "2", "never"], lines)
        self.assertEqual(self.ask("invite", "revoke", ids[0]), "")
        self.assertEqual([each["id"] for each in json.loads(self.ask("invite", "list", "--json"))], [ids[1]])
        self.assertRaises(InviteGone, self.users().check_invite, digest_of(first), int(time.time()))
        self.assertEqual(self.users().invites(int(time.time()) + 8 * 86_400), [])

    def test_hooks_are_made_listed_and_revoked(self) -> None:
        """The path of a new one is printed alone; the lists do not have it."""
        path = self.ask("hook", "create", "--address", "/chat/room/r1/messages", "--name", "Build").strip()
        self.assertRegex(path, "^/hooks/[0-9a-f]{32}$")
        (shown,) = json.loads(self.ask("hook", "list", "--json"))
        self.assertEqual((shown["name"], shown["address"]), ("Build", "/chat/room/r1/messages"))
        self.assertEqual(shown["id"], digest_of(path.removeprefix("/hooks/")).hex()[:8])
        head, line = self.ask("hook", "list").splitlines()
        self.assertEqual(head.split(), ["ID", "NAME", "TEMPLATE", "ADDRESS"])
        self.assertEqual(line.split(), [shown["id"], "Build", "chat", "/chat/room/r1/messages"])
        self.assertEqual(self.ask("hook", "revoke", shown["id"]), "")
        self.assertEqual(json.loads(self.ask("hook", "list", "--json")), [])
