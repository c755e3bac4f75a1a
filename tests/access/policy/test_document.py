"""A policy document as data."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.limits import RateLimits
from clasp_relay.access.policy.document import Document, GuestIds


class DocumentTests(SynchronousTestCase):
    """What holds when a document says nothing."""

    def test_empty_document_restricts_nothing_but_gives_no_scopes(self) -> None:
        """Its defaults are those of the relay."""
        document = Document("test", RateLimits())
        self.assertEqual((document.scopes, document.write_rules, document.visibility), ((), (), ()))
        self.assertEqual((document.message_rate, document.hello_snapshot), (None, True))
        self.assertIs(document.guest_ids, GuestIds.BEARER)
