"""What happens to a file while it arrives, and who may do what with it."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access import files as module
from clasp_relay.access.file_quotas import MIB, FileLimits, FileQuotas
from clasp_relay.access.files import DAY_S, MAX_WAITING_BYTES, WRITE_BYTES, OwnFiles, Upload, UploadCut, refusal_of
from clasp_relay.access.refusals import Busy, Forbidden, Limited, Missing, NoRoom, Unauthenticated
from clasp_relay.access.secret_files import admin_record
from clasp_relay.access.threads import Workers
from clasp_relay.storage.files import DiskFull, FileStore, FileWriter, StoredFile
from tests.access.stack import HOME, InlineWorkers, Stack, SteppedWorkers, hash_of, scopes_of

LIMITS = FileLimits(file=2 * MIB, subject=3 * MIB, whole=100 * MIB)


class World:
    """Accounts, and files.

    Args:
        folder: where the files are.
        disk: does what is done on the disk.
        sql: does what is done to the records.
    """

    def __init__(self, folder: Path, disk: Workers | None = None, sql: Workers | None = None) -> None:
        self.stack = Stack()
        self.folder = folder / "files"
        folder.mkdir(exist_ok=True)
        self.store = FileStore(self.folder, folder / "files.db")
        self.files = OwnFiles(
            store=self.store,
            sql=sql or InlineWorkers(),
            disk=disk or InlineWorkers(),
            quotas=FileQuotas(LIMITS),
            recognise=self.stack.accounts.recognise,
            scopes_of=scopes_of,
            is_user=self.stack.tokens.is_user,
            hash_of=hash_of,
            days=90,
            now_s=self.stack.clock.seconds,
            random_hex=self.stack.random_hex,
        )
        self.files.load(lambda _: False)
        self.alice = self.register("alice")

    def register(self, name: str) -> str:
        """Returns the token of a new user."""
        return str(now(self.stack.accounts.register(name, "password 1", None, None, HOME)).token)

    def guest(self) -> str:
        """Returns the token of a new guest."""
        return str(now(self.stack.accounts.guest(None, None, None, HOME)).token)

    def become_user(self, token: str, name: str) -> str:
        """Registers a guest under a name; returns the user's token."""
        user_id = self.stack.accounts.me(token).user_id
        return str(now(self.stack.accounts.register(name, "password 1", user_id, token, HOME)).token)

    def send(self, token: str, data: bytes = b"hello") -> StoredFile:
        """Sends a file."""
        upload = self.files.begin(token, HOME, len(data))
        upload.write(data)
        record: StoredFile = now(upload.finish())
        return record

    @property
    def names(self) -> list[str]:
        """What is in the folder."""
        return sorted(os.listdir(self.folder))


def now(done: Deferred[Any]) -> Any:
    """Returns what a Deferred has; raises what it failed with."""
    results: list[Any] = []
    failures: list[Any] = []
    done.addCallbacks(results.append, failures.append)
    if failures:
        failures[0].raiseException()
    return results[0]


