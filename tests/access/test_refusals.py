"""Refusals."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.refusals import BadInput, Busy, Later, Limited, Refusal, Taken, Unauthenticated
from clasp_relay.errors import ClaspError


class RefusalTests(SynchronousTestCase):
    """What a refusal says."""

    def test_refusal_is_its_sentence(self) -> None:
        """That is all its text has."""
        for kind in (BadInput, Unauthenticated, Taken):
            with self.subTest(kind=kind):
                self.assertEqual(str(kind("Not so.")), "Not so.")
                self.assertIsInstance(kind("Not so."), Refusal)
        self.assertTrue(issubclass(Refusal, ClaspError))

    def test_refusal_for_now_says_when(self) -> None:
        """In seconds."""
        for kind in (Limited, Busy):
            with self.subTest(kind=kind):
                refusal = kind("Not now.", 1.5)
                self.assertIsInstance(refusal, Later)
                self.assertEqual((refusal.sentence, refusal.retry_after_s), ("Not now.", 1.5))
