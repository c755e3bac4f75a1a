"""A relay's part in its cluster: joins, follows the log, claims to decide, decides, and steps down.

The log is the arbiter. Whoever appends a claim of the next epoch behind the last batch decides from there on; the
decider before is fenced at its next append, and what it has decided beyond the log is thrown away. Signs of life and
silence say when to claim; they never make it right.

A batch leaves the decider once the log has acknowledged it *and* the decider's own journal has it. The others apply
it as it comes over the bus; where one is missing they read it from the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

import msgpack

from clasp_relay.cluster import image as images
from clasp_relay.cluster.batches import (
    NO_DIGEST,
    Batch,
    Claimed,
    HandedOver,
    Item,
    NewerVersion,
    decode_batch,
    digest_of,
    encode_batch,
)
from clasp_relay.cluster.deciding import Deciding, Row, Sealed
from clasp_relay.cluster.following import GONE, NOT_READY, STANDBY, Following
from clasp_relay.cluster.ledger import Contradiction
from clasp_relay.cluster.packets import Beat, Packet, decode_beat, decode_packet, encode_beat, encode_packet
from clasp_relay.cluster.ports import Appended, Bounds, Engine, Outcome
from clasp_relay.core.records import Change, ChangeKind, no_param
from clasp_relay.core.relay import Relay
from clasp_relay.errors import DecodeError
from clasp_relay.logs import events
from clasp_relay.wire.values import decode_value, encode_value

__all__ = ["Journal", "Node", "NodeOptions", "Position", "Role", "position_of"]

TICK_S = 0.05
BEAT_S = 0.25
"""How often a relay says that it is there."""

SILENCE_S = 2.0
"""After so long without a sign of the decider another relay claims."""

SPREAD_S = 0.3
"""Within this time the relays claim one after the other."""

STANDBY_S = 2.0
"""How much later a standby claims."""

CUT_OFF_S = 1.0
"""After so long without an answer of the engine a relay asks nothing of it any more."""

CLOSES_S = 5.0
"""After so long without one it ends its sessions, so that they go elsewhere."""

GONE_S = 3.0
"""A relay that was not heard for so long is recorded as gone."""

EMPTY_S = 0.7
"""How much longer one waits that has nothing: one that has something is to be the first."""

OFF_LOG_S = 4.0
"""How much longer a relay waits for one that has more, where the log has lost what the files have."""

RETRY_S = 0.1
IMAGE_S = 2.0
"""How long an image is waited for before it is asked for again; counted from its last piece."""

COLD_S = 1.0
"""How long a relay that has found nobody waits before it takes itself for the first one."""

RESEND_S = 1.0
"""After so long without an answer of the decider all that is not done is sent again."""

READ_AT_ONCE = 64
"""How many batches are read from the log together."""

RING_BYTES = 16 * 1024 * 1024
"""How much of the last batches is kept, in case the log should lose them."""

HAND_OVER_S = 2.0
"""How long a stop waits for its last batches."""


class Role(Enum):
    """What a relay is in its cluster."""

    JOINING = "joining"
    FOLLOWER = "follower"
    DECIDER = "decider"


class NodeOptions(NamedTuple):
    """What a node is told about itself."""

    cluster: str
    """How all subjects begin."""
    relay: str
    """The relay's name."""
    is_standby: bool = False


class Position(NamedTuple):
    """How far the log is in a relay's files."""

    seq: int
    digest: bytes
    epoch: int = 0
    time_us: int = 0
    """The decider's clock then, in Unix µs."""


class Journal(Protocol):
    """What a node needs of the journal."""

    @property
    def appended_seq(self) -> int:
        """The last row that was appended."""

    def append_judged(self, entries: Sequence[Row]) -> None:
        """Records changes of which it is known what history does with them."""

    def when_recorded(self, call: Callable[[], None]) -> None:
        """Makes a call once all is recorded that was appended; never where that fails."""

    def find_position(self, number: int, call: Callable[[Change | None], None]) -> None:
        """Calls with the row that names a batch of the log; with None where there is none."""

    def read_tail(self, seq: int, last_seq: int, call: Callable[[Sequence[Change] | None], None]) -> None:
        """Calls with the changes from a row on, that one included, up to another; with None where some are gone."""

    def restart_at(self, seq: int) -> None:
        """Has an empty journal go on behind a row of the others."""


class _Peer:
    """Another relay, as it was heard last."""

    def __init__(self, beat: Beat, heard_s: float) -> None:
        self.beat = beat
        self.heard_s = heard_s


class _Sent(NamedTuple):
    """A batch on its way into the log."""

    payload: bytes
    batch: Batch
    rows: tuple[Row, ...]


class _Out:
    """What is on its way from the decider into the log, and from there to the others."""

    def __init__(self) -> None:
        self.sealed: deque[Sealed] = deque()
        self.sealed_bytes = 0
        self.is_sealing = False
        self.sending: _Sent | None = None
        self.log_seq = 0
        """The last batch that the log has acknowledged to this decider."""
        self.log_digest = b""
        self.releasing = 0
        """How many batches are in the log and not in the journal yet."""
        self.hands_over: Callable[[], None] | None = None
        """What is called once this relay has handed over; None where it does not."""


class _AskedImage:
    """An image that another relay was asked for."""

    def __init__(self) -> None:
        self.number = 0
        self.since_s: float | None = None
        """When it was asked for, or a piece of it came; None while none is waited for."""
        self.pieces: dict[int, bytes] = {}


class _Ring:
    """The last batches, in case the log should lose them."""

    def __init__(self) -> None:
        self._batches: dict[int, bytes] = {}
        self._bytes = 0

    def add(self, seq: int, payload: bytes) -> None:
        """Takes the next batch."""
        self._batches[seq] = payload
        self._bytes += len(payload)
        while self._bytes > RING_BYTES:
            self._bytes -= len(self._batches.pop(next(iter(self._batches))))

    def get(self, seq: int) -> bytes | None:
        """Returns a batch; None where it is not kept."""
        return self._batches.get(seq)


