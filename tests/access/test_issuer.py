"""Giving tokens out and recognising them."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.issuer import BAD_TOKEN, EXPIRED_TOKEN, NO_TOKEN, Issued, Issuer
from clasp_relay.access.refusals import Busy, Unauthenticated
from clasp_relay.access.tokens import POLICY_SCOPES, TokenRecord, TokenTable, digest_of
from tests.access.stack import START_S, hexadecimal

TOKEN = "cpsk_" + "0" * 31 + "1"


class IssuerTests(SynchronousTestCase):
    """On a clock that stands still."""

    def setUp(self) -> None:
        """Makes an issuer of tokens for an hour."""
        self.clock = Clock()
        self.clock.advance(START_S + 0.9)
        self.tokens = TokenTable(self.clock, self.clock.seconds, max_tokens=1)
        self.issuer = Issuer(self.tokens, 3600, self.clock.seconds, hexadecimal())

    def test_pending_token_is_valid_once_it_is_issued(self) -> None:
        """Not before: it has to be committed first. Its life is in whole seconds."""
        pending = self.issuer.make("u1", "Alice", True, b"home")
        record = TokenRecord(digest_of(TOKEN), "u1", "Alice", True, POLICY_SCOPES, START_S, START_S + 3600, b"home")
        self.assertEqual((pending.token, pending.record), (TOKEN, record))
        error = self.assertRaises(Unauthenticated, self.issuer.recognise, TOKEN)
        self.assertEqual(error.sentence, BAD_TOKEN)
        self.assertEqual(self.issuer.issue(pending), Issued(TOKEN, "u1", "Alice"))
        self.assertEqual(self.issuer.recognise(TOKEN), record)
        self.clock.advance(3600)
        error = self.assertRaises(Unauthenticated, self.issuer.recognise, TOKEN)
        self.assertEqual(error.sentence, EXPIRED_TOKEN)

    def test_zero_is_a_token_that_does_not_expire(self) -> None:
        """Not within a hundred years."""
        issuer = Issuer(self.tokens, 0, self.clock.seconds, hexadecimal())
        issued = issuer.issue(issuer.make("u1", "Alice", True, b"home"))
        self.clock.advance(99 * 365 * 86_400)
        self.assertEqual(issuer.recognise(issued.token).subject, "u1")

    def test_successor_is_of_the_same_sign_in(self) -> None:
        """However often it is refreshed; and it says which token it replaces."""
        first = self.issuer.make("u1", "Alice", True, b"home")
        second = self.issuer.make_successor(first.record, b"work")
        third = self.issuer.make_successor(second.record, b"work")
        for one, other in ((first, second), (second, third)):
            self.assertEqual((other.record.sign_in, other.record.replaces), (first.record.digest, one.record.digest))
        self.assertEqual(third.record[1:5], first.record[1:5])

    def test_no_token_is_told_from_a_bad_one(self) -> None:
        """The caller may have forgotten it."""
        error = self.assertRaises(Unauthenticated, self.issuer.recognise, None)
        self.assertEqual(error.sentence, NO_TOKEN)

    def test_full_table_is_busy(self) -> None:
        """Until some tokens expire."""
        self.issuer.check_room(guest=False)
        self.issuer.issue(self.issuer.make("u1", "Alice", False, b""))
        error = self.assertRaises(Busy, self.issuer.check_room, guest=False)
        self.assertEqual(error.retry_after_s, 60)

    def test_token_is_in_no_text(self) -> None:
        """Neither before it is issued nor after."""
        pending = self.issuer.make("u1", "Alice", False, b"")
        for thing in (pending, self.issuer.issue(pending)):
            self.assertNotIn("cpsk", repr(thing))
