"""Files of a cluster: records that all relays have, an object store that may fail, and copies at each relay."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access import files as files_module
from clasp_relay.access import shared_files as shared_module
from clasp_relay.access.file_quotas import MIB, FileLimits, FileQuotas
from clasp_relay.access.files import DAY_S
from clasp_relay.access.refusals import Busy, Limited, Missing, NoRoom, Refusal, TooLarge, Unauthenticated
from clasp_relay.access.shared_files import SharedFiles
from clasp_relay.access.threads import Workers
from clasp_relay.storage import sent_files as sent_files_module
from clasp_relay.storage.audit import AuditEntry
from clasp_relay.storage.file_cache import FileCache
from clasp_relay.storage.files import READ_STEP_S, FileReader, StoredFile
from clasp_relay.storage.sent_files import SentFileStore
from tests.access.stack import HOME, InlineWorkers, Stack, SteppedWorkers, hash_of, scopes_of

LIMITS = FileLimits(file=2 * MIB, subject=3 * MIB, whole=100 * MIB)
DATA = b"hello"


class MemoryObjects:
    """Implements ``shared_files.Objects``: does it in two pieces, and fails where it is told to."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.failing: set[str] = set()
        """The methods that fail as without an answer of the engine."""
        self.endless: set[str] = set()
        """Of which nothing says what their pieces are."""
        self.is_full = False
        self.gets = 0
        self.waiting: list[Deferred[None]] | None = None
        """Where there is a list, ``get`` waits for what it puts there."""

    def _check(self, name: str) -> None:
        if name in self.failing:
            raise Busy("The engine does not answer.", 5)

    async def put(self, file_id: str, size_bytes: int, read: Callable[[int, int], Awaitable[bytes]]) -> bool:
        """See ``Objects``."""
        half = size_bytes // 2
        if file_id in self.objects:
            return False
        self.objects[file_id] = await read(0, half)
        self._check("put")
        if self.is_full:
            raise NoRoom("The cluster has no room.")
        self.objects[file_id] += await read(half, size_bytes - half)
        return True

    async def get(self, file_id: str, write: Callable[[bytes], Awaitable[None]]) -> bool:
        """See ``Objects``."""
        self.gets += 1
        if self.waiting is not None:
            done: Deferred[None] = Deferred()
            self.waiting.append(done)
            await done
        data = self.objects.get(file_id, b"")
        await write(data[:2])
        self._check("get")
        await write(data[2:])
        return file_id in self.objects

    async def remove(self, file_id: str) -> None:
        """See ``Objects``."""
        self._check("remove")
        self.objects.pop(file_id, None)
        self.endless.discard(file_id)

    async def names(self, file_id: str | None = None) -> dict[str, int | None]:
        """See ``Objects``; a piece has one byte."""
        self._check("names")
        found = {each: None if each in self.endless else len(data) for each, data in self.objects.items()}
        return {each: count for each, count in found.items() if file_id in (None, each)}

    def pieces(self, size_bytes: int) -> int:
        """See ``Objects``."""
        return size_bytes


class World:
    """Accounts, an object store, and two relays that follow one file at once."""

    def __init__(self, folder: Path) -> None:
        self.stack = Stack()
        self.objects = MemoryObjects()
        self.folder = folder
        self.calls = Failing()
        self.ready = {"one": True, "two": True}
        self.one, self.two = self.relay("one"), self.relay("two")
        self.alice = self.register("alice")

    @property
    def records(self) -> SentFileStore:
        """The records."""
        return self.stack.store.files

    def relay(self, name: str, sql: Workers | None = None) -> SharedFiles:
        """Returns the files of one relay."""
        files = SharedFiles(
            records=self.records,
            calls=sql or self.calls,
            cache=FileCache(self.folder / name, 64 * 4096),
            objects=self.objects,
            is_ready=lambda: self.ready[name],
            disk=InlineWorkers(),
            quotas=FileQuotas(LIMITS),
            recognise=self.stack.accounts.recognise,
            scopes_of=scopes_of,
            is_user=self.stack.tokens.is_user,
            hash_of=hash_of,
            days=90,
            now_s=self.stack.clock.seconds,
            random_hex=self.stack.random_hex,
        )
        files.load(lambda _: False)
        return files

    def register(self, name: str) -> str:
        """Returns the token of a new user."""
        return str(now(self.stack.accounts.register(name, "password 1", None, None, HOME)).token)

    def guest(self) -> str:
        """Returns the token of a new guest."""
        return str(now(self.stack.accounts.guest(None, None, None, HOME)).token)

    def send(self, files: SharedFiles, data: bytes = DATA, token: str = "") -> StoredFile:
        """Sends a file."""
        upload = files.begin(token or self.alice, HOME, len(data))
        upload.write(data)
        record: StoredFile = now(upload.finish())
        for each in (self.one, self.two):
            each.follow([])
        return record

    def read(self, files: SharedFiles, file_id: str) -> bytes:
        """Returns what a file holds."""
        found = now(files.find(self.alice, file_id))
        reading = now(files.open(self.alice, HOME, found))
        data: bytes = now(reading.read(0, 99_999))
        reading.close()
        return data

    def names(self, name: str) -> list[str]:
        """What is in the folder of a relay."""
        return sorted(os.listdir(self.folder / name))