class Node:
    """See the module. It is given everything that is not its own: the event loop, the engine, the core.

    Args:
        options: what it is told about itself.
        engine: the log and the bus.
        following: the sessions of this relay and what the log says.
        relay: the core that serves them.
        journal: this relay's.
        position: how far the log is in this relay's files; None where nothing of it is.
        make_deciding: makes the core that decides: given its epoch, and from which Unix time in µs its clock goes on.
        monotonic_s: seconds.
        wall_us: Unix µs.
        call_later: the event loop's.
        new_link: makes the name of a run of this relay.
        report: told of each scheduled bundle that is refused.
        when_fatal: told, in one line, why the relay cannot go on.
        when_imaged: called when the state came from another relay, so that it is saved.
    """

    def __init__(
        self,
        options: NodeOptions,
        engine: Engine,
        following: Following,
        relay: Relay,
        journal: Journal,
        position: Position | None,
        make_deciding: Callable[[int, int], Deciding],
        monotonic_s: Callable[[], float],
        wall_us: Callable[[], int],
        call_later: Callable[[float, Callable[[], None]], object],
        new_link: Callable[[], str],
        report: Callable[[str, str], None],
        when_fatal: Callable[[str], None],
        when_imaged: Callable[[], object],
    ) -> None:
        self.role = Role.JOINING
        self.alarms = 0
        """How often the log was not what it has to be."""
        self.failovers = 0
        """How often another relay has come to decide, after the first."""
        self.applied_journal_seq = journal.appended_seq
        """The last row of the journal whose change is applied."""
        self._options = options
        self._engine = engine
        self._following = following
        self._ledger = following.ledger
        self._relay = relay
        self._journal = journal
        self._position = position
        self._make_deciding = make_deciding
        self._monotonic_s = monotonic_s
        self._wall_us = wall_us
        self._call_later = call_later
        self._new_link = new_link
        self._report = report
        self._when_fatal = when_fatal
        self._when_imaged = when_imaged
        self._is_over = False
        self._has_left = False
        self._deciding: Deciding | None = None
        self._peers: dict[str, _Peer] = {}
        self._began_s = 0.0
        self._beat_s = -BEAT_S
        self._engine_s = 0.0
        """When the engine was heard last."""
        self._decider_s = 0.0
        """When the decider was heard last."""
        self._known_seq = 0
        """The last batch that has left the decider, as far as is known."""
        self._clock: tuple[int, float] | None = None
        """The decider's clock, and when that was heard."""
        self._live: dict[int, bytes] = {}
        """Batches that came over the bus ahead of their time."""
        self._is_reading = self._is_claiming = self._was_closed = False
        self._resent_s = 0.0
        self._is_cold = False
        """Whether it knows of nobody's sessions, since nobody could tell."""
        self._base = b""
        """Names the state that this relay began with and that the log does not tell; empty where there is none."""
        self._is_off_log = False
        """Whether the log does not have what this relay's files say; others have to tell the rest."""
        self._image = _AskedImage()
        self._out = _Out()
        self._ring = _Ring()
        following.when_expelled = self._expelled

    # Life

    def start(self) -> None:
        """Begins to join."""
        now_s = self._monotonic_s()
        self._began_s = self._engine_s = self._decider_s = now_s
        for name, call in (
            ("leave", self._heard_leave),
            ("live", self._heard_live),
            ("beat", self._heard_beat),
            ("decide", self._heard_packet),
            ("image", self._heard_image_request),
            ("resend", self._heard_resend),
        ):
            self._engine.subscribe(self._subject(name), call)
        self._listen_for_image()
        self._engine.start(self._connected, self._fatal)
        self._tick()

    def stop(self, done: Callable[[], None]) -> None:
        """Leaves the cluster in order: what was decided goes into the log, and the next one takes over at once."""

        def left() -> None:
            if not self._has_left:
                self._has_left = self._is_over = True
                self._step_down()
                self._engine.stop(done)

        if self.role is not Role.DECIDER:
            self._following.flush()
            self._publish("leave", self._following.link.encode())
            left()
            return
        self._hand_over(left)
        self._call_later(HAND_OVER_S, left)

    def hand_over(self) -> bool:
        """Has another relay decide; returns whether there is one, and this one decides now."""
        if self.role is not Role.DECIDER or not self._living_peers():
            return False
        self._hand_over(_nothing)
        return True

    @property
    def is_ready(self) -> bool:
        """Whether clients are well served here."""
        return self.role is not Role.JOINING and not self._options.is_standby and self._is_in_touch

    @property
    def is_standby(self) -> bool:
        """Whether it takes no clients."""
        return self._options.is_standby

    @property
    def behind_records(self) -> int:
        """How many batches have left the decider that are not applied here."""
        return max(0, self._known_seq - self._ledger.seq)

    @property
    def behind_s(self) -> float:
        """For how long the decider was not heard; 0 at the decider."""
        if self.role is Role.DECIDER:
            return 0.0
        return max(0.0, self._monotonic_s() - self._decider_s - BEAT_S)

    @property
    def epoch(self) -> int:
        """Which decider's time it is."""
        return self._ledger.epoch

    @property
    def _is_in_touch(self) -> bool:
        return self._engine.is_connected and self._monotonic_s() - self._engine_s < CUT_OFF_S

    def sweep(self) -> None:
        """Ends what has lived long enough. To be called twice a second."""
        if self._deciding is not None:
            self._deciding.relay.sweep()

    def _subject(self, name: str) -> str:
        return f"{self._options.cluster}.{name}"

    def _publish(self, name: str, payload: bytes) -> None:
        self._engine.publish(self._subject(name), payload)

    def _fatal(self, text: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._step_down()
            self._following.refuses = NOT_READY
            self._following.end_sessions(GONE)
            self._when_fatal(text)

    def _alarm(self, text: str) -> None:
        self.alarms += 1
        events.CLUSTER_ALARM.log(text=text)

    def _connected(self, is_connected: bool) -> None:
        if self._is_over:
            return
        if is_connected:
            self._engine_s = self._decider_s = self._monotonic_s()
            events.CLUSTER_CONNECTED.log(cluster=self._options.cluster)
            if self.role is Role.JOINING:
                self._began_s = self._monotonic_s()
            elif self.role is Role.DECIDER:
                self._append()
            else:
                self._following.resend()
        else:
            events.CLUSTER_CUT_OFF.log(cluster=self._options.cluster)

    # Time

    def _tick(self) -> None:
        if self._is_over:
            return
        self._call_later(TICK_S, self._tick)
        now_s = self._monotonic_s()
        if now_s - self._beat_s >= BEAT_S and self._engine.is_connected:
            self._beat_s = now_s
            self._publish("beat", encode_beat(self._my_beat()))
        self._look_at_engine(now_s)
        self._following.give_up_old(now_s)
        if self.role is Role.JOINING:
            self._join(now_s)
        elif self.role is Role.FOLLOWER:
            self._follow(now_s)
        elif self._deciding is not None:
            for link in list(self._ledger.links):
                self._end_if_gone(self._deciding, link, now_s)

    def _my_beat(self) -> Beat:
        clock_us = 0 if self._deciding is None else self._deciding.relay.clock.now_us()
        options, ledger = self._options, self._ledger
        is_decider = self.role is Role.DECIDER
        link, seq, is_joined = self._following.link, ledger.seq, self.role is not Role.JOINING
        if self._position is not None and (not is_joined or self._base):
            # What its files have counts, also beyond the log.
            seq = self._position.seq
        return Beat(link, options.relay, ledger.epoch, seq, is_joined, is_decider, clock_us)

    def _look_at_engine(self, now_s: float) -> None:
        """Refuses writes while the engine is not heard, and in the end sessions, too."""
        following = self._following
        following.is_cut_off = not self._is_in_touch
        if following.is_cut_off and now_s - self._engine_s > CLOSES_S and not self._was_closed:
            self._was_closed = True
            count = following.end_sessions(GONE)
            events.CLUSTER_SESSIONS_CLOSED.log(sessions=count)
        if not following.is_cut_off:
            self._was_closed = False
        if self._options.is_standby:
            following.refuses = STANDBY
        elif self.role is Role.JOINING or following.is_cut_off:
            following.refuses = NOT_READY
        else:
            following.refuses = None

    def _end_if_gone(self, deciding: Deciding, link: str, now_s: float) -> None:
        if link == self._following.link:
            return
        peer = self._peers.get(link)
        if peer is None:
            # Whoever was there before this relay decided has this long to be heard.
            self._peers[link] = _Peer(Beat(link, self._ledger.links[link], 0, 0, False, False, 0), now_s)
        elif now_s - peer.heard_s > GONE_S and deciding.knows(link):
            events.CLUSTER_RELAY_GONE.log(relay=self._ledger.links[link])
            deciding.end_link(link)

    def _living_peers(self) -> list[Beat]:
        end_s = self._monotonic_s() - SILENCE_S
        own = self._following.link
        return [peer.beat for link, peer in self._peers.items() if peer.heard_s > end_s and link != own]

    # What the others say

    def _heard_beat(self, payload: bytes) -> None:
        try:
            beat = decode_beat(payload)
        except DecodeError as error:
            events.CLUSTER_MESSAGE_BAD.log(error=error.message)
            return
        now_s = self._monotonic_s()
        if beat.link == self._following.link:
            self._engine_s = now_s
            return
        if beat.relay == self._options.relay and beat.link not in self._peers and now_s - self._began_s > GONE_S:
            events.CLUSTER_NAME_TWICE.log(relay=beat.relay)
        self._peers[beat.link] = _Peer(beat, now_s)
        if len(self._peers) > 1_000:
            self._peers = {link: peer for link, peer in self._peers.items() if peer.heard_s > now_s - GONE_S}
        if beat.is_decider and self.role is Role.DECIDER and beat.epoch > self._ledger.epoch:
            self._depose(beat.seq)
        if beat.is_decider and beat.epoch >= self._ledger.epoch:
            self._decider_s = now_s
            self._known_seq = max(self._known_seq, beat.seq)
            if beat.clock_us:
                self._clock = beat.clock_us, now_s
            if self.role is Role.FOLLOWER and self._ledger.seq < beat.seq:
                self._read_gap()

    def _heard_live(self, payload: bytes) -> None:
        seq = int.from_bytes(payload[:8], "big")
        if self.role is Role.DECIDER or seq <= self._ledger.seq:
            return
        self._decider_s = self._monotonic_s()
        self._known_seq = max(self._known_seq, seq)
        self._live[seq] = payload[8:]
        if len(self._live) > READ_AT_ONCE * 16:
            del self._live[min(self._live)]
        if self.role is Role.FOLLOWER:
            self._apply_live()
            if self._live:
                self._read_gap()

    def _apply_live(self) -> None:
        """Applies the batches that came over the bus, as far as none is missing."""
        live, ledger = self._live, self._ledger
        if self._out.releasing or self._is_over:
            return
        while live and not self._is_over:
            payload = live.pop(ledger.seq + 1, None)
            if payload is None:
                break
            self._apply(ledger.seq + 1, payload)
        for seq in [seq for seq in live if seq <= ledger.seq]:
            del live[seq]

    def _heard_packet(self, payload: bytes) -> None:
        if self._deciding is None or self._out.hands_over is not None:
            return
        try:
            packet = decode_packet(payload)
        except DecodeError as error:
            events.CLUSTER_MESSAGE_BAD.log(error=error.message)
            return
        self._take_packet(packet)

    def send_packet(self, packet: Packet) -> None:
        """Brings what this relay's sessions ask to whoever decides."""
        if self._deciding is None:
            self._publish("decide", encode_packet(packet))
        elif self._out.hands_over is None:
            self._take_packet(packet)

    def _take_packet(self, packet: Packet) -> None:
        deciding = self._deciding
        if deciding is not None and packet.epoch == deciding.epoch and not deciding.receive(packet):
            payload = msgpack.packb((packet.link, deciding.knows(packet.link)))
            self._publish("resend", payload)

    def _heard_leave(self, payload: bytes) -> None:
        if self._deciding is not None and self._out.hands_over is None:
            self._deciding.end_link(payload.decode())

    def _heard_resend(self, payload: bytes) -> None:
        link, is_known = msgpack.unpackb(payload, use_list=False)
        if link != self._following.link or self.role is Role.JOINING:
            return
        if is_known:
            self._following.resend()
        else:
            self._expelled()

    def _expelled(self) -> None:
        """The others have given this relay up: its sessions have ended, and it goes on as another run of it."""
        if self.role is Role.JOINING:
            return
        events.CLUSTER_EXPELLED.log()
        self._call_later(0, self._begin_anew)

    def _begin_anew(self) -> None:
        if not self._is_over:
            self._following.begin_anew(self._new_link())

    # Join

    def _join(self, now_s: float) -> None:
        """Looks where to begin: at an image of another relay, or at what the log and the files have."""
        if not self._engine.is_connected or self._is_reading:
            return
        if self._image.since_s is not None:
            if now_s - self._image.since_s > IMAGE_S:
                self._image.since_s = None
            return
        if any(peer.is_joined and peer.seq for peer in self._living_peers()):
            self._ask_image(now_s)
        elif now_s - self._began_s > COLD_S + self._spread_s() + (EMPTY_S if self._is_empty else 0.0):
            self._is_reading = True
            self._engine.bounds(self._join_cold)

    @property
    def _is_empty(self) -> bool:
        return self._position is None and images.is_empty(self._relay.params)

    def _ask_image(self, now_s: float) -> None:
        """Asks for an image: for all of the state, what is behind an older one, or only what the log does not tell."""
        self._image.since_s, self._image.pieces = now_s, {}
        self._image.number += 1
        position = self._position
        if position is None:
            self._request_image(0)
            return

        def found(payloads: Sequence[bytes] | None) -> None:
            if payloads is not None and self.role is Role.JOINING and not self._is_over:
                self._is_off_log = not payloads or digest_of(payloads[0]) != position.digest
                self._request_image(self._journal.appended_seq if self._is_off_log else -1)

        self._engine.read(position.seq, 1, found)

    def _ask_tail(self) -> None:
        """Asks for what the log does not tell beyond the batch that was applied last."""
        ledger = self._ledger
        self._is_reading = False
        self._is_off_log = True
        self._position = Position(ledger.seq, ledger.digest, ledger.epoch, ledger.time_us)
        self._image.since_s, self._image.pieces = self._monotonic_s(), {}
        self._image.number += 1
        self._request_image(self._journal.appended_seq)

    def _request_image(self, journal_seq: int) -> None:
        """Asks for all (0), for the rows behind one that this relay has, or for no state (-1)."""
        position = self._position or Position(0, b"")
        request = (self._following.link, self._image.number, journal_seq, position.seq, position.digest)
        self._publish("image", msgpack.packb(request))

    def _join_cold(self, bounds: Bounds | None) -> None:
        """Begins where nobody else is there: with the files, and the log behind them."""
        self._is_reading = False
        if bounds is None or self._is_over:
            return
        if any(beat.seq > bounds.last for beat in self._living_peers()) and self._is_outdone():
            return  # the log has lost what another relay's journal has: that one is to be the first
        position = self._position
        if position is None:
            if bounds.last and not (bounds.first <= 1 and images.is_empty(self._relay.params)):
                self._refuse_state(bounds)
                return
            self._base = b"" if images.is_empty(self._relay.params) else digest_of(self._following.link.encode())
            position = Position(0, self._ledger.digest)
        if position.seq > bounds.last:
            self._join_off_log(position, bounds)
            return
        if bounds.first > position.seq + 1:
            self._fatal(
                f"the stream {self._options.cluster} begins at batch {bounds.first}, behind what this relay's files "
                f"have (batch {position.seq}): start a relay that has more first, and this one with an empty data-dir"
            )
            return
        self._is_cold = True
        self._read_from(position, bounds.first, bounds.last)

    def _join_off_log(self, position: Position, bounds: Bounds) -> None:
        """Goes on behind a log that has lost its end: no other relay has more of it."""
        if self._monotonic_s() - self._began_s < COLD_S + OFF_LOG_S or self._is_outdone():
            return

        def goes_on(last: Position) -> None:
            self._alarm(
                f"the stream {self._options.cluster} ends at batch {bounds.last}, before what this relay's journal has "
                f"(batch {position.seq}): it goes on from the journal"
            )
            self._base, self._is_cold = position.digest, True
            time_us = max(last.time_us, position.time_us)
            self._begin_reading(Position(last.seq, last.digest, max(last.epoch, position.epoch), time_us), last.seq)

        if not bounds.last:
            goes_on(Position(0, NO_DIGEST))
            return
        self._is_reading = True

        def compared(row: Change | None, payload: bytes) -> None:
            self._is_reading = False
            mine = position_of(row)
            if mine is None or mine.digest != digest_of(payload):
                self._fatal(
                    f"the stream {self._options.cluster} and this relay's journal contradict each other at batch "
                    f"{bounds.last}: give the cluster another name, or start this relay with an empty data-dir"
                )
            else:
                goes_on(mine)

        def read(payloads: Sequence[bytes] | None) -> None:
            if payloads:
                self._journal.find_position(bounds.last, lambda row: compared(row, payloads[0]))
            else:
                self._is_reading = False

        self._engine.read(bounds.last, 1, read)

    def _refuse_state(self, bounds: Bounds) -> None:
        if images.is_empty(self._relay.params):
            self._wait_for_state(bounds.first)
            return
        self._fatal(
            "this relay's data-dir has a state that is not of the cluster "
            f"{self._options.cluster}: start it with an empty data-dir, or give the cluster another name"
        )

    def _wait_for_state(self, first: int) -> None:
        """Goes on to wait: whoever has the state that the log began with may start later."""
        self._is_cold = False
        self._began_s = self._monotonic_s()
        events.CLUSTER_NEEDS_IMAGE.log(seq=first)

    def _read_from(self, position: Position, first: int, last: int) -> None:
        """Makes sure that the files are of this log, and follows it from there."""
        self._is_reading = True
        if not last or first > max(1, position.seq):
            self._begin_reading(position, last)
            return

        def found(payloads: Sequence[bytes] | None) -> None:
            if payloads and not position.seq and not _has_base(payloads[0]):
                self._begin_reading(position, last)
            elif payloads and not position.seq:
                self._is_reading = False
                self._wait_for_state(1)
            elif payloads and digest_of(payloads[0]) == position.digest:
                self._begin_reading(position, last)
            elif payloads:
                self._fatal(
                    f"this relay's journal and the stream {self._options.cluster} contradict each other at batch "
                    f"{position.seq}: start this relay with an empty data-dir"
                )
            else:
                self._is_reading = False

        self._engine.read(max(1, position.seq), 1, found)

    def _begin_reading(self, position: Position, last: int) -> None:
        self._begin_at(position)
        self._is_reading = False
        self._known_seq = max(self._known_seq, last)
        self._joined()

    def _begin_at(self, position: Position) -> None:
        ledger = self._ledger
        ledger.seq, ledger.digest, ledger.epoch, ledger.time_us = position

    def _joined(self) -> None:
        """Follows from now on."""
        self.role = Role.FOLLOWER
        # Where nobody decides, this relay may at once.
        self._decider_s = self._monotonic_s() - (SILENCE_S if self._is_cold else 0.0)
        self._look_at_engine(self._monotonic_s())
        events.CLUSTER_JOINED.log(relay=self._options.relay, seq=self._ledger.seq, decider=self._ledger.decider_name)
        if not self._is_cold:
            self._following.introduce()
        self._apply_live()
        if self._ledger.seq < self._known_seq:
            self._read_gap()

    # Image

    def _listen_for_image(self) -> None:
        self._engine.subscribe(self._subject("piece"), self._heard_piece)

    def _heard_image_request(self, payload: bytes) -> None:
        """Gives an image to a relay that joins; the decider does, or where there is none the first who can."""
        link, number, journal_seq, seq, digest = msgpack.unpackb(payload, use_list=False)
        if self.role is Role.JOINING or link == self._following.link or self._is_cold:
            return
        others = [beat for beat in self._living_peers() if beat.is_joined and beat.link != link]
        if self.role is not Role.DECIDER and any(
            beat.is_decider or beat.link < self._following.link for beat in others
        ):
            return
        image = images.capture(self._relay, self._ledger, self.applied_journal_seq, with_state=not journal_seq)
        if journal_seq <= 0:
            self._send_image(link, number, image)
            return

        def found(rows: Sequence[Change] | None) -> None:
            begin = position_of(rows[0]) if rows and rows[0].kind is ChangeKind.POSITION else None
            if rows is None or begin is None or (begin.seq, begin.digest) != (seq, digest):
                self._publish("piece", msgpack.packb((link, number, 0, 0, b"")))
            else:
                image.tail.extend(rows[1:])
                self._send_image(link, number, image)

        if journal_seq > image.journal_seq:
            found(None)
        else:
            self._journal.read_tail(journal_seq, image.journal_seq, found)

    def _send_image(self, link: str, number: int, image: images.Image) -> None:
        pieces = images.encode_image(image)
        made: list[bytes] = []

        def go_on() -> None:
            for piece in pieces:
                if piece is None:
                    self._call_later(0, go_on)
                    return
                made.append(piece)
            for place, piece in enumerate(made):
                self._publish("piece", msgpack.packb((link, number, place, len(made), piece)))

        go_on()

    def _heard_piece(self, payload: bytes) -> None:
        link, number, place, count, piece = msgpack.unpackb(payload, use_list=False)
        if link != self._following.link or number != self._image.number or self._image.since_s is None:
            return
        self._image.since_s = self._monotonic_s()
        if not count:
            self._fatal(
                f"this relay's journal has what the cluster {self._options.cluster} does not have, or is too old for "
                "it: start this relay with an empty data-dir"
            )
            return
        self._image.pieces[place] = piece
        if len(self._image.pieces) < count:
            return
        self._image.since_s = None
        try:
            image = images.decode_image([self._image.pieces[each] for each in range(count)])
        except DecodeError as error:
            self._fatal(error.message)
            return
        if image.state is not None:
            self._take_state(image)
        elif self._is_off_log:
            self._take_tail(image)
        else:
            self._take_sessions(image)

    def _take_state(self, image: images.Image) -> None:
        if not images.is_empty(self._relay.params) or self._journal.appended_seq:
            self._refuse_state(Bounds(0, image.seq))
            return
        self._journal.restart_at(image.journal_seq)
        self.applied_journal_seq = image.journal_seq
        self._install(image)
        self._when_imaged()

    def _take_tail(self, image: images.Image) -> None:
        """Takes the rows that other relays' journals have beyond this one's."""
        committer = self._relay.committer
        for change in image.tail:
            committer.record((change,))
            committer.follow(change)
        self.applied_journal_seq = self._journal.appended_seq
        if self.applied_journal_seq != image.journal_seq:
            self._fatal(f"this relay's journal is not like those of the cluster {self._options.cluster}")
            return
        self._install(image)

    def _take_sessions(self, image: images.Image) -> None:
        """Follows the log from where the files are up to the image, then takes what only that has."""
        position = self._position
        assert position is not None, "an image without a state for a relay that has none"
        if image.seq < position.seq:
            return  # asked for again
        self._is_reading = True
        self._begin_at(position)

        def read(payloads: Sequence[bytes] | None) -> None:
            for payload in payloads or ():
                if self._ledger.seq < image.seq and not self._is_over and not self._is_off_log:
                    self._apply(self._ledger.seq + 1, payload)
            if self._is_over or self._is_off_log:
                return
            if self._ledger.seq < image.seq:
                if payloads:
                    go_on()
                    return
                self._fatal(
                    f"the stream {self._options.cluster} does not reach back to where this relay's files are (batch "
                    f"{position.seq}): start it with an empty data-dir"
                )
                return
            self._is_reading = False
            if self._ledger.digest != image.digest:
                self._fatal(
                    f"this relay's journal and the cluster {self._options.cluster} contradict each other at batch "
                    f"{image.seq}: start this relay with an empty data-dir"
                )
                return
            self._install(image)

        def go_on() -> None:
            self._engine.read(self._ledger.seq + 1, min(READ_AT_ONCE, image.seq - self._ledger.seq), read)

        if self._ledger.seq < image.seq:
            go_on()
        else:
            read(())

    def _install(self, image: images.Image) -> None:
        images.install(image, self._relay, self._ledger)
        self._known_seq = max(self._known_seq, image.seq)
        self._joined()

    # Follow

    def _apply(self, seq: int, payload: bytes) -> None:
        """Checks and applies the next batch of another decider, or of this one's past."""
        digest = digest_of(payload)
        try:
            batch = decode_batch(payload)
            self._ledger.check(seq, batch)
        except NewerVersion as error:
            self._fatal(f"batch {seq} of the stream {self._options.cluster}: {error.message}; update this relay")
            return
        except DecodeError as error:
            self._fatal(f"batch {seq} of the stream {self._options.cluster}: {error.message}")
            return
        except Contradiction as error:
            self._alarm(str(error))
            self._fatal(f"the stream {self._options.cluster} contradicts what this relay has: {error}")
            return
        if not self._is_of_other_base(batch):
            self._take(seq, digest, payload, batch, is_recorded=False)

    def _is_of_other_base(self, batch: Batch) -> bool:
        """Tells whether a batch begins with a state that this relay does not have; then it is not to be applied."""
        claim = next((item for item in batch.items if isinstance(item, Claimed)), None)
        if claim is None or claim.base == self._base or not (claim.base or self._is_cold):
            return False
        if self.role is Role.JOINING:
            self._ask_tail()
        elif not self._ledger.seq and images.is_empty(self._relay.params):
            # Nothing is lost here: that relay gives an image.
            self.role, self._is_cold, self._base = Role.JOINING, False, b""
            self._began_s = self._monotonic_s()
        else:
            self._fatal(
                f"the relay {claim.relay} has begun the log of the cluster {self._options.cluster} with another state "
                "than this relay has: start this relay with an empty data-dir"
            )
        return True

    def _take(self, seq: int, digest: bytes, payload: bytes, batch: Batch, *, is_recorded: bool) -> None:
        decider = self._ledger.decider
        self._following.take_batch(seq, digest, batch, is_recorded=is_recorded)
        if not is_recorded:
            self._journal.append_judged((_position_row(seq, digest, batch),))
        self.applied_journal_seq = self.applied_journal_seq if is_recorded else self._journal.appended_seq
        self._ring.add(seq, payload)
        for item in batch.items:
            if isinstance(item, Claimed):
                self._base = b""
                self._is_cold = self._is_cold and not item.is_cold
                self.failovers += bool(decider) and decider != item.link
                events.CLUSTER_DECIDER.log(relay=item.relay, epoch=batch.epoch, seq=seq)
            elif isinstance(item, HandedOver):
                # Whoever is first takes over; the one that handed over waits.
                self._decider_s = self._monotonic_s() - (SILENCE_S if not is_recorded else 0.0)

    def _follow(self, now_s: float) -> None:
        following = self._following
        oldest_s = following.oldest_s
        if oldest_s is not None and now_s - max(oldest_s, self._resent_s) > RESEND_S:
            self._resent_s = now_s
            following.resend()
        if self._is_reading or self._is_claiming or self._out.releasing or not self._is_in_touch:
            return
        if self._ledger.seq < self._known_seq:
            self._read_gap()
            return
        late_s = STANDBY_S if self._options.is_standby else 0.0
        if now_s - self._decider_s > SILENCE_S + late_s + self._spread_s() and not self._is_outdone(by_joined=True):
            self._claim()

    def _spread_s(self) -> float:
        return digest_of(self._following.link.encode())[0] / 256 * SPREAD_S

    def _is_outdone(self, *, by_joined: bool = False) -> bool:
        """Tells whether another relay has more of the log: any that is there, or one that follows and could decide."""
        mine = self._my_beat().seq
        return any(beat.seq > mine for beat in self._living_peers() if beat.is_joined or not by_joined)

    def _read_gap(self) -> None:
        """Reads from the log what did not come over the bus."""
        if self._is_reading or self._out.releasing or self._is_over:
            return
        self._is_reading = True
        self._engine.read(self._ledger.seq + 1, READ_AT_ONCE, self._read)

    def _read(self, payloads: Sequence[bytes] | None) -> None:
        self._is_reading = False
        if self._is_over or self.role is not Role.FOLLOWER or self._out.releasing:
            return
        for payload in payloads or ():
            # What has not left the decider yet is not its followers' to tell.
            if self._ledger.seq >= self._known_seq or self._is_over:
                break
            self._apply(self._ledger.seq + 1, payload)
        self._apply_live()
        if self._ledger.seq < self._known_seq:
            if payloads:
                self._read_gap()
            elif payloads is not None:
                self._engine.bounds(self._check_reach)

    def _check_reach(self, bounds: Bounds | None) -> None:
        """Stops where the log has let go of what this relay has not read."""
        if bounds is not None and bounds.first > self._ledger.seq + 1 and self.role is Role.FOLLOWER:
            self._fatal(
                f"the stream {self._options.cluster} has dropped batch {self._ledger.seq + 1} before this relay has "
                "read it: start it with an empty data-dir"
            )

    # Claim

    def _claim(self) -> None:
        self._is_claiming = True
        self._engine.bounds(self._claim_behind)

    def _claim_behind(self, bounds: Bounds | None) -> None:
        """Claims behind the last batch of the log, once that is applied."""
        if self._is_over or bounds is None or self.role is not Role.FOLLOWER:
            self._is_claiming = False
            return
        if bounds.last > self._ledger.seq:
            self._is_claiming = False
            self._known_seq = max(self._known_seq, bounds.last)
            self._read_gap()
            return
        if bounds.last < self._ledger.seq:
            self._repair(bounds.last, self._claim)
            return
        claim = Claimed(self._following.link, self._options.relay, self._is_cold, self._base)
        ledger = self._ledger
        now_us = max(self._deciders_now_us(), ledger.time_us)
        batch = Batch(ledger.epoch + 1, ledger.digest, now_us, self._journal.appended_seq, (claim,))
        sent = _Sent(encode_batch(batch), batch, ())

        def done(answer: Appended) -> None:
            self._is_claiming = False
            if self._is_over or self.role is not Role.FOLLOWER:
                return
            if answer.outcome is Outcome.DONE and ledger.seq + 1 == answer.seq:
                self._record(answer.seq, sent, self._decide)
            else:
                # Another one was faster, or it is not known: the log will tell.
                self._decider_s = self._monotonic_s() - SILENCE_S / 2
                self._engine.bounds(self._look_at_log)

        self._engine.append(sent.payload, ledger.seq, done)

    def _look_at_log(self, bounds: Bounds | None) -> None:
        if bounds is not None and self.role is Role.FOLLOWER:
            self._known_seq = max(self._known_seq, bounds.last)

    def _deciders_now_us(self) -> int:
        """Returns the time by the last decider's clock; by this machine's where none was heard."""
        if self._clock is None or not self._clock[0]:
            return self._wall_us()
        heard_us, heard_s = self._clock
        return heard_us + int((self._monotonic_s() - heard_s) * 1e6)

    def _repair(self, last: int, then: Callable[[], None]) -> None:
        """Appends what the log has lost: it had acknowledged it before."""
        self._alarm(f"the stream {self._options.cluster} ends at batch {last}, not at {self._end_of_log}")
        self._append_again(last, then)

    def _append_again(self, last: int, then: Callable[[], None]) -> None:
        payload = self._ring.get(last + 1)
        if payload is None:
            self._fatal(
                f"the stream {self._options.cluster} has lost its batches from {last + 1} on, and this relay does not keep "
                "them in memory any more: start it again, and it goes on from its journal"
            )
            return

        def done(answer: Appended) -> None:
            if self._is_over:
                return
            if answer.outcome is Outcome.DONE and last + 1 < self._end_of_log:
                self._append_again(last + 1, then)
            else:
                then()

        self._engine.append(payload, last, done)

    @property
    def _end_of_log(self) -> int:
        """The last batch that the log has acknowledged, as far as this relay knows."""
        return self._out.log_seq if self.role is Role.DECIDER else self._ledger.seq

    # Decide

    def _record(self, seq: int, sent: _Sent, then: Callable[[], None]) -> None:
        """Has this relay's journal record a batch that is in the log; then it leaves."""
        digest = digest_of(sent.payload)
        self._out.log_seq, self._out.log_digest = seq, digest
        self._journal.append_judged((*sent.rows, _position_row(seq, digest, sent.batch)))
        journal_seq = self._journal.appended_seq
        self._out.releasing += 1

        def recorded() -> None:
            self._out.releasing -= 1
            if self._is_over and self.role is not Role.DECIDER and not self._engine.is_connected:
                return
            self._publish("live", seq.to_bytes(8, "big") + sent.payload)
            self._known_seq = max(self._known_seq, seq)
            self._take(seq, digest, sent.payload, sent.batch, is_recorded=True)
            self.applied_journal_seq = journal_seq
            then()

        self._journal.when_recorded(recorded)

    def _decide(self) -> None:
        """The claim is recorded: decides from now on."""
        if self._is_over:
            return
        self.role = Role.DECIDER
        self._peers.clear()
        deciding = self._make_deciding(self._ledger.epoch, self._ledger.time_us)
        deciding.log.when_filled = self._seal_later
        deciding.log.when_full = self._seal
        self._deciding = deciding
        self._following.is_local = True
        deciding.begin(self._relay, self._ledger, self._report)
        self._following.resend()
        self._beat_s = -BEAT_S
        self._append()

    def _step_down(self) -> None:
        """Decides no longer; what the log does not have was never there."""
        deciding, self._deciding = self._deciding, None
        self._following.is_local = False
        if deciding is not None:
            deciding.stop()
        self._out.sealed.clear()
        self._out.sealed_bytes = 0
        self._out.sending = None
        self._out.hands_over = None
        if self.role is Role.DECIDER:
            self.role = Role.FOLLOWER
        self._decider_s = self._monotonic_s()

    def _seal_later(self) -> None:
        if not self._out.is_sealing:
            self._out.is_sealing = True
            self._call_later(0, self._seal_now)

    def _seal_now(self) -> None:
        self._out.is_sealing = False
        self._seal()

    def _seal(self) -> None:
        deciding = self._deciding
        if deciding is None:
            return
        for sealed in deciding.seal():
            self._out.sealed.append(sealed)
            self._out.sealed_bytes += sealed.size_bytes
        deciding.log.waiting_bytes = self._out.sealed_bytes
        self._append()

    def _append(self) -> None:
        """Sends the next batch to the log; one at a time, so that nothing is ever behind something that is missing."""
        deciding = self._deciding
        if deciding is None or self._out.sending is not None or not self._engine.is_connected:
            return
        if not self._out.sealed:
            self._end_hand_over(deciding)
            return
        sealed = self._out.sealed.popleft()
        self._out.sealed_bytes -= sealed.size_bytes
        deciding.log.waiting_bytes = self._out.sealed_bytes
        self._send(sealed.items, sealed.rows)

    def _send(self, items: tuple[Item, ...], rows: tuple[Row, ...]) -> None:
        assert self._deciding is not None, "sent without deciding"
        now_us = self._deciding.relay.clock.now_us()
        batch = Batch(self._deciding.epoch, self._out.log_digest, now_us, self._journal.appended_seq, items)
        self._out.sending = _Sent(encode_batch(batch), batch, rows)
        self._try_append()

    def _try_append(self) -> None:
        sent = self._out.sending
        if sent is not None and not self._is_over:
            self._engine.append(sent.payload, self._out.log_seq, lambda answer: self._appended(sent, answer))

    def _appended(self, sent: _Sent, answer: Appended) -> None:
        if self._out.sending is not sent:
            return
        if answer.outcome is Outcome.FAILED:
            self._call_later(RETRY_S, self._try_append)
        elif answer.outcome is Outcome.DONE and answer.seq == self._out.log_seq + 1:
            self._in_log(sent)
        else:
            # An earlier try may have come through, or another relay decides.
            self._engine.bounds(lambda bounds: self._fenced(sent, bounds))

    def _in_log(self, sent: _Sent) -> None:
        self._out.sending = None
        self._record(self._out.log_seq + 1, sent, _nothing)
        self._append()

    def _fenced(self, sent: _Sent, bounds: Bounds | None) -> None:
        if self._out.sending is not sent or self._is_over:
            return
        if bounds is None:
            self._call_later(RETRY_S, self._try_append)
            return
        if bounds.last == self._out.log_seq:
            self._call_later(RETRY_S, self._try_append)
            return
        if bounds.last < self._out.log_seq:
            self._repair(bounds.last, self._try_append)
            return

        def found(payloads: Sequence[bytes] | None) -> None:
            if self._out.sending is not sent or self._is_over:
                return
            if payloads is None:
                self._call_later(RETRY_S, self._try_append)
            elif payloads and payloads[0] == sent.payload:
                self._in_log(sent)
            else:
                self._depose(bounds.last)

        self._engine.read(self._out.log_seq + 1, 1, found)

    def _depose(self, known_seq: int) -> None:
        events.CLUSTER_DEPOSED.log(epoch=self._ledger.epoch)
        self._known_seq = max(self._known_seq, known_seq)
        self._step_down()

    # Hand over

    def _hand_over(self, then: Callable[[], None]) -> None:
        events.CLUSTER_HANDS_OVER.log(epoch=self._ledger.epoch)
        self._seal()
        self._out.hands_over = then
        self._append()

    def _end_hand_over(self, deciding: Deciding) -> None:
        """Says in the log that this relay decides no longer, once all that it has decided is there."""
        then = self._out.hands_over
        if then is None or self._out.sending is not None:
            return
        now_us = deciding.relay.clock.now_us()
        batch = Batch(deciding.epoch, self._out.log_digest, now_us, self._journal.appended_seq, (HandedOver(),))
        sent = _Sent(encode_batch(batch), batch, ())

        def done(answer: Appended) -> None:
            if answer.outcome is Outcome.DONE and answer.seq == self._out.log_seq + 1:
                self._record(answer.seq, sent, then)
            self._step_down()

        self._out.hands_over = None
        self._deciding = None
        self._following.is_local = False
        deciding.stop()
        self._engine.append(sent.payload, self._out.log_seq, done)


def position_of(change: Change | None) -> Position | None:
    """Returns what a row of the journal says about the log; None for None."""
    if change is None:
        return None
    digest = decode_value(change.param.value)
    param = change.param
    return Position(change.number, digest if isinstance(digest, bytes) else b"", param.revision, param.timestamp_us)


def _has_base(payload: bytes) -> bool:
    """Tells whether the log's first batch says that there was a state before it."""
    try:
        return any(isinstance(item, Claimed) and item.base for item in decode_batch(payload).items)
    except DecodeError:
        return True


def _position_row(seq: int, digest: bytes, batch: Batch) -> Row:
    about = no_param("", "", "", batch.time_us)._replace(value=encode_value(digest), revision=batch.epoch)
    return Change(about, ChangeKind.POSITION, number=seq), None, (), b""


def _nothing() -> None:
    """Nothing follows."""
