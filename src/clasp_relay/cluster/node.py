"""The node of a relay in its cluster: joins, follows or decides, leaves, and passes on messages of other relays.

The log alone determines the decider: the relay that appends a claim of the next epoch after the last batch. The earlier
decider is fenced at its next append, and what it has decided beyond the log is discarded. Heartbeats and silence only
determine when a relay tries to claim.

``membership`` has the state, and ``peers`` when other relays were heard; ``joining``, ``applying``, ``claiming`` and
``appending`` do the work, and are called from here when something happens.
"""

from __future__ import annotations

from collections.abc import Callable

import msgpack

from clasp_relay.cluster.appending import Appending
from clasp_relay.cluster.applying import Applying
from clasp_relay.cluster.claiming import Claiming
from clasp_relay.cluster.deciding.deciding import Deciding
from clasp_relay.cluster.exchange.packets import Beat, Packet, decode_beat, decode_packet, encode_beat, encode_packet
from clasp_relay.cluster.following.following import GONE, NOT_READY, STANDBY
from clasp_relay.cluster.freshness import Freshness
from clasp_relay.cluster.joining import Joining, Welcoming
from clasp_relay.cluster.membership import Membership, Role
from clasp_relay.cluster.peers import BEAT_S, Peers
from clasp_relay.core.relay import Relay
from clasp_relay.errors import DecodeError
from clasp_relay.logs import events

__all__ = ["Node"]

TICK_S = 0.05

CLOSES_S = 5.0
"""After this time without an answer of the engine a relay ends its sessions, so that clients connect elsewhere."""

RESEND_S = 1.0
"""After this time without an answer of the decider all requests that are not done are sent again."""

HAND_OVER_S = 2.0
"""How long a stop waits until the last batches are in the log."""


