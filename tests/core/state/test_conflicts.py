"""Tests of clasp_relay.core.state.conflicts: locks, revisions and life times of one SET."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.records import Param
from clasp_relay.core.state.conflicts import decide
from clasp_relay.core.state.params import ParamLimits, Params
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.messages import NULL, Set
from tests.core.world import value

ONE, TWO = value(1), value(2)


class DecideTests(SynchronousTestCase):
    def setUp(self) -> None:
        """/set is at revision 4, /gone was deleted at 7, /locked is held by the session «other»."""
        self.params = Params(ParamLimits())
        self.params.apply(Param("/set", ONE, 4, "w", 10, 60, "alice"))
        self.params.apply(Param("/gone", ONE, 6, "w", 10))
        self.params.apply(Param("/gone", NULL, 7, "w", 20))
        self.params.apply(Param("/locked", ONE, 1, "other", 10), lock=True)

    def decide(self, message: Set) -> Param:
        """Decides a SET of the session «me»."""
        return decide(self.params, self.params.get(message.address), message, "me", "bob", 99)

    def refusal(self, message: Set) -> RequestError:
        """Returns why a SET is refused."""
        return self.assertRaises(RequestError, self.decide, message)  # type: ignore[no-any-return]

    def test_revision_rises_by_one(self) -> None:
        """From 1, and on where a deleted address left off."""
        for address, revision in (("/new", 1), ("/set", 5), ("/gone", 8)):
            with self.subTest(address=address):
                self.assertEqual(self.decide(Set(address, TWO)).revision, revision)

    def test_change_says_who_wrote_what_when(self) -> None:
        """All that is stored is in the record."""
        self.assertEqual(self.decide(Set("/new", TWO, ttl=5)), Param("/new", TWO, 1, "me", 99, 5, "bob"))

    def test_life_time_is_inherited(self) -> None:
        """From what is set; a new one starts without, as does one that was deleted."""
        cases = (("/set", None, 60), ("/set", 0, 0), ("/set", 5, 5), ("/new", None, None), ("/gone", None, None))
        for address, ttl, expected in cases:
            with self.subTest(address=address, ttl=ttl):
                self.assertEqual(self.decide(Set(address, TWO, ttl=ttl)).ttl, expected)

    def test_right_revision_is_accepted(self) -> None:
        """0 says that there is no value now."""
        for address, revision in (("/set", 4), ("/new", 0), ("/gone", 0)):
            with self.subTest(address=address):
                self.decide(Set(address, TWO, revision=revision))

    def test_wrong_revision_is_refused(self) -> None:
        """The ERROR says what the writer believed and what is so."""
        for address, revision, current in (("/set", 3, 4), ("/set", 0, 4), ("/new", 1, 0), ("/gone", 7, 0)):
            with self.subTest(address=address, revision=revision):
                error = self.refusal(Set(address, TWO, revision=revision))
                self.assertEqual((error.code, error.address), (ErrorCode.CONFLICT, address))
                self.assertIn(f"revision {revision}, the current one is {current}", error.message)

    def test_locked_address_is_refused(self) -> None:
        """Whatever the SET wants with the lock, and a null too; the ERROR names the holder."""
        for message in (
            Set("/locked", TWO),
            Set("/locked", TWO, lock=True),
            Set("/locked", TWO, unlock=True),
            Set("/locked", NULL),
            Set("/locked", TWO, revision=99),
        ):
            with self.subTest(message=message):
                error = self.refusal(message)
                self.assertEqual((error.code, error.address), (ErrorCode.LOCKED, "/locked"))
                self.assertIn("other", error.message)

    def test_holder_may_write(self) -> None:
        """With or without a flag."""
        for message in (Set("/locked", TWO), Set("/locked", TWO, lock=True), Set("/locked", TWO, unlock=True)):
            with self.subTest(message=message):
                before = self.params.get("/locked")
                self.assertEqual(decide(self.params, before, message, "other", "", 99).revision, 2)
