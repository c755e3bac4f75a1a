"""Which session ids count as whose, and for how long."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access import session_ids
from clasp_relay.access.names import name_keys
from clasp_relay.access.session_ids import GATHER_S, KEPT_S, MAX_IDS_PER_SUBJECT, KnownSessionIds, SessionIdsOfAll
from clasp_relay.core.session.sessions import Session, SessionTable
from clasp_relay.storage.session_ids import GivenId
from clasp_relay.storage.users import StoreBusy
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.access.stack import InlineWorkers, SteppedWorkers
from tests.core.world import memory_session

SECOND_US = 1_000_000
START_US = 1_700_000_000 * SECOND_US


class Known:
    """The ids of one life of a relay, over a store that outlives it."""

    def __init__(self, store: SqliteUsers | None = None, workers: InlineWorkers | SteppedWorkers | None = None) -> None:
        self.now_us = START_US
        self.sessions = SessionTable()
        self.outdated: list[str] = []
        self.clock = Clock()
        self.ids = KnownSessionIds(self.sessions, lambda: self.now_us, self.outdated.append)
        if store is not None:
            self.ids.open(store.session_ids, workers or InlineWorkers(), self.clock)

    def begin(self, session_id: str, subject: str, token: bytes = b"t") -> Session:
        """A session begins."""
        session = memory_session(session_id, subject, token)
        self.sessions.add(session)
        self.ids.began(session)
        return session

    def owns(self, subject: str, session_id: str) -> bool:
        """Tells whether it is one's own now."""
        return self.ids.own_until_us(subject, session_id, self.now_us) is not None

    def later(self, seconds: float) -> None:
        """Lets time pass."""
        self.now_us += round(seconds * SECOND_US)
        self.clock.advance(seconds)


def memory_store() -> SqliteUsers:
    """Returns a store in memory."""
    return SqliteUsers(None, name_keys)


class OwnIdTests(SynchronousTestCase):
    """Whose an id is."""

    def test_id_is_its_subjects_while_connected_and_for_a_day(self) -> None:
        """And never somebody else's."""
        known = Known()
        session = known.begin("s1", "ann")
        self.assertEqual(known.outdated, ["s1"])
        self.assertEqual(
            (known.owns("ann", "s1"), known.owns("bob", "s1"), known.owns("ann", "s2")), (True, False, False)
        )
        known.later(2 * KEPT_S)
        self.assertTrue(known.owns("ann", "s1"))
        known.ids.renew()
        known.sessions.discard(session)
        known.later(KEPT_S - 1)
        self.assertTrue(known.owns("ann", "s1"))
        known.later(1)
        self.assertFalse(known.owns("ann", "s1"))
        known.later(1)
        known.ids.renew()
        self.assertEqual(len(known.ids), 0)

    def test_answer_says_until_when_it_holds(self) -> None:
        """At least until then, so that it can be remembered."""
        known = Known()
        session = known.begin("s1", "ann")
        self.assertEqual(known.ids.own_until_us("ann", "s1", known.now_us), START_US + KEPT_S * SECOND_US)
        known.later(KEPT_S)
        self.assertEqual(known.ids.own_until_us("ann", "s1", known.now_us), known.now_us + 1)
        known.sessions.discard(session)
        self.assertIsNone(known.ids.own_until_us("ann", "s1", known.now_us))

    def test_nobody_has_sessions_in_open_mode(self) -> None:
        """There are no subjects."""
        known = Known()
        known.begin("s1", "")
        self.assertEqual((len(known.ids), known.outdated), (0, []))

    def test_ids_are_bounded_for_each_subject(self) -> None:
        """The oldest goes; what others have stays."""
        known = Known()
        known.begin("b", "bob")
        for number in range(MAX_IDS_PER_SUBJECT + 2):
            known.sessions.discard(known.begin(f"a{number}", "ann"))
        self.assertEqual([known.owns("ann", name) for name in ("a0", "a1", "a2", "a257")], [False, False, True, True])
        self.assertTrue(known.owns("bob", "b"))
        self.assertEqual(len(known.ids), MAX_IDS_PER_SUBJECT + 1)
        self.assertEqual(known.outdated.count("a0"), 2)

    def test_ids_are_bounded_in_all(self) -> None:
        """However many subjects there are."""
        self.patch(session_ids, "MAX_IDS", 3)
        known = Known()
        sessions = [known.begin(name, f"user {name}") for name in "abcd"]
        self.assertTrue(known.owns("user a", "a"))  # it is connected
        for session in sessions:
            known.sessions.discard(session)
        self.assertEqual([known.owns(f"user {name}", name) for name in "abcd"], [False, True, True, True])
        self.assertEqual(len(known.ids), 3)

    def test_flood_of_sessions_takes_nobody_elses_ids(self) -> None:
        """Who has most loses the oldest; what was given to subjects that end with their sessions is not kept."""
        self.patch(session_ids, "MAX_IDS", 6)
        store = memory_store()
        self.addCleanup(store.close)
        known = Known(store)
        for name in ("a1", "a2"):
            known.sessions.discard(known.begin(name, "ann"))
        for number in range(9):
            for subject in ("eve", "mal"):
                known.sessions.discard(known.begin(f"{subject}{number}", subject))
            known.sessions.discard(known.begin(f"n{number}", f"clasp.anon.n{number}", b""))
        known.clock.advance(GATHER_S)
        for after in (known, Known(store)):
            with self.subTest(is_restarted=after is not known):
                kept = [name for name in ("a1", "a2") if after.owns("ann", name)]
                self.assertEqual((kept, len(after.ids)), (["a1", "a2"], 6))
                self.assertTrue(after.owns("eve", "eve8") and after.owns("mal", "mal8"))
        self.assertEqual(len(store.session_ids.all(0, 100)), 6)