class FilesTests(SynchronousTestCase):
    """Everything is done at once."""

    def setUp(self) -> None:
        """Somebody is signed in."""
        self.path = Path(self.mktemp())
        self.world = World(self.path)
        self.files = self.world.files
        self.addCleanup(self.world.store.close)

    def test_file_is_read_by_who_knows_its_id(self) -> None:
        """Whoever is signed in."""
        file = self.world.send(self.world.alice)
        found = now(Deferred.fromCoroutine(self.files.find(self.world.guest(), file.id)))
        reading = now(Deferred.fromCoroutine(self.files.open(self.world.alice, HOME, found)))
        self.assertEqual(now(Deferred.fromCoroutine(reading.read(1, 3))), b"ell")
        reading.close()
        counts = self.files.counts
        self.assertEqual((counts.stored, counts.read, counts.sent_bytes, counts.received_bytes), (1, 1, 3, 5))
        self.assertEqual((self.files.stored, self.files.quotas.bytes, self.files.quotas.arriving), (1, 4096, 0))

    def test_address_reads_some_files_at_once(self) -> None:
        """Whoever reads them there, and others go on; what fails to open is not counted."""
        self.patch(module, "READS_PER_ADDRESS", 2)
        file, tokens = self.world.send(self.world.alice), [self.world.alice, self.world.guest()]
        readings = [now(Deferred.fromCoroutine(self.files.open(token, HOME, file))) for token in tokens]
        self.failureResultOf(Deferred.fromCoroutine(self.files.open(tokens[1], HOME, file)), Limited)
        elsewhere = now(Deferred.fromCoroutine(self.files.open(tokens[1], "192.0.2.99", file)))
        readings.pop().close()
        gone = file._replace(id="0" * 32)
        self.failureResultOf(Deferred.fromCoroutine(self.files.open(tokens[0], HOME, gone)), Missing)
        readings.append(now(Deferred.fromCoroutine(self.files.open(tokens[0], HOME, file))))
        for each in (elsewhere, *readings):
            each.close()
            each.close()
        self.assertEqual(self.files._reading, {})

    def test_files_of_a_guest_who_registers_are_the_users(self) -> None:
        """They count as those of users do, other guests have the room, and the user deletes them."""
        quotas = self.files.quotas
        guest, other = self.world.guest(), self.world.guest()
        file = self.world.send(guest)
        self.world.send(guest, b"x" * 5_000)
        self.world.send(other)
        self.assertEqual((quotas.guest_bytes, quotas.bytes), (4 * 4096, 4 * 4096))
        user = self.world.become_user(guest, "Gus")
        now(Deferred.fromCoroutine(self.files.registered(file.subject)))
        self.assertEqual((quotas.guest_bytes, quotas.bytes, quotas.used_by(file.subject)), (4096, 4 * 4096, 3 * 4096))
        self.assertEqual(self.world.store.find(file.id), file._replace(origin=b""))
        # The guest's token is valid until it expires: another tab has it.
        self.assertEqual(self.world.send(guest).origin, b"")
        now(Deferred.fromCoroutine(self.files.remove(user, file.id)))
        self.assertEqual((quotas.guest_bytes, quotas.used_by(file.subject)), (4096, 3 * 4096))
        now(Deferred.fromCoroutine(self.files.registered("nobody")))
        self.assertEqual((quotas.guest_bytes, quotas.bytes), (4096, 4 * 4096))

    def test_start_finishes_what_a_kill_kept_from_being_done(self) -> None:
        """The guest had registered, and the files were not given to the user yet."""
        guest = self.world.guest()
        file = self.world.send(guest)
        stranger = self.world.send(self.world.guest())
        self.files.quotas = FileQuotas(LIMITS)
        self.files.load(lambda subject: subject == file.subject)
        self.assertEqual((self.files.quotas.guest_bytes, self.files.quotas.bytes), (4096, 2 * 4096))
        self.assertEqual(self.world.store.find(file.id), file._replace(origin=b""))
        self.assertEqual(self.world.store.find(stranger.id), stranger)

    def test_nobody_reads_without_a_token(self) -> None:
        """Or a file that is not there; hostile ids reach neither table nor disk."""
        file = self.world.send(self.world.alice)
        with self.assertRaises(Unauthenticated):
            now(Deferred.fromCoroutine(self.files.find(None, file.id)))
        for file_id in ("0" * 32, "", "..", "../files.db", file.id.upper() + "\0", f"{file.id}.part", "é" * 32):
            with self.subTest(file_id=file_id), self.assertRaises(Missing):
                now(Deferred.fromCoroutine(self.files.find(self.world.alice, file_id)))
        os.unlink(self.world.folder / file.id)
        with self.assertRaises(Missing):
            now(Deferred.fromCoroutine(self.files.open(self.world.alice, HOME, file)))

    def test_owner_or_administrator_deletes(self) -> None:
        """The room is free again; nobody else may."""
        admin = admin_record("cpsk_admin", self.world.stack.clock.seconds())
        self.world.stack.tokens.add(admin)
        for token, refused in ((self.world.guest(), True), (self.world.alice, False), ("cpsk_admin", False)):
            file = self.world.send(self.world.alice)
            removed = Deferred.fromCoroutine(self.files.remove(token, file.id))
            if refused:
                self.failureResultOf(removed, Forbidden)
                now(Deferred.fromCoroutine(self.files.remove(self.world.alice, file.id)))
            else:
                self.successResultOf(removed)
            self.assertEqual((self.world.names, self.files.quotas.bytes, self.files.stored), ([], 0, 0))
        self.failureResultOf(Deferred.fromCoroutine(self.files.remove(self.world.alice, file.id)), Missing)

    def test_all_files_of_a_user_go(self) -> None:
        """And nobody else's."""
        mine, other = self.world.send(self.world.alice), self.world.send(self.world.guest())
        self.assertEqual(now(Deferred.fromCoroutine(self.files.remove_all_of(mine.subject))), 1)
        self.assertEqual(self.world.names, [other.id])
        subjects = [other.subject, self.world.send(self.world.alice).subject, "nobody"]
        used = now(Deferred.fromCoroutine(self.files.usage(subjects[::2])))
        self.assertEqual([use.subject for use in used], [other.subject])

    def test_file_that_nobody_reads_goes(self) -> None:
        """Each read gives it the whole time again."""
        read, unread = self.world.send(self.world.alice), self.world.send(self.world.alice)
        token = self.world.alice
        for day in (30, 60, 89, 119, 149, 150):
            self.world.stack.clock.advance((day - self.day) * DAY_S)
            token = self.world.guest()
            now(Deferred.fromCoroutine(self.files.find(token, read.id)))
            now(Deferred.fromCoroutine(self.files.end_old()))
            self.assertEqual(self.world.names, [read.id] if day > 90 else sorted([read.id, unread.id]))
        self.world.stack.clock.advance(90 * DAY_S + 1)
        now(Deferred.fromCoroutine(self.files.end_old()))
        self.assertEqual((self.world.names, self.files.quotas.bytes, self.files.counts.removed), ([], 0, 2))

    @property
    def day(self) -> float:
        """Days since the start."""
        return (self.world.stack.clock.seconds() - 1_700_000_000) / DAY_S

    def test_files_are_kept_for_ever_where_that_is_asked_for(self) -> None:
        """With 0 days."""
        self.world.send(self.world.alice)
        self.files._days = 0
        self.world.stack.clock.advance(9_999 * DAY_S)
        now(Deferred.fromCoroutine(self.files.end_old()))
        self.assertEqual(len(self.world.names), 1)

    def test_restart_counts_what_is_there(self) -> None:
        """After a sweep, which is told of."""
        self.world.send(self.world.alice, b"x" * MIB)
        writer = self.world.store.writer("0" * 32, 5)
        writer.write(b"x")
        (self.world.folder / ("f" * 32)).write_bytes(b"")
        self.world.store.close()
        again = World(self.path)
        self.addCleanup(again.store.close)
        self.assertEqual((again.files.stored, again.files.quotas.bytes), (1, MIB))
        self.assertNotIn("0" * 32 + ".part", again.names)

    def test_token_that_ends_meanwhile_stores_nothing(self) -> None:
        """Whoever was signed out has sent nothing."""
        upload = self.files.begin(self.world.alice, HOME, 5)
        upload.write(b"hello")
        now(self.world.stack.accounts.logout(self.world.alice, HOME))
        self.failureResultOf(upload.finish(), Unauthenticated)
        self.assertEqual((self.world.names, self.files.quotas.bytes), ([], 0))

    def test_upload_does_not_keep_why_it_was_refused(self) -> None:
        """The traceback of an exception holds whoever waits for the end, and so the upload: that would be a cycle."""
        gc.disable()
        self.addCleanup(gc.enable)
        upload = self.files.begin(self.world.alice, HOME, 5)
        upload.write(b"hello")
        now(self.world.stack.accounts.logout(self.world.alice, HOME))
        failure = self.failureResultOf(upload.finish(), Unauthenticated)
        there = weakref.ref(failure.value)
        del failure
        self.assertIsNone(there())
        self.assertTrue(upload.write(b"more"), "what is still sent is discarded")

    def test_share_is_taken_before_the_bytes_come(self) -> None:
        """So that two uploads at once do not exceed it together; what is refused is counted."""
        first = self.files.begin(self.world.alice, HOME, 2 * MIB)
        with self.assertRaises(Limited):
            self.files.begin(self.world.alice, HOME, 2 * MIB)
        first.abort()
        self.files.begin(self.world.alice, HOME, 2 * MIB)
        self.assertEqual((self.files.counts.refused, self.files.counts.cut), (1, 1))


