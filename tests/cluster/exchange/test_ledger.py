"""What every relay of a cluster knows of relays and sessions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.exchange.batches import (
    NO_DIGEST,
    Answered,
    Batch,
    Began,
    Claimed,
    Ended,
    HandedOver,
    LinkBegan,
    LinkEnded,
    digest_of,
)
from clasp_relay.cluster.exchange.ledger import Contradiction, Ledger


class LedgerTests(SynchronousTestCase):
    """It follows from the batches."""

    def setUp(self) -> None:
        """Makes a ledger with two relays, each with a session."""
        self.ledger = Ledger()
        for item in (
            Claimed("one.1", "one", True, b""),
            LinkBegan("two.1", "two"),
            Began("a", "one.1", "", b"", ""),
            Began("b", "two.1", "", b"", ""),
            Answered("b", 4, ()),
            Answered("nobody", 4, ()),
        ):
            self.ledger.note(item)

    def test_it_knows_who_is_there(self) -> None:
        """And how far each session's requests are done."""
        self.assertEqual(self.ledger.decider, "one.1")
        self.assertEqual(self.ledger.links, {"one.1": "one", "two.1": "two"})
        self.assertEqual({key: known.number for key, known in self.ledger.sessions.items()}, {"a": 0, "b": 4})

    def test_an_older_answer_takes_nothing_back(self) -> None:
        """What is done is done."""
        self.ledger.note(Answered("b", 2, ()))
        self.assertEqual(self.ledger.sessions["b"].number, 4)

    def test_a_session_that_goes_on_with_another_token_keeps_its_number(self) -> None:
        """What is done stays done."""
        began = self.ledger.sessions["b"].began._replace(token=b"next")
        self.ledger.note(began)
        self.assertEqual((self.ledger.sessions["b"].began.token, self.ledger.sessions["b"].number), (b"next", 4))
        self.assertEqual(list(self.ledger.sessions), ["a", "b"])

    def test_who_ends_is_forgotten(self) -> None:
        """A session alone, a relay with its sessions."""
        self.ledger.note(Ended("a"))
        self.assertEqual(list(self.ledger.sessions), ["b"])
        self.ledger.note(LinkEnded("two.1"))
        self.assertEqual(self.ledger.sessions, {})
        self.assertEqual(list(self.ledger.links), ["one.1"])

    def test_a_cold_claim_ends_everybody(self) -> None:
        """Whoever knows of no sessions cannot answer for them."""
        self.ledger.note(Claimed("three.1", "three", False, b""))
        self.assertEqual(len(self.ledger.sessions), 2)
        self.ledger.note(Claimed("three.1", "three", True, b""))
        self.assertEqual((self.ledger.sessions, self.ledger.links), ({}, {"three.1": "three"}))

    def test_nobody_decides_after_a_hand_over(self) -> None:
        """Until the next claim."""
        self.ledger.note(HandedOver())
        self.assertEqual(self.ledger.decider, "")

    def test_only_the_next_batch_follows(self) -> None:
        """Another number, another log or an older epoch is a contradiction."""
        ledger = Ledger()
        first = Batch(2, NO_DIGEST, 5, 0, ())
        ledger.check(1, first)
        ledger.begin(1, digest_of(b"first"), first)
        ledger.check(2, Batch(2, digest_of(b"first"), 3, 0, ()))
        for seq, batch in (
            (1, Batch(2, digest_of(b"first"), 3, 0, ())),
            (3, Batch(2, digest_of(b"first"), 3, 0, ())),
            (2, Batch(2, digest_of(b"other"), 3, 0, ())),
            (2, Batch(1, digest_of(b"first"), 3, 0, ())),
        ):
            with self.subTest(seq=seq, batch=batch):
                self.assertRaises(Contradiction, ledger.check, seq, batch)
        ledger.begin(2, digest_of(b"second"), Batch(2, digest_of(b"first"), 3, 0, ()))
        self.assertEqual(ledger.time_us, 5)
