"""Secrets in files of their own."""

import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.names import check_user_id
from clasp_relay.access.refusals import BadInput
from clasp_relay.access.secret_files import (
    ADMIN_SUBJECT,
    admin_record,
    read_or_make_admin_token,
    read_or_make_key,
    read_turn_secret,
    replace_key,
)
from clasp_relay.access.tokens import ADMIN_SCOPES, digest_of
from clasp_relay.errors import StartError
from tests.access.stack import hexadecimal


class AdminTokenTests(SynchronousTestCase):
    """Its file."""

    def setUp(self) -> None:
        """Makes a folder."""
        folder = Path(self.mktemp())
        folder.mkdir()
        self.path = folder / "admin.token"

    def test_missing_file_is_made_for_its_owner_only(self) -> None:
        """The next start reads the same token."""
        token = read_or_make_admin_token(self.path, hexadecimal())
        self.assertEqual(token, "cpsk_" + "0" * 31 + "1")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual(self.path.read_text(), token + "\n")
        self.assertEqual(read_or_make_admin_token(self.path, hexadecimal()), token)

    def test_folder_of_a_token_is_made(self) -> None:
        """As that of every other file of the relay."""
        path = self.path.parent / "secrets" / "deep" / "admin.token"
        token = read_or_make_admin_token(path, hexadecimal())
        self.assertEqual(path.read_text(), token + "\n")

    def test_token_of_the_operators_own_is_taken(self) -> None:
        """As long as it cannot be guessed."""
        token = "cpsk_" + "aB-_" * 8
        self.path.write_text(f" {token}\n\n")
        self.assertEqual(read_or_make_admin_token(self.path, hexadecimal()), token)

    def test_file_with_something_else_stops_the_start(self) -> None:
        """What is in it is not shown, and not overwritten."""
        for content in (b"", b"cpsk_short", b"hidden" * 10, b"\xff" * 40, b"cpsk_" + b"a" * 32 + b"\n" + b"b" * 32):
            with self.subTest(content=content):
                self.path.write_bytes(content)
                error = self.assertRaises(StartError, read_or_make_admin_token, self.path, hexadecimal())
                self.assertIn(f"{self.path}: not an admin token", str(error))
                self.assertNotIn("hidden", str(error))
                self.assertEqual(self.path.read_bytes(), content)

    def test_unusable_path_stops_the_start(self) -> None:
        """The line names it."""
        cases = [(self.path.parent, "cannot be read"), (Path("/proc/none/file"), "cannot be written")]
        for path, expected in cases:
            with self.subTest(expected=expected):
                error = self.assertRaises(StartError, read_or_make_admin_token, path, hexadecimal())
                self.assertIn(f"{path}: the admin token {expected}", str(error))

    def test_record_never_expires_and_is_nobody_elses(self) -> None:
        """No user can have its id."""
        record = admin_record("cpsk_x", 17.9)
        self.assertEqual(record[:7], (digest_of("cpsk_x"), ADMIN_SUBJECT, "admin", False, ADMIN_SCOPES, 17, None))
        self.assertRaises(BadInput, check_user_id, ADMIN_SUBJECT)


class KeyTests(SynchronousTestCase):
    """The key of address hashes."""

    def setUp(self) -> None:
        """Makes a folder."""
        folder = Path(self.mktemp())
        folder.mkdir()
        self.users_file = folder / "users.db"
        self.path = folder / "users.db.key"

    def test_missing_key_is_made_for_its_owner_only(self) -> None:
        """The next start reads the same."""
        key = read_or_make_key(self.users_file, lambda size: b"k" * size)
        self.assertEqual((key, stat.S_IMODE(self.path.stat().st_mode)), (b"k" * 32, 0o600))
        self.assertEqual(read_or_make_key(self.users_file, lambda size: b"x" * size), key)

    def test_file_that_is_no_key_stops_the_start(self) -> None:
        """It is named, and not overwritten."""
        self.path.write_bytes(b"short")
        error = self.assertRaises(StartError, read_or_make_key, self.users_file, bytes)
        self.assertIn(f"{self.path}: not a key (32 bytes); remove the file to have one made", str(error))
        self.assertEqual(self.path.read_bytes(), b"short")
        self.path.unlink()
        self.path.mkdir()
        error = self.assertRaises(StartError, read_or_make_key, self.users_file, bytes)
        self.assertIn("cannot be read: Is a directory", str(error))

    def test_key_of_other_relays_takes_its_place(self) -> None:
        """For its owner only, and the next start reads it."""
        read_or_make_key(self.users_file, bytes)
        for key in (b"1" * 32, b"2" * 32):
            replace_key(self.users_file, key)
            self.assertEqual(read_or_make_key(self.users_file, bytes), key)
            self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertRaisesRegex(StartError, "no key of 32 bytes", replace_key, self.users_file, b"short")
        self.path.unlink()
        self.path.mkdir()
        (self.path / "file").touch()
        self.assertRaisesRegex(StartError, "cannot be written", replace_key, self.users_file, bytes(32))


class TurnSecretTests(SynchronousTestCase):
    """The secret that a TURN server shares."""

    def test_secret_is_the_line_in_the_file(self) -> None:
        """Without what an editor puts behind it."""
        path = Path(self.mktemp())
        path.write_text("s3cret/+=\n", "ascii")
        path.chmod(0o600)
        self.assertEqual(read_turn_secret(path), "s3cret/+=")

    def test_file_that_has_none_stops_the_start(self) -> None:
        """Missing, empty, more than a line, or not ASCII."""
        path = Path(self.mktemp())
        self.assertIn("cannot be read", str(self.assertRaises(StartError, read_turn_secret, path)))
        for content in (b"", b"\n", b"a\nb", "ü".encode()):
            with self.subTest(content=content):
                path.write_bytes(content)
                self.assertIn("--turn-secret", str(self.assertRaises(StartError, read_turn_secret, path)))
