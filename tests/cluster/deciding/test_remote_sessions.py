"""The sessions of all relays at the decider: their answers, ends and rights."""

from __future__ import annotations

import gc
import weakref

from clasp_relay.access.tokens import ADMIN_SCOPES, POLICY_SCOPES, TokenRecord, digest_of
from clasp_relay.cluster.exchange.batches import Answered, Ended
from clasp_relay.cluster.exchange.packets import Asked, Entry
from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.wire.messages import Bundle, Error, Set
from tests.cluster.deciding_world import DecidingCase, said
from tests.cluster.policy_world import PolicyCase, PolicyMember
from tests.core.world import value


class AnswerTests(DecidingCase):
    """What a session's relay is told."""

    def test_refusals_are_answers(self) -> None:
        """They change nothing, and count as done."""
        self.begin()
        self.ask(said(2, Set("/a", value(1), revision=9), 1))
        (item,) = self.sealed()
        assert isinstance(item, Answered)
        self.assertEqual(item.number, 2)
        (error,) = self.answers([item])
        assert isinstance(error, Error)
        self.assertEqual(error.error, ErrorCode.CONFLICT)

    def test_a_session_that_the_decider_ends_ends_everywhere(self) -> None:
        """Its relay is told with what to close it."""
        self.begin()
        (session,) = self.deciding.relay.sessions.all()
        session.outbox.discard()
        session.outbox.send_snapshot("key", iter(()))
        self.deciding.relay._end_as_too_slow(session)
        items = self.sealed()
        self.assertEqual([type(item) for item in items], [Answered, Ended])
        ended = items[1]
        assert isinstance(ended, Ended)
        self.assertEqual((ended.close_code, ended.reason), (1013, "too slow"))

    def test_nothing_is_kept_of_a_session_that_has_ended(self) -> None:
        """Nor by a reference cycle, which the garbage collector might not look at any more."""
        gc.disable()
        self.addCleanup(gc.enable)
        self.begin()
        (session,) = self.deciding.relay.sessions.all()
        there = weakref.ref(session.outbox)
        del session
        self.ask(Entry(2, "s", int(Asked.END)))
        self.sealed()
        self.assertIsNone(there())


class RightsTests(PolicyCase):
    """Sessions at the decider have the rights of their tokens."""

    def test_a_token_that_ends_ends_its_sessions_everywhere(self) -> None:
        """With the reason; what they had scheduled is not done."""
        ann = self.follower.join("ann")
        due_us = self.decider.now_us() + 2_000_000
        ann.ask(Bundle((Set("/later", value(1)),), due_us), 1)
        self.cluster.revoke("ann")
        self.cluster.turn()
        (error,) = [each for each in ann.hear() if isinstance(each, Error)]
        self.assertEqual(error.error, ErrorCode.TOKEN_EXPIRED)
        self.assertEqual(ann.outbox.closed, (CloseCode.POLICY_VIOLATION, "the token was revoked: sign in again"))
        self.assertNotIn(ann.session.id, self.decider.ledger.sessions)
        self.cluster.advance(3)
        self.assertIsNone(self.param("/later"))

    def test_a_token_that_only_the_decider_knows_to_be_over_ends_its_sessions(self) -> None:
        """At the relay that has them, too, with the reason."""
        ann = self.follower.join("ann")
        self.decider.tokens.revoke([digest_of("ann")])
        self.cluster.turn()
        (error,) = [each for each in ann.hear() if isinstance(each, Error)]
        self.assertEqual(error.error, ErrorCode.TOKEN_EXPIRED)
        self.assertEqual(ann.outbox.closed, (CloseCode.POLICY_VIOLATION, "the token was revoked: sign in again"))

    def test_a_token_that_the_decider_does_not_know_ends_its_session(self) -> None:
        """With the reason, and nothing of it is done."""
        record = TokenRecord(digest_of("new"), "new", "new", False, POLICY_SCOPES, 0, None)
        self.follower.tokens.follow(record, is_revoked=False)
        client, other = self.follower.join("new"), self.follower.join("ann")
        client.send(Set("/a", value(1)), 1)
        self.cluster.turn()
        self.assertEqual(self.codes(client.hear()), [ErrorCode.TOKEN_EXPIRED])
        self.assertEqual(client.outbox.closed, (CloseCode.POLICY_VIOLATION, "the token was revoked: sign in again"))
        self.assertIsNone(self.param("/a"))
        self.assertEqual(self.codes(other.ask(Set("/a", value(1)), 1)), [0])

    def test_sessions_go_on_with_the_token_that_replaced_theirs(self) -> None:
        """Also at the next decider, when the one before has ended."""
        ann = self.follower.join("ann")
        self.cluster.turn()
        self.cluster.issue("ann-2", "ann", replaces=digest_of("ann"))
        self.cluster.turn()
        self.assertEqual(self.follower.ledger.sessions[ann.session.id].began.token, digest_of("ann-2"))
        self.cluster.revoke("ann")
        self.decider.kill()
        self.cluster.advance(5)
        self.assertIs(self.cluster.decider, self.follower)
        self.assertEqual(self.codes(ann.ask(Set("/a", value(1)), 1)), [0])
        self.assertIsNone(ann.outbox.closed)

    def test_a_session_whose_relay_vouches_for_it_may_do_what_that_says(self) -> None:
        """An administrator's token is one relay's own."""
        for member in (self.follower, self.decider):
            name = f"admin of {member.name}"
            self.patch(member.tokens, "is_following", True)
            member.tokens.add(TokenRecord(digest_of(name), "clasp.admin", "admin", False, ADMIN_SCOPES, 0, None))
            admin = member.join(name)
            self.assertEqual(self.codes(admin.ask(Set("/safe/1", value({"key": "wrong"})), 1)), [0])

    def test_the_next_decider_has_everybodys_rights(self) -> None:
        """Those of sessions that it has not seen begin."""
        third = self.cluster.add("three")
        self.cluster.advance(3)
        assert isinstance(third, PolicyMember)
        bob = third.join("bob")
        bob.ask(Set("/room/1/said/1", value({})), 1)
        self.decider.join("ann").ask(Set("/room/1/bans/bob", value(1)), 1)
        self.decider.kill()
        self.cluster.advance(5)
        self.assertEqual(self.codes(bob.ask(Set("/room/1/said/2", value({})), 1)), [403])
        self.assertEqual(self.codes(bob.ask(Set("/room/2/said/2", value({})), 1)), [0])