class Failing(InlineWorkers):
    """Makes calls at once; those of some names fail, before or after they are made."""

    def __init__(self) -> None:
        self.before: set[str] = set()
        self.after: set[str] = set()

    def run(self, lane: str, admit: Any, work: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """See ``Workers``."""
        name = getattr(work, "__name__", "")

        def do() -> object:
            if name in self.before:
                raise Busy("It is not done.", 5)
            result: object = work(*args, **kwargs)
            if name in self.after:
                raise Busy("It may be done.", 5)
            return result

        return super().run(lane, admit, do)


def now(done: Any) -> Any:
    """Returns what a Deferred or coroutine has; raises what it failed with."""
    waited = done if isinstance(done, Deferred) else Deferred.fromCoroutine(done)
    results: list[Any] = []
    failures: list[Any] = []
    waited.addCallbacks(results.append, failures.append)
    if failures:
        failures[0].raiseException()
    return results[0]


class SharedFilesTests(SynchronousTestCase):
    """Two relays of a cluster."""

    def setUp(self) -> None:
        """Somebody is signed in."""
        folder = Path(self.mktemp())
        folder.mkdir()
        self.world = World(folder)
        self.one, self.two = self.world.one, self.world.two
        self.objects, self.records = self.world.objects, self.world.records

    def test_file_sent_at_one_relay_is_read_at_another(self) -> None:
        """From the object store once, then from the copy; the sender's relay has one already."""
        file = self.world.send(self.one)
        self.assertEqual(self.objects.objects, {file.id: DATA})
        self.assertEqual((self.world.names("one"), self.world.names("two")), ([file.id], []))
        for files, gets in ((self.one, 0), (self.two, 1), (self.two, 1)):
            self.assertEqual((self.world.read(files, file.id), self.objects.gets), (DATA, gets))
        self.assertEqual((self.one.counts.fetched, self.two.counts.fetched), (0, 1))
        self.assertEqual((self.two.copies, self.two.stored, self.two.used_bytes), ((1, 4096), 1, 4096))
        self.assertEqual((self.one.quotas.bytes, self.one.quotas.arriving), (0, 0))

    def test_removed_file_is_gone_everywhere(self) -> None:
        """Record, object, and the copies of all relays, as their files are told."""
        file = self.world.send(self.one)
        self.world.read(self.two, file.id)
        now(self.two.remove(self.world.alice, file.id))
        for files in (self.one, self.two):
            files.follow([file.id])
            self.assertRaises(Missing, now, files.find(self.world.alice, file.id))
        self.assertEqual((self.objects.objects, self.world.names("one"), self.world.names("two")), ({}, [], []))
        self.assertEqual((self.two.stored, self.two.used_bytes), (0, 0))

    def test_all_files_of_a_person_go_and_what_is_on_its_way(self) -> None:
        """Whichever relay took them."""
        mine = [self.world.send(files) for files in (self.one, self.two, self.one)]
        other = self.world.send(self.one, token=self.world.guest())
        self.records.add(mine[0]._replace(id="f" * 32), self.one._bounds)
        self.assertEqual(now(self.two.remove_all_of(mine[0].subject)), 4)
        self.assertEqual((set(self.objects.objects), self.records.totals().files), ({other.id}, 1))
        self.assertEqual(
            [use.subject for use in now(self.one.usage([mine[0].subject, other.subject]))], [other.subject]
        )

    def test_removal_that_the_cluster_does_not_answer_is_told(self) -> None:
        """Whoever asked tries again; where only the object store is away, the next sweep removes the rest."""
        file = self.world.send(self.one)
        self.world.calls.before.add("remove")
        self.assertRaises(Busy, now, self.two.remove(self.world.alice, file.id))
        self.world.calls.before.clear()
        self.objects.failing = {"remove"}
        now(self.two.remove(self.world.alice, file.id))
        self.assertEqual((list(self.objects.objects), self.records.missing([file.id])), ([file.id], [file.id]))
        self.objects.failing = set()
        now(self.one.sweep(acts=True))
        self.assertEqual(self.objects.objects, {})

    def test_unread_file_goes(self) -> None:
        """A read at any relay gives it the whole time again; nobody waits until that is noted."""
        read, unread = self.world.send(self.one), self.world.send(self.one)
        self.world.stack.clock.advance(89 * DAY_S)
        self.world.alice = self.world.guest()
        self.world.calls.before.add("note_read")
        self.assertEqual(self.world.read(self.two, read.id), DATA)
        self.world.calls.before.clear()
        self.assertEqual(self.world.read(self.two, read.id), DATA)
        self.world.stack.clock.advance(2 * DAY_S)
        self.world.calls.before.add("remove")
        now(self.one.end_old())
        self.world.calls.before.clear()
        self.assertEqual(set(self.objects.objects), {read.id, unread.id})
        now(self.one.end_old())
        self.assertEqual(set(self.objects.objects), {read.id})
        self.assertEqual(self.records.missing([read.id, unread.id]), [unread.id])
        found = self.records.find(read.id)
        assert found is not None
        self.assertGreaterEqual(found.read_s, read.read_s + 89 * DAY_S - READ_STEP_S)

    def test_failure_of_the_object_store_leaves_nothing(self) -> None:
        """The sender is told; what cannot be removed at once is with the next upload."""
        for name in ("put", "full"):
            with self.subTest(fails=name):
                self.objects.failing, self.objects.is_full = {name}, name == "full"
                self.assertRaises(Busy if name == "put" else NoRoom, self.world.send, self.one)
                self.assertEqual((self.objects.objects, self.records.totals().files), ({}, 0))
                self.assertEqual((self.world.names("one"), self.one.used_bytes), ([], 0))
        self.objects.is_full = False
        self.objects.failing = {"put", "remove"}
        self.assertRaises(Busy, self.world.send, self.one)
        self.assertEqual((len(self.objects.objects), len(self.one._unstored)), (1, 1))
        self.objects.failing = set()
        file = self.world.send(self.one)
        self.assertEqual((set(self.objects.objects), self.one._unstored), ({file.id}, set()))

    def test_file_that_was_removed_while_it_arrived_is_not_stored(self) -> None:
        """Its pieces do not follow each other any more: its sender is asked to send it again."""
        with mock.patch.object(self.objects, "put", return_value=False):
            self.assertRaises(Busy, self.world.send, self.one)
        self.assertEqual((self.objects.objects, self.records.totals().files), ({}, 0))

    def test_cluster_that_does_not_answer_leaves_nothing(self) -> None:
        """Whether it has done what was asked or not: its sender did not learn the id."""
        for when in ("before", "after"):
            for name in ("add", "store"):
                with self.subTest(fails=name, when=when):
                    failing = getattr(self.world.calls, when)
                    failing.update({name, "remove"})
                    self.assertRaises(Busy, self.world.send, self.one)
                    failing.clear()
                    now(self.one.sweep(acts=False))
                    self.assertEqual((self.objects.objects, self.records.totals().files), ({}, 0))
                    self.assertEqual((self.world.names("one"), self.one.quotas.arriving), ([], 0))

    def test_relay_that_knows_too_little_serves_nobody(self) -> None:
        """It may have missed that somebody has lost a right."""
        file = self.world.send(self.one)
        self.world.ready["one"] = False
        self.assertRaises(Busy, self.one.begin, self.world.alice, HOME, 5)
        self.assertRaises(Busy, now, self.one.find(self.world.alice, file.id))
        self.assertEqual((self.one.counts.refused, self.world.read(self.two, file.id)), (1, DATA))

    def test_bounds_hold_over_all_relays(self) -> None:
        """Who sends is told while the file arrives; and when it is whole, if others were faster."""
        big = b"x" * MIB
        for files in (self.one, self.two, self.one):
            self.world.send(files, big)
        upload = self.two.begin(self.world.alice, HOME, MIB)
        self.assertTrue(upload.write(big[1:]))
        self.assertRaises(Limited, now, upload.finish())
        with mock.patch.object(SharedFiles, "_look_for_room", side_effect=Busy("It is busy.", 1)):
            self.assertRaises(Limited, self.world.send, self.two, big)
        self.assertRaises(TooLarge, self.one.begin, self.world.alice, HOME, 3 * MIB)
        self.assertEqual((self.records.totals().files, len(self.objects.objects), self.two.quotas.bytes), (3, 3, 0))
        self.assertEqual(self.one.used_by_guests_bytes, 0)
        self.world.send(self.two, token=self.world.guest())
        self.assertEqual(self.one.used_by_guests_bytes, 4096)

    def test_guest_who_has_many_files_is_told(self) -> None:
        """They are bounded, however small."""
        self.patch(sent_files_module, "MAX_GUEST_FILES", 2)
        guest = self.world.guest()
        for _ in range(2):
            self.world.send(self.one, token=guest)
        refused = self.assertRaises(Limited, self.world.send, self.two, DATA, guest)
        self.assertIn("1,000 files", refused.sentence)
        self.world.send(self.two)

    def test_whoever_was_deleted_or_signed_out_meanwhile_has_sent_nothing(self) -> None:
        """Before the bytes are in the object store, and behind that."""
        admin = self.world.stack.store.administration
        entry = AuditEntry(1, "admin.test", actor="root")
        upload = self.one.begin(self.world.alice, HOME, len(DATA))
        upload.write(DATA)
        admin.delete(upload.record.subject, entry, erases_messages=False)
        self.assertRaises(Unauthenticated, now, upload.finish())
        token = self.world.register("ben")

        def revoke(name: str) -> None:
            if name == "put":
                now(self.world.stack.accounts.logout(token, HOME))

        with mock.patch.object(self.objects, "_check", side_effect=revoke):
            self.assertRaises(Refusal, self.world.send, self.one, DATA, token)
        self.assertEqual((self.objects.objects, self.records.totals().files), ({}, 0))

    def test_those_who_read_at_once_share_one_copy(self) -> None:
        """And what became of it: the bytes, or that the engine does not answer."""
        file = self.world.send(self.one)
        for fails in (True, False):
            self.objects.failing = {"get"} if fails else set()
            self.objects.waiting, self.objects.gets = [], 0
            opening = [Deferred.fromCoroutine(self.two.open(self.world.alice, HOME, file)) for _ in range(3)]
            (waiting,) = self.objects.waiting
            waiting.callback(None)
            for each in opening:
                if fails:
                    self.failureResultOf(each, Busy)
                else:
                    self.successResultOf(each).close()
            self.assertEqual((self.objects.gets, self.two._fetching, self.two._reading), (1, {}, {}))
            self.assertEqual(self.world.names("two"), [] if fails else [file.id])

    def test_file_that_is_removed_while_it_is_copied_leaves_no_copy(self) -> None:
        """Its reader is told that it is gone."""
        file = self.world.send(self.one)
        self.objects.waiting = []
        opening = Deferred.fromCoroutine(self.two.open(self.world.alice, HOME, file))
        self.records.remove(file.id)
        self.objects.waiting[0].callback(None)
        self.failureResultOf(opening, Missing)
        self.assertEqual(self.world.names("two"), [])

    def test_object_that_is_lost_is_said(self) -> None:
        """The log names it."""
        file = self.world.send(self.one)
        self.objects.objects.clear()
        self.assertRaises(Missing, now, self.two.open(self.world.alice, HOME, file))
        self.assertEqual((self.world.names("two"), self.world.read(self.one, file.id)), ([], DATA))

    def test_copies_that_others_displace_at_once_are_tried_again(self) -> None:
        """Some times."""
        file = self.world.send(self.one)
        with mock.patch.object(FileCache, "reader", return_value=None):
            self.assertRaises(Busy, now, self.two.open(self.world.alice, HOME, file))

    def test_copy_that_cannot_be_kept_is_no_failure_of_the_upload(self) -> None:
        """The object store has it."""
        with mock.patch.object(FileCache, "keep", side_effect=OSError("broken")):
            file = self.world.send(self.one)
        self.assertEqual(self.world.read(self.two, file.id), DATA)

    def test_sweep_removes_what_relays_have_left_that_ended(self) -> None:
        """Records that are not stored for an hour, and objects without a record; nothing that is needed."""
        file = self.world.send(self.one)
        left, arriving = file._replace(id="e" * 32), file._replace(id="f" * 32)
        self.records.add(left, self.one._bounds)
        self.objects.objects |= {left.id: b"he", "0" * 32: b"orphan"}
        now(self.two.sweep(acts=True))
        self.assertEqual(set(self.objects.objects), {file.id, left.id})
        self.records.add(arriving, self.one._bounds)
        self.objects.objects[arriving.id] = b"he"
        now(self.two.sweep(acts=True))
        self.assertEqual(set(self.objects.objects), {file.id, arriving.id})
        self.assertEqual(self.records.missing([file.id, left.id, arriving.id]), [left.id])
        self.objects.failing = {"names"}
        now(self.two.sweep(acts=True))

    def test_sweep_removes_no_objects_whose_records_are_lost(self) -> None:
        """As where the cluster has begun anew beside its old object store; a few are what failures leave."""
        self.patch(shared_module, "MOST_LEFT", 3)
        files = [self.world.send(self.one) for _ in range(4)]
        self.objects.objects |= {f"{number:032x}": b"orphan" for number in range(900, 904)}
        now(self.two.sweep(acts=True))
        self.assertEqual(set(self.objects.objects), {file.id for file in files})
        for file in files:
            self.records.remove(file.id)
        now(self.two.sweep(acts=True))
        self.assertEqual(set(self.objects.objects), {file.id for file in files})

    def test_sweep_puts_back_what_the_object_store_has_lost(self) -> None:
        """As far as there are copies: of a file that was removed nothing comes back."""
        kept, gone, elsewhere = (self.world.send(self.one) for _ in range(3))
        self.one._cache.forget([elsewhere.id])
        self.records.remove(gone.id)
        self.objects.objects.clear()
        now(self.one.sweep(acts=False))
        self.assertEqual(self.objects.objects, {kept.id: DATA})
        now(self.two.sweep(acts=False))
        self.assertEqual(self.objects.objects, {kept.id: DATA})
        self.objects.objects.clear()
        self.objects.is_full = True
        now(self.one.sweep(acts=True))

    def test_sweep_puts_back_what_the_object_store_has_lost_in_part(self) -> None:
        """What is left of it is removed before; what another relay has put back meanwhile stays."""
        cut, endless, restored = (self.world.send(self.one) for _ in range(3))
        self.objects.objects[cut.id] = DATA[1:]
        self.objects.endless = {endless.id}
        self.objects.objects[restored.id] = DATA[1:]
        names = self.objects.names

        async def restore(file_id: str | None = None) -> dict[str, int | None]:
            found = await names(file_id)
            self.objects.objects[restored.id] = DATA
            return found

        with mock.patch.object(self.objects, "names", restore):
            now(self.one.sweep(acts=False))
        self.assertEqual(self.objects.objects, dict.fromkeys((cut.id, endless.id, restored.id), DATA))
        self.assertEqual(self.objects.endless, set())

    def test_sweep_puts_back_nothing_that_was_removed(self) -> None:
        """A relay that does not know what it has missed waits; the one that decides has the last word."""
        file = self.world.send(self.one)
        self.objects.objects.clear()
        self.world.ready["one"] = False
        now(self.one.sweep(acts=True))
        self.world.ready["one"] = True
        with mock.patch.object(SentFileStore, "confirm_missing", __name__="confirm_missing", side_effect=list):
            now(self.one.sweep(acts=False))
        self.assertEqual(self.objects.objects, {})
        now(self.one.sweep(acts=False))
        self.assertEqual(self.objects.objects, {file.id: DATA})

    def test_copy_that_cannot_be_read_does_not_keep_others_from_being_put_back(self) -> None:
        """A damaged one is removed; others stay where the relay only cannot open them now."""
        bad, good, other = (self.world.send(self.one) for _ in range(3))
        (self.world.folder / "one" / bad.id).write_bytes(b"he")
        reader = FileCache.reader

        def open_copy(cache: FileCache, file_id: str) -> FileReader | None:
            if file_id == other.id:
                raise OSError(errno.EMFILE, "Too many open files")
            return reader(cache, file_id)

        async def put(file_id: str, size_bytes: int, read: Callable[[int, int], Awaitable[bytes]]) -> bool:
            data = await read(0, size_bytes)
            if len(data) < size_bytes:
                raise OSError("too short")
            self.objects.objects[file_id] = data
            return True

        self.objects.objects.clear()
        with mock.patch.object(FileCache, "reader", open_copy), mock.patch.object(self.objects, "put", put):
            now(self.one.sweep(acts=True))
        self.assertEqual(self.objects.objects, {good.id: DATA})
        self.assertEqual(self.world.names("one"), sorted([good.id, other.id]))

    def test_fault_of_a_sweep_is_logged(self) -> None:
        """What else is done once an hour is done all the same."""
        with mock.patch.object(self.objects, "names", side_effect=ValueError("broken")):
            now(self.one.sweep(acts=True))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_sweep_removes_no_file_that_is_stored_by_now(self) -> None:
        """A relay that decides no longer may take it for one that is not: the record says so."""
        file = self.world.send(self.one)
        with mock.patch.object(SentFileStore, "arriving", return_value=[file.id]):
            for _ in range(2):
                now(self.two.sweep(acts=True))
        self.assertEqual((self.objects.objects, self.records.find(file.id)), ({file.id: DATA}, file))

    def test_sweep_removes_no_object_whose_record_this_relay_does_not_know(self) -> None:
        """It may decide no longer, and not know that: the relay that decides has the last word."""
        file = self.world.send(self.one)
        with (
            mock.patch.object(SentFileStore, "missing", side_effect=list),
            mock.patch.object(SentFileStore, "confirm_missing", __name__="confirm_missing", return_value=[]),
        ):
            now(self.two.sweep(acts=True))
        self.assertEqual(set(self.objects.objects), {file.id})

    def test_start_forgets_copies_of_what_is_gone(self) -> None:
        """Likewise where all rows were replaced."""
        gone, kept = self.world.send(self.one), self.world.send(self.one)
        self.records.remove(gone.id)
        again = self.world.relay("one")
        self.assertEqual((self.world.names("one"), again.stored), ([kept.id], 1))
        self.records.remove(kept.id)
        now(again.reload())
        self.assertEqual((self.world.names("one"), again.stored, again.copies), ([], 0, (0, 0)))

    def test_totals_are_read_once_for_all_that_changes_meanwhile(self) -> None:
        """And not again and again."""
        sql = SteppedWorkers()
        files = self.world.relay("one", sql)
        for _ in range(5):
            files.follow([])
        self.assertEqual(len(sql.steps), 1)
        sql.finish()
        self.assertEqual(files.stored, 0)

    def test_guest_who_registers_has_the_files(self) -> None:
        """The record changes with the account."""
        guest = self.world.guest()
        file = self.world.send(self.one, token=guest)
        self.assertNotEqual(file.origin, b"")
        now(self.world.stack.accounts.register("Gus", "password 1", file.subject, guest, HOME))
        now(self.two.registered(file.subject))
        self.assertEqual(self.records.find(file.id), file._replace(origin=b""))

    def test_client_addresses_take_turns_with_the_object_store(self) -> None:
        """Who reads one file waits for one of each other address, however many files those read."""
        self.patch(files_module, "READS_PER_ADDRESS", 9)
        sent = [self.world.send(self.one) for _ in range(9)]
        self.objects.waiting = []
        places = [HOME] * 8 + ["203.0.113.9"]
        opening = [
            Deferred.fromCoroutine(self.two.open(self.world.alice, place, file))
            for place, file in zip(places, sent, strict=True)
        ]
        for place in range(6):
            self.objects.waiting[place].callback(None)
        self.successResultOf(opening[8]).close()
        for place in range(6, 9):
            self.objects.waiting[place].callback(None)
        for each in opening[:8]:
            self.successResultOf(each).close()

    def test_a_few_files_are_on_their_way_at_once(self) -> None:
        """What relays tell each other does not wait behind many."""
        self.assertEqual(self.one._to_store.free, 4)
        self.patch(files_module, "READS_PER_ADDRESS", 9)
        sent = [self.world.send(self.one) for _ in range(6)]
        self.objects.waiting = []
        opening = [Deferred.fromCoroutine(self.two.open(self.world.alice, HOME, file)) for file in sent]
        self.assertEqual(len(self.objects.waiting), 4)
        for place in range(6):
            self.objects.waiting[place].callback(None)
        for each in opening:
            self.successResultOf(each).close()
