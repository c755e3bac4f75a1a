"""Records of files that users of a cluster have sent."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.storage import sent_files as module
from clasp_relay.storage.administration import AdminStore
from clasp_relay.storage.audit import AuditEntry
from clasp_relay.storage.files import READ_STEP_S, FileUse, StoredFile
from clasp_relay.storage.sent_files import GONE, Bounds, SentFileStore, Totals
from clasp_relay.storage.users import Claim
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.storage.test_users_sqlite import ALICE, GUEST, NO_PROOF, NOW_S, keys_of, token, user

BOUNDS = Bounds(subject=5 * 4096, guest=2 * 4096, guest_address=3 * 4096, whole=8 * 4096, guests=4 * 4096)
ENTRY = AuditEntry(NOW_S, "admin.test", actor="root")


def file_of(number: int, subject: str = "u1", origin: bytes = b"", blocks: int = 1, read_s: int = NOW_S) -> StoredFile:
    """Returns a record."""
    return StoredFile(f"{number:032x}", subject, origin, 4096 * blocks - 1, 4096 * blocks, NOW_S + number, read_s)


class SentFileStoreTests(SynchronousTestCase):
    """The records in one file."""

    def setUp(self) -> None:
        """A user, and a guest."""
        self.users = SqliteUsers(None, keys_of)
        self.addCleanup(self.users.close)
        self.users.add_user(user(), ALICE, token("a"), NO_PROOF)
        self.users.add_guest_token(token("g", "g1", guest=True), GUEST, NO_PROOF)
        self.files: SentFileStore = self.users.files
        self.admin: AdminStore = self.users.administration

    def add(self, *files: StoredFile) -> None:
        """Adds files for which there is room, and stores them."""
        for file in files:
            self.assertEqual(self.files.add(file, BOUNDS), "")
            self.assertTrue(self.files.store(file.id))

    def test_file_is_there_once_its_bytes_are(self) -> None:
        """Before that it takes room, and nobody finds it."""
        file = file_of(1)
        self.assertEqual(self.files.add(file, BOUNDS), "")
        self.assertEqual((self.files.find(file.id), self.files.arriving()), (None, [file.id]))
        self.assertEqual((self.files.totals(), self.files.missing([file.id])), (Totals(1, 4096, 0), []))
        self.assertTrue(self.files.store(file.id))
        self.assertEqual((self.files.find(file.id), self.files.arriving()), (file, []))
        self.files.add(file_of(2), BOUNDS)
        self.assertEqual(self.files.found([file.id, file_of(2).id, file_of(3).id]), [file])
        removed = [self.files.remove_unstored(each) for each in (file.id, file_of(2).id, file_of(2).id)]
        self.assertEqual(removed, [False, True, False])
        self.assertEqual((self.files.remove(file.id), self.files.remove(file.id)), (True, False))
        self.assertEqual((self.files.find(file.id), self.files.totals()), (None, Totals(0, 0, 0)))
        self.assertFalse(self.files.store(file.id))
        self.assertEqual(self.files.confirm_missing([file.id]), [file.id])

    def test_bounds(self) -> None:
        """Of one user, of one guest, of the guests of one address, of all, and of all guests."""
        here, there = b"here", b"there"
        cases = (
            ("subject", (file_of(1, blocks=4),), file_of(2, blocks=2)),
            ("guest", (file_of(1, "g1", here),), file_of(2, "g1", there, blocks=2)),
            ("guest_address", (file_of(1, "g1", here, 2), file_of(2, "g2", here)), file_of(3, "g3", here)),
            ("whole", (file_of(1, "u2", blocks=5), file_of(2, blocks=3)), file_of(3)),
            ("guests", (file_of(1, "g1", here, 2), file_of(2, "g2", there, 2)), file_of(3, "g3", b"elsewhere")),
        )
        for lacking, before, file in cases:
            with self.subTest(lacking=lacking):
                self.add(*before)
                self.assertEqual(self.files.lacks(file, BOUNDS), lacking)
                self.assertEqual(self.files.add(file, BOUNDS), lacking)
                self.assertEqual(self.files.missing([file.id]), [file.id])
                for each in before:
                    self.files.remove(each.id)
                self.assertEqual((self.files.totals(), self.files.usage(["u1", "u2", "g1"])), (Totals(0, 0, 0), []))
                self.add(file)
                self.files.remove(file.id)
        unlimited = BOUNDS._replace(subject=0)
        self.assertEqual(self.files.add(file_of(9, blocks=8), unlimited), "")

    def test_guest_has_so_many_files(self) -> None:
        """From whatever address; a file of before counts as a user's beyond that. Users have any number."""
        self.patch(module, "MAX_GUEST_FILES", 2)
        self.add(file_of(1, "g1", b"here"))
        self.assertTrue(self.files.adopt(file_of(2, "g1", b"there")))
        bounds = Bounds(*(100 * each for each in BOUNDS))
        self.assertEqual(self.files.add(file_of(3, "g1", b"here"), bounds), "guest_files")
        self.assertTrue(self.files.adopt(file_of(4, "g1", b"here")))
        self.assertEqual(
            sorted((use.origin, use.files) for use in self.files.usage(["g1"])), [(b"", 1), (b"here", 1), (b"there", 1)]
        )
        for number in range(5, 8):
            self.assertEqual(self.files.add(file_of(number), bounds), "")
        self.files.remove(file_of(1).id)
        self.assertEqual(self.files.add(file_of(3, "g1", b"here"), bounds), "")

    def test_files_of_a_guest_who_registers_are_the_users(self) -> None:
        """Also one that is on its way, and one whose relay takes the user for a guest yet."""
        self.add(file_of(1, "g1", b"here"))
        self.files.add(file_of(2, "g1", b"there"), BOUNDS)
        self.assertEqual(self.files.totals(), Totals(2, 2 * 4096, 2 * 4096))
        self.users.add_user(user("g1", "Gast"), keys_of("Gast"), token("h", "g1"), Claim(None, True, NOW_S))
        self.assertEqual(self.files.usage(["g1"]), [FileUse("g1", b"", 2, 2 * 4096)])
        self.assertEqual(self.files.totals(), Totals(2, 2 * 4096, 0))
        self.add(file_of(3, "g1", b"here"))
        self.assertEqual(self.files.find(file_of(3).id), file_of(3, "g1"))

    def test_nothing_is_stored_behind_a_deletion(self) -> None:
        """What was on its way neither; of somebody who is disabled likewise."""
        for decide in (
            lambda: self.admin.disable("u1", ENTRY),
            lambda: self.admin.delete("u1", ENTRY, erases_messages=False),
        ):
            self.files.add(file_of(1), BOUNDS)
            decide()
            self.assertEqual(self.files.add(file_of(2), BOUNDS), GONE)
            self.assertFalse(self.files.store(file_of(1).id))
            self.assertEqual(self.files.of_subject("u1", 9), [file_of(1)])
            self.files.remove(file_of(1).id)
            if self.users.user("u1") is not None:
                self.admin.enable("u1", ENTRY)

    def test_file_of_before_is_adopted(self) -> None:
        """Whether there is room, and whether its owner is disabled; not when its owner was deleted."""
        guest = file_of(1, "g1", b"here", blocks=99)
        self.assertEqual((self.files.adopt(guest), self.files.adopt(guest)), (True, True))
        self.users.add_user(user("g1", "Gast"), keys_of("Gast"), token("h", "g1"), Claim(None, True, NOW_S))
        self.assertTrue(self.files.adopt(file_of(2, "g1", b"here")))
        self.admin.disable("g1", ENTRY)
        self.assertEqual((self.files.store(guest.id), self.files.store(guest.id, is_of_before=True)), (False, True))
        self.assertEqual(self.files.find(guest.id), guest._replace(origin=b""))
        self.assertEqual(self.files.usage(["g1"]), [FileUse("g1", b"", 2, 100 * 4096)])
        self.admin.delete("g1", ENTRY, erases_messages=False)
        self.assertEqual(
            (self.files.adopt(file_of(3, "g1")), self.files.missing([file_of(3).id])), (False, [file_of(3).id])
        )
        self.assertFalse(self.files.store(file_of(2).id, is_of_before=True))

    def test_time_of_the_last_read_is_kept_to_the_hour(self) -> None:
        """Whichever relay tells it, and late."""
        self.add(file_of(1), file_of(2))
        for later_s, is_noted in ((READ_STEP_S - 1, False), (READ_STEP_S, True), (5, False), (2 * READ_STEP_S, True)):
            self.files.note_read(file_of(1).id, NOW_S + later_s)
            found = self.files.find(file_of(1).id)
            assert found is not None
            self.assertEqual(found.read_s == NOW_S + later_s, is_noted)
        unread = self.files.unread_since(NOW_S + 1, 9)
        self.assertEqual(unread, [file_of(2)])
