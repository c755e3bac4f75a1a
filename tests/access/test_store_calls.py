"""Calls of the store."""

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.refusals import Busy, Forbidden, Missing, Refusal, Taken, Unauthenticated
from clasp_relay.access.store_calls import StoreCalls
from clasp_relay.access.threads import in_lane
from clasp_relay.storage.users import (
    Disabled,
    IdentityTaken,
    InviteGone,
    NameConfusable,
    NameTaken,
    PersonGone,
    ResetGone,
    StoreBusy,
    StoreRefusal,
    TokenGone,
    UserChanged,
)
from tests.access.stack import InlineWorkers


def fail(error: Exception) -> None:
    """Raises an error."""
    raise error


class StoreCallsTests(SynchronousTestCase):
    """What a call gives."""

    def setUp(self) -> None:
        """Makes calls at once."""
        self.clock = Clock()
        self.calls = StoreCalls(InlineWorkers(), self.clock.seconds)

    def refusal(self, error: Exception) -> Refusal:
        """Returns what a client gets for an error of the store's."""
        failed = Deferred.fromCoroutine(self.calls.run(fail, error))
        refusal = self.failureResultOf(failed, Refusal).value
        assert isinstance(refusal, Refusal)
        return refusal

    def test_call_gives_what_the_method_returns(self) -> None:
        """With its arguments."""
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.calls.run(int, "11", base=2))), 3)

    def test_calls_are_made_for_a_client_address(self) -> None:
        """The one for which their coroutine began, also where others begin meanwhile."""
        lanes: list[str] = []
        gate: Deferred[None] = Deferred()

        class Noting(InlineWorkers):
            def run(self, lane: str, *args: Any, **kwargs: Any) -> Any:
                lanes.append(lane)
                return super().run(lane, *args, **kwargs)

        calls = StoreCalls(Noting(), self.clock.seconds)

        async def twice() -> None:
            await calls.run(int)
            await gate
            await calls.run(int)

        for lane in ("192.0.2.1", "192.0.2.2"):
            with in_lane(lane):
                Deferred.fromCoroutine(twice())
        Deferred.fromCoroutine(twice())
        gate.callback(None)
        self.assertEqual(lanes, ["192.0.2.1", "192.0.2.2", ""] * 2)

    def test_every_refusal_of_the_store_has_words(self) -> None:
        """Clients depend on one of them: «identity» stands where the id is taken, and nowhere else."""
        cases = [
            (NameTaken(), Taken, "This name belongs to a registered user."),
            (NameConfusable(), Taken, "This name looks like that of a registered user."),
            (
                IdentityTaken(),
                Taken,
                "This identity belongs to a registered user or to another guest who is signed in.",
            ),
            (InviteGone(), Forbidden, "This invite is not valid, or it is used up."),
            (TokenGone(), Unauthenticated, "This token is not valid."),
            (Disabled(), Forbidden, "This account is disabled."),
            (PersonGone(), Missing, "There is no such person."),
            (ResetGone(), Unauthenticated, "The link is not valid any more."),
            (UserChanged(), Unauthenticated, "The password was changed a moment ago."),
        ]
        # What one relay of a cluster says to another never reaches a client.
        refusals = {kind for kind in StoreRefusal.__subclasses__() if kind.__module__ == StoreRefusal.__module__}
        self.assertEqual({type(error) for error, _, _ in cases} | {StoreBusy}, refusals)
        for error, kind, words in cases:
            with self.subTest(error=error):
                refusal = self.refusal(error)
                self.assertIsInstance(refusal, kind)
                self.assertIn(words, refusal.sentence)
                self.assertEqual("identity" in refusal.sentence, isinstance(error, IdentityTaken))

    def test_file_that_another_process_holds_is_told_once_a_minute(self) -> None:
        """Callers are told to come back."""
        lines: list[str] = []
        observer = cast(ILogObserver, lambda event: lines.append(formatEvent(event)))
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for _ in range(130):
            refusal = self.refusal(StoreBusy("users.db"))
            assert isinstance(refusal, Busy)
            self.assertEqual(refusal.retry_after_s, 5)
            self.clock.advance(1)
        expected = "users.db: another process holds the users' database; calls get 503 until it ends"
        self.assertEqual(lines, [expected] * 3)

    def test_fault_of_the_store_stays_a_fault(self) -> None:
        """It is none of the client's business."""
        self.failureResultOf(Deferred.fromCoroutine(self.calls.run(fail, OSError("disk"))), OSError)
        failed = Deferred.fromCoroutine(self.calls.run(fail, StoreRefusal("new kind")))
        self.failureResultOf(failed, AssertionError)