class UploadTests(SynchronousTestCase):
    """The disk does what it is told to, one step at a time."""

    def setUp(self) -> None:
        """An upload of a mebibyte has begun."""
        self.disk = SteppedWorkers()
        self.world = World(Path(self.mktemp()), self.disk)
        self.addCleanup(self.world.store.close)
        self.upload = self.begin()

    def begin(self) -> Upload:
        """Begins an upload."""
        return self.world.files.begin(self.world.alice, HOME, MIB)

    def check_gone(self) -> None:
        """Nothing is left of it."""
        self.assertEqual(
            (self.world.names, self.world.files.quotas.bytes, self.world.files.quotas.arriving), ([], 0, 0)
        )

    def test_sender_waits_for_a_slow_disk(self) -> None:
        """No more than half a mebibyte waits in memory, be the pieces ever so small; then it goes on."""
        rooms: list[None] = []
        self.upload.room = lambda: rooms.append(None)
        sent = 0
        while self.upload.write(b"x" * 1000):
            sent += 1000
        self.assertLessEqual(sent, MAX_WAITING_BYTES)
        self.assertEqual(len(self.disk.steps), 1)
        self.disk.step()
        self.assertEqual(len(rooms), 1)
        self.assertTrue(self.upload.write(b"x"))
        self.disk.finish()
        self.assertEqual(len(rooms), 1)

    def test_sender_who_is_deleted_meanwhile_leaves_nothing(self) -> None:
        """Whatever the disk is at: it is neither stored, nor left without a record, nor given back twice."""
        self.upload.abort()
        self.disk.finish()
        for steps, names in ((1, "before it is synced"), (2, "before it has its name")):
            with self.subTest(names):
                token = self.world.register(f"bob{steps}")
                subject = self.world.stack.accounts.recognise(token).subject
                upload = self.world.files.begin(token, HOME, 5)
                upload.write(b"hello")
                done = upload.finish()
                for _ in range(steps):
                    self.disk.step()
                self.assertEqual(len(self.disk.steps), 1)
                self.world.stack.tokens.revoke(self.world.stack.tokens.of_subject(subject))
                removed = Deferred.fromCoroutine(self.world.files.remove_all_of(subject))
                self.disk.finish()
                self.assertEqual(now(removed), steps - 1)
                if steps == 1:
                    self.failureResultOf(done, Unauthenticated)
                self.check_gone()
                self.assertEqual(self.world.files.stored, 0)

    def test_little_is_written_at_the_end(self) -> None:
        """A write for each piece that arrives would cost the loop more than the bytes."""
        self.upload.write(b"x" * (WRITE_BYTES - 1))
        self.assertEqual(self.disk.steps, [])
        done = self.upload.finish()
        self.assertNoResult(done)
        self.disk.finish()
        self.assertEqual(self.world.names, [self.successResultOf(done).id])

    def test_sender_that_goes_leaves_nothing(self) -> None:
        """At any moment: before the first byte, while a write waits, between two writes."""
        for sizes, steps in (((), 0), ((10,), 0), ((WRITE_BYTES,), 0), ((WRITE_BYTES,), 1), ((WRITE_BYTES, 10), 1)):
            with self.subTest(sizes=sizes, steps=steps):
                for size in sizes:
                    self.upload.write(b"x" * size)
                for _ in range(steps):
                    self.disk.step()
                self.upload.abort()
                self.upload.abort()
                self.disk.finish()
                self.check_gone()
                self.upload = self.begin()
        self.assertEqual(self.world.files.counts.cut, 5)

    def test_sender_that_goes_when_all_has_come_changes_nothing(self) -> None:
        """Who answers forgets the file; nobody learned its id."""
        self.upload.write(b"x" * MIB)
        done = self.upload.finish()
        self.upload.abort()
        self.disk.finish()
        now(Deferred.fromCoroutine(self.world.files.forget(self.successResultOf(done))))
        self.check_gone()

    def test_disk_that_fails_is_told_at_the_end(self) -> None:
        """Whatever step fails; the rest of the body is discarded meanwhile, and the sender does not wait."""
        rooms: list[None] = []
        for method in ("write", "sync", "publish"):
            for error in (DiskFull("full"), OSError(5, "broken"), Busy("busy", 1)):
                with self.subTest(method=method, error=error):
                    self.upload.room = lambda: rooms.append(None)

                    def fail(*_: object, what: Exception = error) -> None:
                        raise what

                    patch = self.patch(FileWriter, method, fail)
                    self.upload.write(b"x" * (MAX_WAITING_BYTES + 1))
                    if method == "write":
                        self.disk.finish()
                        self.assertEqual(rooms, [None])
                        rooms.clear()
                        self.assertTrue(self.upload.write(b"x" * MAX_WAITING_BYTES))
                    done = self.upload.finish()
                    self.disk.finish()
                    self.failureResultOf(done, type(error))
                    patch.restore()
                    self.check_gone()
                    rooms.clear()
                    self.upload = self.begin()

    def test_part_that_cannot_be_removed_is_left_to_the_next_start(self) -> None:
        """Its room is free all the same."""

        def fail(_: object) -> None:
            raise OSError(5, "broken")

        patch = self.patch(FileWriter, "discard", fail)
        self.upload.write(b"x" * WRITE_BYTES)
        self.upload.abort()
        self.disk.finish()
        patch.restore()
        self.assertEqual((len(self.world.names), self.world.files.quotas.bytes), (1, 0))
        self.world.files.load(lambda _: False)
        self.assertEqual(self.world.names, [])

    def test_file_that_arrives_while_its_guest_registers_is_the_users(self) -> None:
        """Whenever that happens; where the relay is too busy for it, the next start does it."""
        guest = self.world.guest()
        upload = self.world.files.begin(guest, HOME, 5)
        upload.write(b"hello")
        self.world.become_user(guest, "Gus")
        done = upload.finish()
        self.disk.finish()
        file = self.successResultOf(done)
        self.assertEqual(
            (self.world.files.quotas.guest_bytes, self.world.files.quotas.used_by(file.subject)), (0, 4096)
        )
        found = self.world.store.find(file.id)
        self.assertEqual(None if found is None else found.origin, b"")
        sql = SteppedWorkers()
        self.patch(self.world.files, "_sql", sql)
        told = Deferred.fromCoroutine(self.world.files.registered(file.subject))
        sql.fail(Busy("busy", 1))
        self.successResultOf(told)

    def test_client_is_told_what_it_may_know(self) -> None:
        """A full disk and refusals; faults are the relay's."""
        limited = Limited("x", 1)
        self.assertIsInstance(refusal_of(DiskFull("x")), NoRoom)
        self.assertIs(refusal_of(limited), limited)
        for error in (UploadCut("x"), OSError(5, "x"), None):
            self.assertIsNone(refusal_of(error))
