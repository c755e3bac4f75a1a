"""Counting refused writes."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.policy import failures as module
from clasp_relay.access.policy.document import FailureLimit
from clasp_relay.access.policy.failures import Failures
from clasp_relay.errors import ErrorCode, RequestError

MINUTE_US = 60_000_000
LIMIT = FailureLimit(5, MINUTE_US)


class FailuresTests(SynchronousTestCase):
    """Five a minute."""

    def setUp(self) -> None:
        """Starts without failures."""
        self.failures = Failures()

    def fail(self, times: int, now_us: int = 0, subject: str = "eve", captured: tuple[str, ...] = ("r1",)) -> None:  # type: ignore[override]
        """Fails some times."""
        for _ in range(times):
            self.failures.note(subject, 0, captured, LIMIT, now_us)

    def limited(
        self, now_us: int = 0, subject: str = "eve", captured: tuple[str, ...] = ("r1",), rule: int = 0
    ) -> str | None:
        """Returns what the next attempt is refused with."""
        try:
            self.failures.check(subject, rule, captured, LIMIT, now_us)
        except RequestError as error:
            self.assertEqual(error.code, ErrorCode.LIMIT)
            return error.message
        return None

    def test_attempts_are_refused_after_the_limit_until_one_is_old(self) -> None:
        """A sliding window, and the wait is said."""
        self.assertIsNone(self.limited())
        self.fail(4)
        self.assertIsNone(self.limited())
        self.fail(1, now_us=10_000_000)
        self.assertEqual(self.limited(10_000_000), "too many failed attempts; try again in 50 s")
        self.assertIsNotNone(self.limited(MINUTE_US - 1))
        self.assertIsNone(self.limited(MINUTE_US))

    def test_subjects_captures_and_rules_count_apart(self) -> None:
        """Nobody locks another out."""
        self.fail(5)
        self.assertIsNotNone(self.limited())
        self.assertIsNone(self.limited(subject="alice"))
        self.assertIsNone(self.limited(captured=("r2",)))
        self.assertIsNone(self.limited(rule=1))

    def test_subject_that_fails_everywhere_has_to_wait(self) -> None:
        """So that what is remembered of one stays small, and nothing is pushed out of it."""
        for n in range(module.MAX_KEYS):
            self.assertIsNone(self.limited(captured=("new",)))
            self.fail(1, captured=(f"r{n}",))
        self.assertIsNotNone(self.limited(captured=("new",)))
        self.assertIsNone(self.limited(MINUTE_US, captured=("new",)))

    def test_memory_is_bounded(self) -> None:
        """Who failed longest ago is forgotten first."""
        self.patch(module, "MAX_SUBJECTS", 3)
        for subject in ("a", "b", "c"):
            self.fail(5, subject=subject)
        self.fail(1, subject="a")
        self.fail(5, subject="d")
        self.assertEqual([bool(self.limited(subject=name)) for name in "abcd"], [True, False, True, True])
