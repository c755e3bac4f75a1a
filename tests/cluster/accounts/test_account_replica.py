"""Tests of clasp_relay.cluster.accounts.account_replica; images are tested in test_account_images."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.errors import StartError
from tests.access.stack import SteppedWorkers
from tests.cluster.account_world import AccountCase, Member, World
from tests.storage.test_users_rows import everything
from tests.storage.test_users_sqlite import NOW_S


class WriteTests(AccountCase):
    """What is read of the log is written."""

    def test_the_answer_comes_when_this_relay_has_it(self) -> None:
        """So whoever was answered finds what was done."""
        self.two.sql = sql = SteppedWorkers()
        self.two.accounts._sql = sql
        asked = self.register(self.two)
        self.world.turn()
        self.assertEqual(len(self.world.log), 1)
        self.assertNoResult(asked)
        self.assertIsNotNone(self.one.store.user("u1"))
        self.assertTrue(self.two.memory.followed, "memory has it before the file")
        sql.finish()
        self.successResultOf(asked)
        self.assertIsNotNone(self.two.store.user("u1"))

    def test_a_file_that_cannot_be_written_ends_the_relay(self) -> None:
        """It would not be what the others have."""

        def broken(*_args: Any) -> Any:
            raise OSError("disk full")

        self.three.store.rows.follow = broken  # type: ignore[method-assign,assignment]
        self.done(self.register(self.two))
        self.assertEqual(len(self.three.fatal), 1)
        self.assertIn("users.db cannot be written", self.three.fatal[0])


class PositionTests(SynchronousTestCase):
    """A record follows the one that the file has."""

    def test_a_file_goes_on_from_the_journal(self) -> None:
        """What was in the log and not yet in the file is written at the next start."""
        world = World()
        one, two = world.started("one", "two")
        for number in range(5):
            one.run(one.store.add_invite, b"%d" % number, NOW_S, None, 1)
            world.turn()
        behind = Member(world, "three")
        behind.accounts.replica.catch_up(world.log[:2])
        behind.accounts.replica.catch_up(world.log)
        self.assertEqual(everything(behind.store), everything(two.store))
        self.assertEqual(behind.memory.followed, behind.memory.in_file)
        gap = Member(world, "four")
        self.assertRaisesRegex(StartError, "empty data-dir", gap.accounts.replica.catch_up, world.log[1:])

    def test_a_log_of_another_cluster_is_refused(self) -> None:
        """Its records do not follow those that the file has."""
        world, other = World(), World()
        (one,), (two,) = world.started("one"), other.started("two")
        for member, name in ((one, b"a"), (two, b"b")):
            member.run(member.store.add_invite, name, NOW_S, None, 1)
            member.run(member.store.add_invite, name * 2, NOW_S, None, 1)
            member.cluster.turn()
            member.run(member.store.add_invite, name * 3, NOW_S, None, 1)
            member.cluster.turn()
        other_one = Member(world, "other one")
        other_one.accounts.replica.follow(world.log[0])
        other_one.accounts.replica.follow(world.log[0])
        self.assertEqual(other_one.fatal, [])
        other_one.accounts.replica.follow(other.log[0])
        self.assertEqual(len(other_one.fatal), 1)
        stray = Member(world, "stray")
        stray.accounts.replica.follow(world.log[0])
        stray.accounts.replica.follow(other.log[1])
        self.assertEqual(len(stray.fatal), 1)
        self.assertIn("does not go on where users.db is", stray.fatal[0])
        stray.accounts.replica.follow(world.log[1])
        self.assertEqual(len(stray.fatal), 1)
