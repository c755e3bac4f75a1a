"""Tests of ``clasp_relay.core.session.identity``."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.session.identity import Identity


class IdentityTests(SynchronousTestCase):
    """The identity of a session."""

    def test_two_sign_ins_of_one_user_are_two(self) -> None:
        """Data that is kept for one is not used for the other."""
        first, second = Identity("alice", b"token"), Identity("alice", b"token")
        self.assertNotEqual(first, second)
        self.assertEqual(len({first, second}), 2)

    def test_identity_does_not_change(self) -> None:
        """It is immutable, since decisions depend on it."""
        identity = Identity("alice")
        with self.assertRaises(FrozenInstanceError):
            identity.subject = "bob"  # type: ignore[misc]
