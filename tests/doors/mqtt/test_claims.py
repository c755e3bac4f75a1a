"""Of the relays of a cluster a client is at the one to which it came last."""

from __future__ import annotations

from typing import NamedTuple, cast

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.session.sessions import ANYBODY, AbsentSession, Session
from clasp_relay.doors.mqtt import claims
from clasp_relay.doors.mqtt.claims import Arrivals, Claims
from clasp_relay.doors.mqtt.messages import MqttCodec
from clasp_relay.doors.mqtt.session import MqttSession
from tests.core.world import START_US
from tests.doors.mqtt.house import ClusterCase


class ClusterTests(ClusterCase):
    def test_claim_that_is_told_late_ends_nobody(self) -> None:
        """Of a relay that was cut off while its client went elsewhere."""
        self.follower.engine.is_paused = True
        self.near.join("x").lose()
        self.cluster.advance(0.5)
        there = self.far.join("x")
        self.follower.engine.is_paused = False
        self.cluster.advance(2)
        self.assertFalse(there.client.is_closed)

    def test_client_moves_also_to_a_relay_whose_clock_is_behind(self) -> None:
        """What is known of it came before."""
        first = self.far.join("x")
        self.cluster.turn()
        self.patch(self.follower, "now_us", lambda: START_US - 3_600_000_000)
        second = self.near.join("x")
        self.assertEqual((first.client.is_closed, second.client.is_closed), (True, False))

    def test_times_of_claims_are_bounded(self) -> None:
        """The one that came first is forgotten first."""
        self.patch(claims, "MAX_CLAIMED", 3)
        for number in range(9):
            self.far.join(f"x{number}")
        self.assertEqual([name for _, name in self.near.broker.arrivals._last_us], ["x6", "x7", "x8"])


class Told(NamedTuple):
    """A claim that was told."""

    name: str
    time_us: int
    session_id: str = ""
    is_new: bool = False


class Others:
    """What tells other relays, and knows some tokens."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int]] = []
        self.known = {"cpsk_known"}

    def knows_token(self, token: str) -> bool:
        """See ``Claims``."""
        return token in self.known

    def claim(self, _session: Session, name: str, time_us: int, *, is_new: bool) -> None:
        """See ``Claims``."""
        self.made.append((name + " anew" * is_new, time_us))


class ArrivalTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A relay whose clock stands at 100 µs."""
        self.others = Others()
        self.arrivals = Arrivals(cast("Claims", self.others), lambda: 100)
        self.session = MqttSession("ann", "lamp", lambda _group: None, lambda: 0)

    def claim(self, *, is_new: bool = False) -> int:
        """Returns when the client has come."""
        self.arrivals.claim(AbsentSession("s", MqttCodec(""), ANYBODY, ""), self.session, is_new=is_new)
        return self.session.claimed_us

    def test_client_comes_behind_all_that_is_known_of_it(self) -> None:
        """Whatever this relay's clock says; a claim that is told late changes nothing."""
        self.assertEqual(self.claim(), 100)
        for time_us in (500, 300):
            self.assertEqual(self.arrivals.note(Told("ann\0lamp", time_us)), ("ann", "lamp"))
        self.arrivals.note(Told("bob\0lamp", 900))
        self.assertEqual(self.claim(is_new=True), 501)
        self.assertEqual(self.others.made, [("ann\0lamp", 100), ("ann\0lamp anew", 501)])

    def test_token_is_awaited_that_no_relay_has_told_of(self) -> None:
        """What is no token is not, and a relay that is alone awaits none."""
        awaited = [self.arrivals.awaits(token) for token in ("cpsk_new", "cpsk_known", "password", "")]
        self.assertEqual(awaited, [True, False, False, False])
        alone = Arrivals(None, lambda: 100)
        self.assertFalse(alone.awaits("cpsk_new"))
        alone.claim(AbsentSession("s", MqttCodec(""), ANYBODY, ""), self.session, is_new=True)
        self.assertEqual(self.session.claimed_us, 0)
