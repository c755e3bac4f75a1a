"""Tests of clasp_relay.cluster.accounts.account_images: a relay takes over all accounts of another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
from twisted.internet.defer import fail
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.refusals import Busy
from clasp_relay.cluster.accounts.account_images import NoAccounts, decode_pieces, encode_head, encode_rows
from clasp_relay.errors import DecodeError
from clasp_relay.storage.audit import AuditEntry
from clasp_relay.storage.users import StoreBusy
from clasp_relay.storage.users_rows import Position, Row, Snapshot
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.cluster.account_world import Member, World
from tests.storage.test_users_rows import CALLS, everything
from tests.storage.test_users_sqlite import NO_PROOF, NOW_S, keys_of, token, user


class PieceTests(SynchronousTestCase):
    """The pieces."""

    def test_pieces_are_read_as_they_were_written(self) -> None:
        """The rows one piece after the other."""
        rows = [Row("users", ("u",), ("n", b"x", 5, None)), Row("choices", ("c",), None)]
        pieces = [encode_head(Position(7, b"d", b"o"), {"r1": 3}), encode_rows(rows), encode_rows(rows[:1])]
        position, calls, found = decode_pieces(pieces)
        self.assertEqual((position, calls), (Position(7, b"d", b"o"), {"r1": 3}))
        self.assertEqual(list(found), [rows, rows[:1]])

    def test_what_is_no_piece_is_refused(self) -> None:
        """Another version, too."""
        for head in (b"\xc1", b"", b"\x90", msgpack.packb(5), msgpack.packb((2, 1, b"", {})), msgpack.packb((1, 2))):
            with self.subTest(head=head):
                self.assertRaises(DecodeError, decode_pieces, [head])
        _, _, rows = decode_pieces([encode_head(Position(1, b""), {}), b"\xc1"])
        self.assertRaises(DecodeError, list, rows)

    def test_a_relay_in_open_mode_has_none(self) -> None:
        """And takes none."""
        found: list[object] = []
        NoAccounts().capture(found.append, lambda: None)
        NoAccounts().install([], lambda: found.append("done"))
        self.assertEqual(found, [[], "done"])


class ImageTests(SynchronousTestCase):
    """A relay with accounts, and one that joins."""

    def setUp(self) -> None:
        """Starts two relays; much has happened."""
        self.world = World()
        self.one, self.two = self.world.started("one", "two")
        for _, call in CALLS[:20]:
            call(self.one.store)
        self.world.advance(1)

    def captured(self, member: Member) -> list[bytes]:
        """Returns an image, made with a sign of life for each of its pieces."""
        found: list[list[bytes]] = []
        signs: list[int] = []
        member.accounts.replica.capture(found.append, lambda: signs.append(1))
        self.world.advance(1)
        self.assertEqual(len(signs), len(found[0]))
        return found[0]

    def newcomer(self, store: SqliteUsers | None = None) -> Member:
        """Returns a relay that has not joined yet."""
        member = Member(self.world, "new", store)
        member.followed = len(self.world.log)
        return member

    def test_a_newcomer_has_all_and_follows(self) -> None:
        """Memory takes it as a whole; what the log has behind it comes by itself."""
        pieces = self.captured(self.two)
        self.one.run(self.one.store.add_invite, b"behind", NOW_S, None, 1)
        self.world.turn()
        newcomer = self.newcomer()
        done: list[int] = []
        newcomer.accounts.replica.install(pieces, lambda: done.append(newcomer.accounts.replica.number))
        self.assertEqual(done, [len(self.world.log) - 1])
        self.assertEqual(newcomer.memory.reloaded, 1)
        newcomer.followed = 0
        self.world.begin(newcomer)
        self.world.advance(1)
        self.assertEqual(everything(newcomer.store), everything(self.one.store))
        self.world.decide(newcomer)
        asked = self.two.run(self.two.store.administration.choose, {"a": "1"}, AuditEntry(NOW_S, "a"))
        self.world.advance(1)
        self.successResultOf(asked)
        self.assertEqual(everything(newcomer.store), everything(self.one.store))
        self.assertEqual(newcomer.fatal, [])

    def test_a_look_up_waits_for_no_more_than_the_image(self) -> None:
        """What the decider had when it was asked is in it."""
        pieces = self.captured(self.two)
        newcomer = self.world.begin(self.newcomer())
        asked = newcomer.run(newcomer.store.user, "nobody")
        self.world.turn()
        self.assertNoResult(asked)
        newcomer.accounts.replica.install(pieces, lambda: None)
        self.assertIsNone(self.successResultOf(asked))

    def test_a_file_that_is_held_is_waited_for(self) -> None:
        """For its rows, and for what memory takes from it; not after the end."""
        pieces = self.captured(self.one)
        newcomer, ended = self.newcomer(), self.newcomer()
        done: list[str] = []
        installs = [member.store.rows.install for member in (newcomer, ended)]

        def held(*args: Any) -> None:
            next(args[2])
            raise StoreBusy("users.db")

        for member in (newcomer, ended):
            member.store.rows.install = held  # type: ignore[method-assign,assignment]
        newcomer.accounts.replica.install(pieces, lambda: done.append("joined"))
        ended.accounts.replica.install(pieces, lambda: self.fail("taken over"))
        self.world.advance(1)
        ended.accounts.stop()
        reload, is_busy = newcomer.memory.reload, [True]
        newcomer.memory.reload = lambda: fail(Busy("", 5)) if is_busy else reload()  # type: ignore[method-assign]
        for member, install in zip((newcomer, ended), installs, strict=True):
            member.store.rows.install = install  # type: ignore[method-assign]
        self.world.advance(1)
        self.assertEqual((done, ended.store.invites(NOW_S)), ([], []))
        self.assertEqual(everything(newcomer.store), everything(self.one.store))
        is_busy.clear()
        self.world.advance(1)
        self.assertEqual((done, newcomer.fatal, ended.fatal), (["joined"], [], []))

    def test_an_image_is_of_one_moment(self) -> None:
        """Whatever is written while it is made."""
        path = Path(self.mktemp())
        path.mkdir()
        store = SqliteUsers(path / "users.db", keys_of)
        self.addCleanup(store.close)
        for number in range(1_500):
            store.add_invite(b"%d" % number, NOW_S, None, 1)
        store.rows.begin()
        snapshot = store.rows.snapshot()
        rows = snapshot.next_rows()
        store.rows.follow(1, b"d", [Row("invites", (b"later",), (NOW_S, None, 1))], [("r1", 1)])
        while more := snapshot.next_rows():
            rows += more
        self.assertEqual(len([row for row in rows if row.table == "invites"]), 1_500)
        self.assertEqual((snapshot.position.number, snapshot.calls), (0, {}))

    def test_what_is_not_written_yet_is_waited_for(self) -> None:
        """An image has all that the state beside it may refer to."""
        follow = self.two.store.rows.follow
        held: list[Any] = []
        self.two.accounts.replica._write = lambda: held.append(1)  # type: ignore[method-assign]
        self.one.run(self.one.store.add_invite, b"x", NOW_S, None, 1)
        self.world.turn()
        found: list[list[bytes]] = []
        self.two.accounts.replica.capture(found.append, lambda: None)
        self.world.advance(1)
        self.assertEqual((found, bool(held)), ([], True))
        del self.two.accounts.replica._write
        self.two.accounts.replica._write()
        self.world.advance(1)
        self.assertEqual(decode_pieces(found[0])[0].number, len(self.world.log))
        self.assertIsNotNone(follow)

    def test_an_image_that_cannot_be_made_lets_the_file_go(self) -> None:
        """Whoever waits for it asks again."""
        closed: list[int] = []
        faults = [StoreBusy("users.db"), OSError("disk")]

        def fails(_: Snapshot) -> list[Row]:
            raise faults.pop(0)

        self.patch(Snapshot, "next_rows", fails)
        self.patch(Snapshot, "close", lambda _: closed.append(len(faults)))
        for _ in range(2):
            self.one.accounts.replica.capture(lambda _: self.fail("made"), lambda: None)
        self.assertEqual(closed, [1, 0])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_an_image_that_waits_when_its_relay_ends_is_never_made(self) -> None:
        """And nothing is left that looks for it."""
        self.two.accounts.replica._write = lambda: None  # type: ignore[method-assign]
        self.one.run(self.one.store.add_invite, b"x", NOW_S, None, 1)
        self.world.turn()
        self.two.accounts.replica.capture(lambda _: self.fail("made"), lambda: None)
        for member in (self.one, self.two):
            member.accounts.stop()
        self.world.advance(1)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_a_relay_with_accounts_of_its_own_takes_none(self) -> None:
        """It stops, with a line."""
        store = SqliteUsers(None, keys_of)
        self.addCleanup(store.close)
        store.add_user(user(), keys_of("Alice"), token("a"), NO_PROOF)
        newcomer = self.newcomer(store)
        newcomer.accounts.replica.install(self.captured(self.one), lambda: self.fail("taken over"))
        self.assertEqual(len(newcomer.fatal), 1)
        self.assertIn("not those of the cluster", newcomer.fatal[0])

    def test_a_relay_with_accounts_of_another_cluster_takes_none(self) -> None:
        """Nor one that has more than this cluster."""
        other = World()
        (stray,) = other.started("stray")
        stray.run(stray.store.add_invite, b"x", NOW_S, None, 1)
        other.turn()
        pieces = self.captured(self.one)
        stray.accounts.replica.install(pieces, lambda: self.fail("taken over"))
        ahead, _ = Member(self.world, "ahead"), self.one.run(self.one.store.add_invite, b"x", NOW_S, None, 1)
        self.world.turn()
        ahead.take_log()
        ahead.accounts.replica.install(pieces, lambda: self.fail("taken over"))
        for member in (stray, ahead):
            self.assertEqual(len(member.fatal), 1)

    def test_where_the_cluster_has_no_accounts_yet_a_relay_keeps_its_own(self) -> None:
        """They become the cluster's."""
        world = World()
        one = world.add("one")
        done: list[str] = []
        store = SqliteUsers(None, keys_of)
        self.addCleanup(store.close)
        store.add_user(user(), keys_of("Alice"), token("a"), NO_PROOF)
        two = Member(world, "two", store)
        pieces: list[list[bytes]] = []
        one.accounts.replica.capture(pieces.append, lambda: None)
        two.accounts.replica.install(pieces[0], lambda: done.append("joined"))
        self.assertEqual((done, two.fatal), (["joined"], []))
        world.begin(two)
        world.decide(one)
        world.advance(1)
        self.assertIsNotNone(one.store.user("u1"))

    def test_an_image_that_cannot_be_used_ends_the_relay(self) -> None:
        """With a line that says so."""
        good = self.captured(self.one)
        for pieces in ([], [b"\xc1"], [*good, b"\xc1"]):
            newcomer = self.newcomer()
            newcomer.accounts.replica.install(pieces, lambda: self.fail("taken over"))
            self.assertEqual(len(newcomer.fatal), 1)
            self.assertEqual(newcomer.store.invites(NOW_S), [])
