"""When the engine, the decider and the other relays were last heard."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from clasp_relay.cluster.exchange.batches import digest_of
from clasp_relay.cluster.exchange.packets import Beat
from clasp_relay.cluster.membership import Membership
from clasp_relay.logs import events

__all__ = ["Peers"]

BEAT_S = 0.25
"""The interval of a relay's heartbeats."""

SILENCE_S = 2.0
"""After this time without a heartbeat of the decider another relay claims."""

SPREAD_S = 0.3
"""Within this time the relays claim one after the other."""

CUT_OFF_S = 1.0
"""After this time without an answer of the engine a relay counts as cut off, and sends no requests."""

GONE_S = 3.0
"""After this time without a heartbeat a relay counts as lost."""

CLOCKS_APART_S = 10.0
"""A larger difference between a machine's clock and the decider's is logged."""

MOST_PEERS = 1_000
"""With more relays than this, lost ones are forgotten: every start of a relay is a new one here."""


class _Peer:
    """The last heartbeat of another relay."""

    def __init__(self, beat: Beat, heard_s: float) -> None:
        self.beat = beat
        self.heard_s = heard_s


class Peers:
    """See the module. All times are seconds of the monotonic clock.

    Args:
        membership: the membership of this relay.
        wall_us: returns Unix µs.
    """

    def __init__(self, membership: Membership, wall_us: Callable[[], int]) -> None:
        self.engine_s = 0.0
        """When the engine was heard last."""
        self.decider_s = 0.0
        """When the decider was heard last."""
        self._membership = membership
        self._monotonic_s = membership.monotonic_s
        self._wall_us = wall_us
        self._began_s = 0.0
        self._hears_since_s = 0.0
        """When the engine was heard again after the last silence."""
        self._peers: dict[str, _Peer] = {}
        self._clock: tuple[int, float] | None = None
        """The decider's clock in its last heartbeat, and when that was heard."""
        self._is_apart = False
        self._twins: set[str] = set()
        """Links of other relays with this one's name that were logged."""

    def begin(self) -> None:
        """Begins to listen."""
        self._began_s = self.engine_s = self.decider_s = self._monotonic_s()

    # Heartbeats

    def hear(self, beat: Beat) -> None:
        """Notes the heartbeat of another relay."""
        now_s = self._monotonic_s()
        if beat.relay == self._membership.options.relay and now_s - self._began_s > GONE_S:
            # After GONE_S it cannot be this relay's earlier run.
            self._note_twin(beat)
        self._peers[beat.link] = _Peer(beat, now_s)
        if len(self._peers) > MOST_PEERS:
            self._peers = {link: peer for link, peer in self._peers.items() if peer.heard_s > now_s - GONE_S}

    def _note_twin(self, beat: Beat) -> None:
        if beat.link not in self._twins:
            self._twins = {beat.link, *(self._twins if len(self._twins) < MOST_PEERS else ())}
            events.CLUSTER_NAME_TWICE.log(relay=beat.relay)

    def hear_engine(self) -> None:
        """Notes that the engine was heard."""
        now_s = self._monotonic_s()
        if now_s - self.engine_s >= CUT_OFF_S:
            self._hears_since_s = now_s
        self.engine_s = now_s

    def hear_decider(self, clock_us: int = 0) -> None:
        """Notes that the decider was heard.

        Args:
            clock_us: its clock, in Unix µs; 0 if it is not known.
        """
        self.decider_s = self._monotonic_s()
        if clock_us:
            self._clock = clock_us, self.decider_s
            self._compare_clocks(clock_us)

    def _compare_clocks(self, clock_us: int) -> None:
        apart_s = (self._wall_us() - clock_us) / 1e6
        was_apart, self._is_apart = self._is_apart, abs(apart_s) > CLOCKS_APART_S
        if self._is_apart and not was_apart:
            direction = "ahead of" if apart_s > 0 else "behind"
            events.CLUSTER_CLOCKS_APART.log(seconds=round(abs(apart_s)), direction=direction)

    def expect_decider(self) -> None:
        """Ends the wait for the decider, which has stepped down, so that the next relay claims at once."""
        self.decider_s = self._monotonic_s() - SILENCE_S

    def forget(self) -> None:
        """Forgets all relays; called by a new decider, which then watches them from now on."""
        self._peers.clear()

    # Conclusions

    @property
    def is_in_touch(self) -> bool:
        """Whether the engine answers."""
        return self._membership.engine.is_connected and self._monotonic_s() - self.engine_s < CUT_OFF_S

    def living(self) -> list[Beat]:
        """Returns the last heartbeats of the other relays that are not silent."""
        end_s = self._monotonic_s() - SILENCE_S
        own = self._membership.following.link
        return [peer.beat for link, peer in self._peers.items() if peer.heard_s > end_s and link != own]

    def giver(self) -> Beat | None:
        """Returns the relay that gives images to joining relays: the decider, else the first follower, if any."""
        found = [beat for beat in self.living() if beat.is_joined and beat.seq]
        return min(found, key=lambda beat: (not beat.is_decider, -beat.epoch, beat.link), default=None)

    @property
    def others_serve(self) -> bool:
        """Whether there is another relay that follows and is no standby."""
        return any(beat.is_joined and not beat.is_standby for beat in self.living())

    def is_outdone(self, *, by_joined: bool = False) -> bool:
        """Tells whether another relay has more of the log; with ``by_joined`` only a follower, which could decide."""
        mine = self._membership.seq
        return any(beat.seq > mine for beat in self.living() if beat.is_joined or not by_joined)

    def gone(self, links: Iterable[str]) -> list[str]:
        """Returns the links of lost relays, which were not heard for ``GONE_S``.

        There are none if this relay has heard nothing at all meanwhile, perhaps since it stood still.
        """
        now_s = self._monotonic_s()
        found: list[str] = []
        if not self.is_in_touch:
            return found
        for link in links:
            if link == self._membership.following.link:
                continue
            peer = self._peers.get(link)
            if peer is None:
                # A relay from before this one became the decider has GONE_S from now on to be heard.
                self._peers[link] = _Peer(Beat(link, "", 0, 0, False, False, 0), now_s)
            elif now_s - max(peer.heard_s, self._hears_since_s) > GONE_S:
                found.append(link)
        return found

    @property
    def spread_s(self) -> float:
        """How much later than the first one this relay claims."""
        return digest_of(self._membership.following.link.encode())[0] / 256 * SPREAD_S

    @property
    def heard_now_us(self) -> int | None:
        """The time by the clock of the decider that was heard last, in Unix µs; None if none was heard."""
        if self._clock is None or not self._clock[0]:
            return None
        heard_us, heard_s = self._clock
        return heard_us + int((self._monotonic_s() - heard_s) * 1e6)

    @property
    def deciders_now_us(self) -> int:
        """The time by the last decider's clock, in Unix µs; by this machine's if none was heard."""
        heard_us = self.heard_now_us
        return self._wall_us() if heard_us is None else heard_us