class Node:
    """See the module. Event loop, engine and core are passed in.

    Args:
        membership: the membership of this relay.
        relay: the serving core.
        make_deciding: makes the decider's core, given its epoch and the Unix time in µs at which its clock begins.
        wall_us: returns Unix µs.
        new_link: returns a new id of a link.
        report: called for each scheduled bundle that is refused.
        when_fatal: called with one line for the operator when the relay cannot go on.
        when_imaged: called when the state of another relay was installed, so that it is saved.
    """

    def __init__(
        self,
        membership: Membership,
        relay: Relay,
        make_deciding: Callable[[int, int], Deciding],
        wall_us: Callable[[], int],
        new_link: Callable[[], str],
        report: Callable[[str, str], None],
        when_fatal: Callable[[str], None],
        when_imaged: Callable[[], object],
    ) -> None:
        self.membership = membership
        membership.fatal = self._fatal
        self._engine = membership.engine
        following = self._following = membership.following
        self._ledger = following.ledger
        self._monotonic_s = membership.monotonic_s
        self._call_later = membership.call_later
        self._new_link = new_link
        self._when_fatal = when_fatal
        self._has_left = self._was_closed = False
        self._beat_s = -BEAT_S
        self._resent_s = 0.0
        peers = self._peers = Peers(membership, wall_us)
        applying = self._applying = Applying(membership, peers, relay, self._meet_other_base, self._join_again)
        appending = self._appending = Appending(
            membership, peers, applying, relay, make_deciding, report, self._join_again
        )
        self._claiming = Claiming(membership, peers, applying, appending, self._decide)
        self._joining = Joining(membership, peers, applying, relay, self._joined, when_imaged)
        self._welcoming = Welcoming(membership, peers, relay)
        self._freshness = Freshness(membership.engine, following.ledger)
        following.when_expelled = self._expelled

    # Life

    def start(self) -> None:
        """Begins to join."""
        self._peers.begin()
        self._joining.begin()
        for name, call in (
            ("leave", self._heard_leave),
            ("live", self._heard_live),
            ("beat", self._heard_beat),
            ("decide", self._heard_packet),
            ("image", self._welcoming.hear_request),
            ("piece", self._joining.hear_piece),
            ("resend", self._heard_resend),
        ):
            self._engine.subscribe(self.membership.subject(name), call)
        self.membership.be(Role.JOINING)
        self._engine.start(self._connected, self._fatal)
        self._tick()

    def stop(self, done: Callable[[], None]) -> None:
        """Leaves the cluster: appends all that was decided to the log, so that another relay takes over at once."""

        def left() -> None:
            if not self._has_left:
                self._has_left = self.membership.is_over = True
                self._appending.step_down()
                self._engine.stop(done)

        if self.role is not Role.DECIDER:
            self._following.requests.flush()
            self.membership.publish("leave", self._following.link.encode())
            left()
            return
        self._appending.hand_over(left)
        self._call_later(HAND_OVER_S, left)

    def hand_over(self) -> bool:
        """Hands over to another relay; returns False if there is none, or if this one is not the decider."""
        if self.role is not Role.DECIDER or not self._peers.living():
            return False
        self._appending.hand_over(_nothing)
        return True

    def sweep(self) -> None:
        """Ends expired params, gestures and signals in the decider's core; called twice a second."""
        if self._appending.deciding is not None:
            self._appending.deciding.relay.sweep()

    def _fatal(self, text: str) -> None:
        if not self.membership.is_over:
            self.membership.is_over = True
            self._appending.step_down()
            self._following.refuses = NOT_READY
            self._following.end_sessions(GONE)
            self._when_fatal(text)

    def _connected(self, is_connected: bool) -> None:
        if self.membership.is_over:
            return
        if not is_connected:
            events.CLUSTER_CUT_OFF.log(cluster=self.membership.stream)
            return
        self._peers.hear_engine()
        self._peers.hear_decider()
        events.CLUSTER_CONNECTED.log(cluster=self.membership.stream)
        if self.role is Role.JOINING:
            self._joining.begin()
        elif self.role is Role.DECIDER:
            self._appending.append()
        else:
            self._following.requests.resend()

    # Facts about it

    @property
    def role(self) -> Role:
        """The role of the relay in its cluster."""
        return self.membership.role

    @property
    def alarms(self) -> int:
        """Number of alarms: faults of the log."""
        return self.membership.alarms

    @property
    def failovers(self) -> int:
        """Number of changes of the decider, after the first one."""
        return self._applying.failovers

    @property
    def applied_journal_seq(self) -> int:
        """The last row of the journal whose change is applied."""
        return self.membership.applied_journal_seq

    @property
    def is_ready(self) -> bool:
        """Whether clients can be served here."""
        is_served = self._following.refuses is None
        return is_served and self.role is not Role.JOINING and not self.is_spare and self._peers.is_in_touch

    def now_us(self) -> int | None:
        """Returns the Unix time in µs by the (last) decider's clock; None if none was heard yet."""
        deciding = self._appending.deciding
        return self._peers.heard_now_us if deciding is None else deciding.relay.clock.now_us()

    @property
    def is_standby(self) -> bool:
        """Whether it takes clients only when no other relay can."""
        return self.membership.options.is_standby

    @property
    def is_spare(self) -> bool:
        """Whether it takes no clients now: it is a standby, and not the decider, or no longer needed as such."""
        return self.is_standby and (self.role is not Role.DECIDER or self._peers.others_serve)

    @property
    def behind_records(self) -> int:
        """Number of batches that have left the decider and are not applied here yet."""
        return max(0, self.membership.known_seq - self._ledger.seq)

    @property
    def behind_s(self) -> float:
        """Seconds by which the decider's heartbeat is late; 0 at the decider."""
        if self.role is Role.DECIDER:
            return 0.0
        return max(0.0, self._monotonic_s() - self._peers.decider_s - BEAT_S)

    @property
    def epoch(self) -> int:
        """The present epoch."""
        return self._ledger.epoch

    # Time

    def _tick(self) -> None:
        if self.membership.is_over:
            return
        self._call_later(TICK_S, self._tick)
        now_s = self._monotonic_s()
        if now_s - self._beat_s >= BEAT_S and self._engine.is_connected:
            self._beat_s = now_s
            self.membership.publish("beat", encode_beat(self._my_beat()))
        self._look_at_engine(now_s)
        self._following.tick(now_s)
        if self.role is Role.JOINING:
            self._joining.go_on(now_s)
        elif self.role is Role.FOLLOWER:
            self._resend_old(now_s)
            self._claiming.go_on(now_s)
        elif self._appending.deciding is not None:
            self._end_gone(self._appending.deciding)

    def _my_beat(self) -> Beat:
        membership, deciding = self.membership, self._appending.deciding
        clock_us = 0 if deciding is None else deciding.relay.clock.now_us()
        is_joined, is_decider = self.role is not Role.JOINING, self.role is Role.DECIDER
        link, relay = self._following.link, membership.options.relay
        epoch, is_standby = self._ledger.epoch, self.is_standby
        return Beat(link, relay, epoch, membership.seq, is_joined, is_decider, clock_us, is_standby)

    def _look_at_engine(self, now_s: float) -> None:
        """Refuses writes while the engine is not heard; after ``CLOSES_S`` ends the sessions, too."""
        following = self._following
        following.is_cut_off = not self._peers.is_in_touch
        is_fresh = self._freshness.look(is_in_touch=self._peers.is_in_touch)
        following.note_fresh(is_fresh)
        if following.is_cut_off and now_s - self._peers.engine_s > CLOSES_S and not self._was_closed:
            self._was_closed = True
            count = following.end_sessions(GONE)
            events.CLUSTER_SESSIONS_CLOSED.log(sessions=count)
        if not following.is_cut_off:
            self._was_closed = False
        if self.is_spare:
            following.refuses = STANDBY
            self._give_way()
        elif self.role is Role.JOINING or not is_fresh:
            following.refuses = NOT_READY
        else:
            following.refuses = None

    def _give_way(self) -> None:
        """Makes a standby that had to decide hand over to another relay that is back, and end its sessions."""
        if self.role is Role.DECIDER and not self._appending.is_handing_over:
            self.hand_over()
        elif self.role is Role.FOLLOWER:
            self._following.end_sessions(STANDBY)

    def _resend_old(self, now_s: float) -> None:
        oldest_s = self._following.requests.oldest_s
        if oldest_s is not None and now_s - max(oldest_s, self._resent_s) > RESEND_S:
            self._resent_s = now_s
            self._following.requests.resend()

    def _end_gone(self, deciding: Deciding) -> None:
        for link in self._peers.gone(list(self._ledger.links)):
            if deciding.knows(link):
                events.CLUSTER_RELAY_GONE.log(relay=self._ledger.links[link])
                deciding.end_link(link)

    # Messages of the others

    def _heard_beat(self, payload: bytes) -> None:
        try:
            beat = decode_beat(payload)
        except DecodeError as error:
            events.CLUSTER_MESSAGE_BAD.log(error=error.message)
            return
        if beat.link == self._following.link:
            self._peers.hear_engine()
            return
        self._peers.hear(beat)
        if beat.is_decider:
            self._heard_decider(beat)

    def _heard_decider(self, beat: Beat) -> None:
        membership, ledger = self.membership, self._ledger
        is_newer = beat.epoch > ledger.epoch
        if is_newer and self.role is Role.DECIDER:
            self._appending.depose(beat.seq)
        if is_newer and self.role is Role.FOLLOWER and 0 < beat.seq < ledger.seq and not membership.releasing:
            # The log has begun again, from another relay's journal.
            self._join_again()
            return
        if self._is_cold_beside(beat):
            self._join_again()
            return
        if beat.epoch >= ledger.epoch:
            self._peers.hear_decider(beat.clock_us)
            membership.known_seq = max(membership.known_seq, beat.seq)
            if self.role is Role.FOLLOWER and ledger.seq < beat.seq:
                self._applying.read_gap()

    def _is_cold_beside(self, beat: Beat) -> bool:
        """Tells whether this relay has missed the decider, and so has begun without an image.

        It knows no sessions of others then, and would end them all if it became the decider.
        """
        membership = self.membership
        if self.role is not Role.FOLLOWER or membership.releasing or self._claiming.is_claiming:
            return False
        # A claim of a later epoch that is still to come may end all sessions anyway.
        return membership.is_cold and beat.epoch == self._ledger.epoch

    def _heard_live(self, payload: bytes) -> None:
        self._applying.hear_live(int.from_bytes(payload[:8], "big"), payload[8:])

    def _heard_packet(self, payload: bytes) -> None:
        if self._appending.deciding is None or self._appending.is_handing_over:
            return
        try:
            packet = decode_packet(payload)
        except DecodeError as error:
            events.CLUSTER_MESSAGE_BAD.log(error=error.message)
            return
        self._take_packet(packet)

    def send_packet(self, packet: Packet) -> None:
        """Sends requests of this relay's sessions to the decider, be it this relay or another one."""
        if self._appending.deciding is None:
            self.membership.publish("decide", encode_packet(packet))
        elif not self._appending.is_handing_over:
            self._appending.append_behind(lambda: self._take_packet(packet))

    def _take_packet(self, packet: Packet) -> None:
        deciding = self._appending.deciding
        if deciding is not None and packet.epoch == deciding.epoch and not deciding.receive(packet):
            payload = msgpack.packb((packet.link, deciding.knows(packet.link), deciding.epoch))
            self.membership.publish("resend", payload)

    def _heard_leave(self, payload: bytes) -> None:
        if self._appending.deciding is not None and not self._appending.is_handing_over:
            self._appending.deciding.end_link(payload.decode())

    def _heard_resend(self, payload: bytes) -> None:
        link, is_known, epoch = msgpack.unpackb(payload, use_list=False)
        # An earlier decider that has stood still may not know yet that it is one no longer.
        if link != self._following.link or self.role is Role.JOINING or epoch < self._ledger.epoch:
            return
        if is_known:
            self._following.requests.resend()
        else:
            self._expelled()

    # Changes of its role

    def _joined(self) -> None:
        """Becomes a follower."""
        membership = self.membership
        membership.be(Role.FOLLOWER)
        if membership.is_cold:
            # There is no decider, so this relay may claim at once.
            self._peers.expect_decider()
        self._look_at_engine(self._monotonic_s())
        name, seq = self._ledger.decider_name, self._ledger.seq
        events.CLUSTER_JOINED.log(relay=membership.options.relay, seq=seq, decider=name)
        if not membership.is_cold:
            # So the decider knows this relay before it has any session.
            self._following.requests.resend()
        self._applying.go_on()

    def _decide(self) -> None:
        """Becomes the decider, when the claim is recorded."""
        self._appending.decide()
        self._beat_s = -BEAT_S

    def _meet_other_base(self) -> None:
        self._joining.meet_other_base()

    def _join_again(self) -> None:
        """Joins again as after a start, and ends all sessions."""
        self._appending.step_down()
        self._claiming.cancel()
        self._joining.begin_again()
        self._look_at_engine(self._monotonic_s())
        self._following.begin_anew(self._new_link())

    def _expelled(self) -> None:
        """Continues with a new link: the other relays count this one as lost, so its sessions have ended."""
        if self.role is Role.JOINING:
            return
        link = self._following.link
        self._call_later(0, lambda: self._begin_anew(link))

    def _begin_anew(self, link: str) -> None:
        """Ends a link of this relay; does nothing if it has ended already, since the log may say so more than once."""
        if self._following.link == link and not self.membership.is_over:
            events.CLUSTER_EXPELLED.log()
            self._following.begin_anew(self._new_link())


def _nothing() -> None:
    """Does nothing."""