class StoredIdTests(SynchronousTestCase):
    """After a restart."""

    def test_ids_outlive_the_relay(self) -> None:
        """Until a day after they were seen; without a token a subject ends with its session, and nothing is stored."""
        store = memory_store()
        self.addCleanup(store.close)
        known = Known(store)
        known.begin("s1", "ann")
        known.begin("s2", "clasp.anon.s2", b"")
        after = Known(store)
        after.later(KEPT_S - 1)
        self.assertEqual((after.owns("ann", "s1"), after.owns("clasp.anon.s2", "s2")), (True, False))
        after.later(1)
        self.assertFalse(after.owns("ann", "s1"))

    def test_hour_after_hour_a_session_that_is_connected_counts_anew(self) -> None:
        """So it counts after a restart, however long ago it began; old ones are deleted."""
        store = memory_store()
        self.addCleanup(store.close)
        known = Known(store)
        known.begin("s1", "ann")
        known.sessions.discard(known.begin("s2", "ann"))
        known.later(KEPT_S + 1)
        known.ids.renew()
        known.clock.advance(GATHER_S)
        self.assertEqual(store.session_ids.all(0, 10), [GivenId("s1", "ann", known.now_us // SECOND_US)])

    def test_sessions_that_begin_meanwhile_are_stored_together(self) -> None:
        """All that come within a second in one transaction; a store that is busy gets them later, or at the end."""
        store, workers = memory_store(), SteppedWorkers()
        self.addCleanup(store.close)
        known = Known(store, workers)
        for name in ("s1", "s2"):
            known.begin(name, "ann")
        workers.step()
        known.begin("s3", "ann")
        known.later(GATHER_S / 2)
        self.assertEqual(([given.session_id for given in store.session_ids.all(0, 10)], workers.steps), (["s1"], []))
        known.later(GATHER_S / 2)
        workers.fail(StoreBusy("users.db"))
        self.assertEqual(len(workers.steps), 0)
        known.later(GATHER_S)
        workers.step()
        self.assertEqual([given.session_id for given in store.session_ids.all(0, 10)], ["s1", "s2", "s3"])
        known.begin("s4", "ann")
        known.ids.close()
        self.assertEqual([given.session_id for given in store.session_ids.all(0, 10)], ["s1", "s2", "s3", "s4"])
        self.assertEqual(known.clock.getDelayedCalls(), [])

    def test_fault_of_the_store_is_logged(self) -> None:
        """And the next session is stored all the same."""
        store, workers = memory_store(), SteppedWorkers()
        self.addCleanup(store.close)
        known = Known(store, workers)
        known.begin("s1", "ann")
        workers.fail(RuntimeError("disk"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        known.begin("s2", "ann")
        known.later(GATHER_S)
        workers.step()
        self.assertEqual([given.session_id for given in store.session_ids.all(0, 10)], ["s2"])


class FollowingTests(SynchronousTestCase):
    """Ids that another relay has given."""

    def test_id_of_another_relay_is_its_subjects(self) -> None:
        """And stays so for a day from when it was seen last, wherever that was."""
        known = Known()
        known.ids.follow(GivenId("s1", "ann", START_US // SECOND_US))
        self.assertEqual(known.outdated, ["s1"])
        self.assertTrue(known.owns("ann", "s1"))
        self.assertFalse(known.owns("bob", "s1"))
        known.ids.follow(GivenId("s1", "ann", START_US // SECOND_US + 60))
        known.ids.follow(GivenId("s1", "ann", START_US // SECOND_US + 30))
        known.later(KEPT_S + 45)
        self.assertTrue(known.owns("ann", "s1"))

    def test_all_is_taken_from_the_store(self) -> None:
        """Where it has come from another relay as a whole."""
        store = memory_store()
        self.addCleanup(store.close)
        known = Known(store)
        store.session_ids.note([GivenId("s1", "ann", START_US // SECOND_US)], [], 0)
        self.assertFalse(known.owns("ann", "s1"))
        Deferred.fromCoroutine(known.ids.reload())
        self.assertTrue(known.owns("ann", "s1"))


class IdsOfAllTests(SynchronousTestCase):
    """Whose an id is, for the core that decides for several relays."""

    def test_sessions_of_other_relays_count_while_they_are_connected(self) -> None:
        """Those that are known here count as long as they do here."""
        known, everywhere = Known(), SessionTable()
        ids = SessionIdsOfAll(known.ids, everywhere)
        known.sessions.discard(known.begin("here", "ann"))
        there = memory_session("there", "ann", b"t")
        everywhere.add(there)
        everywhere.add(memory_session("nobodys", "", b""))
        self.assertEqual(ids.own_until_us("ann", "here", START_US), START_US + KEPT_S * SECOND_US)
        self.assertEqual(ids.own_until_us("ann", "there", START_US), START_US + 1)
        self.assertIsNone(ids.own_until_us("bob", "there", START_US))
        self.assertIsNone(ids.own_until_us("", "nobodys", START_US))
        everywhere.discard(there)
        self.assertIsNone(ids.own_until_us("ann", "there", START_US))
