"""What a session hears of its requests."""

from __future__ import annotations

from clasp_relay.cluster.exchange.batches import Answered
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.codec import encode
from clasp_relay.wire.messages import Ack, Error, Set
from tests.cluster.following_world import OneFollower
from tests.core.world import codes, value


class AnsweringTests(OneFollower):
    """A client of CLASP, and a door of another protocol."""

    def test_what_was_given_up_is_not_answered_again(self) -> None:
        """A client that counts answers would take it for the next one's."""
        self.send(Set("/a", value(1)), 1)
        self.turn()
        self.clock.advance(5.1)
        self.following.give_up_old(self.clock.seconds())
        self.send(Set("/b", value(1)), 1)
        self.hear()
        self.apply(Answered(self.session.id, 3, ((2, ("/a", 1, None, None)), (3, ("/b", 1, None, None)))))
        self.assertEqual(self.hear(), [Ack("/b", 1)])

    def test_a_door_is_called_back_for_each_message(self) -> None:
        """With the revision, if it has one, or with the refusal; an ACK is not sent."""
        outcomes: list[tuple[int | None, ErrorCode | None]] = []

        def decided(revision: int | None, refusal: RequestError | None) -> None:
            outcomes.append((revision, None if refusal is None else refusal.code))

        self.session.when_decided = decided
        for number in range(3):
            self.send(Set("/a", value(number)), 1)
        self.turn()
        refusal = encode(Error(int(ErrorCode.LOCKED), "no", "/a"))
        self.apply(Answered(self.session.id, 4, ((2, ("/a", 7, None, None)), (3, refusal))))
        self.assertEqual(outcomes, [(7, None), (None, ErrorCode.LOCKED), (None, None)])
        self.assertEqual(self.hear(), [Error(int(ErrorCode.LOCKED), "no", "/a")])

    def test_a_door_is_called_back_for_a_message_that_waited_too_long(self) -> None:
        """Once: not again if it is done later."""
        outcomes: list[RequestError | None] = []
        self.session.when_decided = lambda _revision, refusal: outcomes.append(refusal)
        self.send(Set("/a", value(1)), 1)
        self.turn()
        self.clock.advance(5.1)
        self.following.give_up_old(self.clock.seconds())
        self.apply(Answered(self.session.id, 2, ((2, ("/a", 1, None, None)),)))
        self.assertEqual([each and each.code for each in outcomes], [ErrorCode.OVERLOADED])
        self.assertEqual(codes(self.hear()), [ErrorCode.OVERLOADED])
