"""Tests of clasp_relay.cluster.accounts.account_deciding; the loss of calls is tested in test_shared_accounts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.accounts import account_deciding as module
from clasp_relay.cluster.accounts.account_asking import Call, CallPacket
from clasp_relay.cluster.accounts.account_calls import Failed, Methods, decode_outcome, method_of
from clasp_relay.cluster.accounts.account_deciding import AccountDecider
from clasp_relay.cluster.accounts.account_records import Record, record_of
from clasp_relay.cluster.deciding.batch_log import BatchLog
from clasp_relay.cluster.exchange.batches import Group
from clasp_relay.core.records import ChangeKind
from clasp_relay.storage.sent_files import MAX_GUEST_FILES
from clasp_relay.storage.users import Claim
from clasp_relay.storage.users_rows import OtherAccounts, Row, Told
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.storage.test_sent_files import file_of
from tests.storage.test_users_sqlite import GUEST, NO_PROOF, NOW_S, keys_of, token, user

TOLD = Told(b"file", 3)


def invite(name: bytes) -> tuple[str, bytes]:
    """Returns a call that makes an invite."""
    return "users.add_invite", method_of("users.add_invite").encode_arguments((name, NOW_S, None, 1), {})


class DecidingTests(SynchronousTestCase):
    """A decider and its file."""

    def setUp(self) -> None:
        """Makes them."""
        self.clock = Clock()
        self.store = SqliteUsers(None, keys_of)
        self.addCleanup(self.store.close)
        self.store.rows.begin()
        self.log = BatchLog(lambda change: change)
        self.resent: list[str] = []
        self.head = (0, b"")
        self.decider = AccountDecider(
            3,
            self.log,
            lambda: 17,
            self.store,
            self._on_thread,
            Methods(self.store),
            lambda: self.head,
            self.resent.append,
            self.clock.callLater,
            lambda link: link == "r1",
        )

    def _on_thread(self, work: Callable[[], Any]) -> Deferred[Any]:
        return execute(work)

    def ask(self, *calls: tuple[str, bytes], link: str = "r1", first: int = 1, previous: int = 0) -> None:
        """Asks calls in one packet."""
        numbered = tuple(Call(number, *call) for number, call in enumerate(calls, first))
        self.decider.receive(CallPacket(link, 3, not previous, previous, numbered))
        self.decider.go_on()

    def records(self) -> list[Record]:
        """Returns what was gathered for the log, and has the file follow it."""
        items, self.log.items = self.log.items, []
        found = []
        for item in items:
            assert isinstance(item, Group), "only changes are gathered here"
            record, digest = record_of(item.changes[0])
            self.head = record.number, digest
            calls = [(done.link, done.number) for done in record.done]
            self.store.rows.follow(record.number, digest, record.rows, calls)
            self.decider.recorded()
            found.append(record)
        return found

    def numbers(self, records: Sequence[Record]) -> list[list[int]]:
        """Returns which calls are done with which record."""
        return [[done.number for done in record.done] for record in records]

    def test_calls_that_wait_are_one_record(self) -> None:
        """In the journal's rows, too; the next ones wait until it is written."""
        self.decider.go_on()
        self.ask(invite(b"1"), invite(b"2"))
        self.ask(invite(b"3"), first=3, previous=2)
        self.assertEqual([row[0].kind for row in self.log.rows], [ChangeKind.ACCOUNTS])
        self.assertEqual(self.numbers(self.records()), [[1, 2]])
        self.decider.go_on()
        self.assertEqual(self.numbers(self.records()), [[3]])

    def test_guest_with_many_files_registers(self) -> None:
        """The rows of all that a guest may have, and of what was adopted beyond that, fit one record."""
        guest = "g" * 64
        self.store.add_guest_token(token("g", guest, guest=True), GUEST, NO_PROOF)
        for number in range(6 * MAX_GUEST_FILES):
            self.store.files.adopt(file_of(number, guest, b"o" * 16))
        self.store.rows.begin()
        account = (user(guest, "Gast"), keys_of("Gast"), token("h", guest), Claim(None, True, NOW_S))
        self.ask(("users.add_user", method_of("users.add_user").encode_arguments(account, {})))
        (record,) = self.records()
        decode_outcome("users.add_user", record.done[0].outcome)
        self.assertEqual([use.files for use in self.store.files.usage([guest])], [6 * MAX_GUEST_FILES])

    def test_what_was_done_is_left_out(self) -> None:
        """By the file, before this decider's time, and by this one."""
        self.store.rows.follow(1, b"d", [], [("r1", 2)])
        self.head = (1, b"d")
        self.ask(invite(b"1"), invite(b"2"), invite(b"3"))
        self.assertEqual(self.numbers(self.records()), [[3]])
        self.ask(invite(b"2"), invite(b"3"), invite(b"4"), first=2)
        self.assertEqual(self.numbers(self.records()), [[4]])

    def test_a_call_that_is_missing_is_wanted(self) -> None:
        """What is behind it waits for it; a packet for another epoch is none of this one's."""
        self.decider.go_on()
        self.ask(invite(b"3"), first=3, previous=2)
        self.assertEqual((self.resent, self.records()), (["r1"], []))
        self.decider.receive(CallPacket("r1", 2, True, 0, (Call(1, *invite(b"1")),)))
        self.decider.go_on()
        self.assertEqual(self.records(), [])

    def test_what_cannot_be_called_fails_alone(self) -> None:
        """Whoever asked is told."""
        self.decider.go_on()
        self.ask(("users.close", b"\x90"), ("users.revoke", b"\xc1"), invite(b"1"))
        (record,) = self.records()
        for done in record.done[:2]:
            self.assertRaises(Failed, decode_outcome, "users.revoke", done.outcome)
        self.assertEqual(len(self.store.invites(NOW_S)), 1)

    def test_records_are_bounded(self) -> None:
        """What does not fit any more is attempted again; what never fits fails."""
        self.patch(module, "MAX_RECORD_BYTES", 200)
        self.patch(module, "TOO_LARGE_BYTES", 300)
        rows = [Row("choices", (f"{number}",), ("x" * 90,)) for number in range(4)]
        put = [("rows.put", method_of("rows.put").encode_arguments((rows[:count], TOLD), {})) for count in (1, 1, 4, 1)]
        self.decider.go_on()
        self.ask(*put)
        found = []
        while records := self.records():
            found += records
            self.decider.go_on()
        self.assertEqual(self.numbers(found), [[1], [2], [3], [4]])
        self.assertRaises(Failed, decode_outcome, "rows.put", found[2].done[0].outcome)
        self.assertEqual(found[2].rows, ())

    def test_accounts_from_before_are_one_relay_s(self) -> None:
        """The first one's, in as many parts as it takes; also where another one decides meanwhile."""
        put = "rows.put_base", method_of("rows.put_base").encode_arguments(([Row("choices", ("a",), ("1",))], TOLD), {})
        self.decider.go_on()
        self.ask(put)
        self.ask(put, link="r2")
        self.ask(put, first=2, previous=1)
        found = []
        while records := self.records():
            found += records
            self.decider.go_on()
        outcomes = {(done.link, done.number): done.outcome for record in found for done in record.done}
        self.assertRaises(OtherAccounts, decode_outcome, "rows.put_base", outcomes["r2", 1])
        self.assertIsNone(decode_outcome("rows.put_base", outcomes["r1", 1]))
        self.assertIsNone(decode_outcome("rows.put_base", outcomes["r1", 2]))

    def test_a_decider_that_was_deposed_records_nothing(self) -> None:
        """What was at work on its thread comes too late."""
        waiting: list[Deferred[Any]] = []
        self.decider.go_on()
        self.decider._run = lambda _: waiting.append(Deferred()) or waiting[-1]  # type: ignore[func-returns-value]
        self.ask(invite(b"1"))
        self.decider.stop()
        waiting[0].callback([])
        self.assertEqual(self.log.items, [])
        self.ask(invite(b"2"), first=2, previous=1)
        self.assertEqual(len(waiting), 1)
