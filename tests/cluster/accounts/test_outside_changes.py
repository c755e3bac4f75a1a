"""Tests of clasp_relay.cluster.accounts.outside_changes: what one relay's file has and the log has not comes to all."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.refusals import Busy
from clasp_relay.storage.devices import DeviceToken
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.cluster.account_world import ENTRY, AccountCase, World
from tests.storage.test_users_rows import everything
from tests.storage.test_users_sqlite import NO_PROOF, NOW_S, keys_of, token, user


class OutsideTests(AccountCase):
    """What commands change in the files of a relay."""

    def test_a_device_token_of_a_command_is_everywhere_within_a_second(self) -> None:
        """And so is its end, made at another relay."""
        device = DeviceToken("d1", b"d", "clasp.device.d1", "lamp", ("read:/**",), NOW_S, None)
        self.two.store.devices.add(device, is_own_subject=True)
        self.world.advance(1)
        self.assertEqual([len(each.store.devices.all()) for each in self.world.members], [1, 1, 1])
        self.three.store.devices.revoke("d1", NOW_S)
        self.world.advance(1)
        self.assertEqual([len(each.store.devices.all()) for each in self.world.members], [0, 0, 0])
        self.assert_alike()

    def test_many_changes_are_told_in_parts(self) -> None:
        """All of them arrive."""
        for number in range(900):
            self.two.store.add_invite(b"%d" % number, NOW_S, None, 1)
        self.world.advance(2)
        self.assertEqual(len(self.three.store.invites(NOW_S)), 900)
        self.assert_alike()

    def test_long_rows_are_told_in_small_parts(self) -> None:
        """No message of the bus could carry all of them."""
        entry = ENTRY._replace(detail={"text": "x" * 4_000})
        self.two.store.audit.add([entry._replace(target=f"{number}") for number in range(300)])
        self.world.advance(3)
        found = [row.entry.target for row in self.three.store.audit.after(0, 1_000)]
        self.assertEqual(found, [f"{number}" for number in range(300)])
        self.assert_alike()

    def test_entries_of_the_audit_log_are_written_here_and_told(self) -> None:
        """Once each, with one number everywhere, also where another relay decides meanwhile, or this one ends."""
        for number in range(30):
            member = self.world.members[number % 3]
            self.successResultOf(member.run(member.store.audit.add, [ENTRY._replace(target=f"{number}")]))
            if number % 10 == 4:
                self.world.decide(self.world.members[number % 3])
            self.world.advance(0.1)
        self.world.advance(2)
        rows = self.two.store.audit.after(0, 100)
        self.assertEqual(sorted(int(row.entry.target) for row in rows), list(range(30)))
        self.assertEqual(rows, self.three.store.audit.after(0, 100))
        self.assert_alike()

    def test_what_could_not_be_told_is_told_later(self) -> None:
        """Nothing is lost while nobody decides."""
        self.world.is_stuck = True
        self.two.store.add_invite(b"i", NOW_S, None, 1)
        self.world.advance(7)
        self.world.is_stuck = False
        self.world.decide(self.three)
        self.world.advance(3)
        self.assertEqual(len(self.one.store.invites(NOW_S)), 1)
        self.assert_alike()


class BaseTests(SynchronousTestCase):
    """Files from before the cluster."""

    def used(self, name: str = "Alice") -> SqliteUsers:
        """Returns a file that a relay without a cluster has used."""
        store = SqliteUsers(None, keys_of)
        self.addCleanup(store.close)
        store.add_user(user("u1", name), keys_of(name), token("a"), NO_PROOF)
        return store

    def test_the_first_one_s_accounts_are_the_cluster_s(self) -> None:
        """Relays that come later have them; until then it takes no calls."""
        world = World()
        one, two = world.add("one", self.used()), world.add("two")
        self.assertTrue(one.accounts.replica.has_base)
        self.failureResultOf(one.run(one.store.revoke, b"", NOW_S), Busy)
        world.decide(one)
        world.advance(2)
        self.assertFalse(one.accounts.replica.has_base)
        self.assertTrue(one.accounts.is_ready)
        self.assertEqual(everything(one.store), everything(two.store))

    def test_they_are_so_where_another_one_decides(self) -> None:
        """One that has nothing."""
        world = World()
        one, two = world.add("one"), world.add("two", self.used())
        world.decide(one)
        world.advance(2)
        self.assertFalse(two.accounts.replica.has_base)
        self.assertEqual(everything(one.store), everything(two.store))

    def test_of_two_with_different_accounts_one_ends(self) -> None:
        """With one line that says what to do."""
        for decider in (0, 1):
            world = World()
            members = [world.add("one", self.used()), world.add("two", self.used("Bob"))]
            world.decide(members[decider])
            world.advance(2)
            other = members[1 - decider]
            self.assertEqual(members[decider].fatal, [])
            self.assertEqual(len(other.fatal), 1)
            self.assertIn("accounts that are not those of the cluster", other.fatal[0])
            self.assertIn("empty data-dir", other.fatal[0])

    def test_accounts_that_come_late_are_refused(self) -> None:
        """The cluster has its own by then."""
        world = World()
        one, _ = world.started("one", "two")
        one.run(one.store.administration.choose, {"a": "1"}, ENTRY)
        world.turn()
        late = world.add("late", self.used())
        world.advance(2)
        self.assertEqual(len(late.fatal), 1)
