"""How a relay joins its cluster: from another relay's image, from its own files and the log, or with nothing at all.

The image of a running relay has what the log has not: sessions, locks and announced signals, and with them the whole
state, or the rows that the joining relay's journal lacks. If no relay runs, the log and the files have to suffice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgpack

from clasp_relay.cluster import image as images
from clasp_relay.cluster.applying import Applying
from clasp_relay.cluster.exchange.batches import NO_DIGEST, Claimed, decode_batch, digest_of
from clasp_relay.cluster.exchange.packets import Beat
from clasp_relay.cluster.exchange.ports import Bounds
from clasp_relay.cluster.membership import READ_AT_ONCE, RETRY_S, Membership, Position, Role, position_of
from clasp_relay.cluster.peers import Peers
from clasp_relay.core.records import Change, ChangeKind
from clasp_relay.core.relay import Relay
from clasp_relay.errors import DecodeError
from clasp_relay.logs import events

__all__ = ["Joining", "Welcoming"]

REFUSAL_TRIES = 20
"""How many times ``RETRY_S`` a refusal waits until what the log had is applied."""

COLD_S = 1.0
"""How long a relay that hears no other one waits before it begins as the first one."""

EMPTY_S = 0.7
"""How much longer a relay without a state waits, so that one with a state is the first."""

OFF_LOG_S = 4.0
"""How much longer a relay waits for one that has more, if the log has lost batches that are in its files."""

IMAGE_S = 2.0
"""Timeout after which an image is requested again, counted from its last piece."""

LONGEST_WAITS = 8
"""Each request without an image doubles the timeout of the next one, up to this many times ``IMAGE_S``."""

SAID_AFTER = 3
"""After this many requests without an image a warning is logged, and again after as many more."""

WORKS_S = 0.5
"""The interval at which a relay reports that it is making an image."""


class _AskedImage:
    """An image that was requested of another relay."""

    def __init__(self) -> None:
        self.number = 0
        self.since_s: float | None = None
        """When it was requested, or its last piece arrived; None while there is no request."""
        self.pieces: dict[int, bytes] = {}
        self.tries = 0
        """Number of requests since the last complete image."""
        self._giver: Beat | None = None
        """The relay that was to give it, as last heard before the request."""
        self._is_made = False
        """Whether a relay has reported that it is making the image."""

    def ask(self, now_s: float, giver: Beat | None) -> int:
        """Notes a request to a relay; returns its number."""
        self.number += 1
        self.tries += 1
        self.since_s, self.pieces = now_s, {}
        self._giver, self._is_made = giver, False
        return self.number

    def hear(self, now_s: float) -> None:
        """Notes that a piece has arrived, or that the image is being made."""
        self.since_s, self._is_made = now_s, True

    def is_late(self, now_s: float) -> bool:
        """Tells whether the timeout has passed, which is longer for each further request."""
        waits = min(2 ** (self.tries - 1), LONGEST_WAITS)
        return self.since_s is not None and now_s - self.since_s > IMAGE_S * waits

    def is_in_vain(self, giver: Beat | None) -> bool:
        """Tells whether the image is not to be expected any more.

        Another relay gives images now, or the same one in another role, and it has not begun to make this image.

        Args:
            giver: the relay that gives images now.
        """
        asked = self._giver
        if asked is None or giver is None or giver.link != asked.link:
            return True
        return giver.is_decider != asked.is_decider and not self._is_made

    def forget(self) -> None:
        """Drops the request, and resets the timeout."""
        self.since_s, self.tries = None, 0

    def give_up(self) -> None:
        """Drops the request, since it takes too long."""
        self.since_s = None
        if self.tries % SAID_AFTER == 0:
            events.CLUSTER_IMAGE_LATE.log(count=self.tries)

    def came(self) -> list[bytes]:
        """Returns the pieces, once all are here."""
        self.forget()
        return [self.pieces[place] for place in range(len(self.pieces))]


class Joining:
    """See the module.

    Args:
        membership: the membership of this relay.
        peers: the other relays.
        applying: applies batches that are read from the log.
        relay: the serving core.
        when_joined: called when the relay follows the log.
        when_imaged: called when the state of another relay was installed, so that it is saved.
    """

    def __init__(
        self,
        membership: Membership,
        peers: Peers,
        applying: Applying,
        relay: Relay,
        when_joined: Callable[[], None],
        when_imaged: Callable[[], object],
    ) -> None:
        self._membership = membership
        self._peers = peers
        self._applying = applying
        self._relay = relay
        self._when_joined = when_joined
        self._when_imaged = when_imaged
        self._began_s = 0.0
        self._is_reading = False
        self._is_off_log = False
        """Whether the log lacks the last batch of this relay's files, so that an image has to have the rest."""
        self._image = _AskedImage()

    def begin(self) -> None:
        """Begins to wait for other relays; drops an earlier request."""
        self._began_s = self._membership.monotonic_s()
        self._image.forget()

    def begin_again(self) -> None:
        """Begins as after a start, from the journal, since no relay has the batches in memory that the log has lost."""
        membership = self._membership
        self._note_position()
        membership.be(Role.JOINING)
        membership.is_cold, membership.base = False, b""
        self._is_off_log = True
        self._applying.begin_anew()
        self.begin()

    def go_on(self, now_s: float) -> None:
        """Decides where to begin: with an image of another relay, or with log and files; called again and again."""
        membership, image = self._membership, self._image
        if not membership.engine.is_connected or self._is_reading:
            return
        giver = self._peers.giver()
        if image.since_s is not None:
            if image.is_in_vain(giver):
                image.forget()
            elif image.is_late(now_s):
                image.give_up()
            return
        # If the log was lost, only the decider on the new log has a valid image.
        if giver is not None and (giver.is_decider or not self._is_off_log):
            self._ask_image(now_s, giver)
        elif now_s - self._began_s > COLD_S + self._peers.spread_s + (EMPTY_S if self._is_empty else 0.0):
            self._is_reading = True
            membership.engine.bounds(self._join_cold)

    def meet_other_base(self) -> None:
        """Joins again, since the log begins with a state that this relay does not have."""
        membership = self._membership
        if membership.role is Role.JOINING:
            self._request_rest()
        else:
            membership.be(Role.JOINING)
            membership.is_cold, membership.base = False, b""
            self.begin()

    @property
    def _is_empty(self) -> bool:
        membership = self._membership
        return membership.position is None and images.is_empty(self._relay.params) and not membership.accounts.has_base

    # From files and log

    def _join_cold(self, bounds: Bounds | None) -> None:
        """Begins without other relays: with the files, and the log from there on."""
        self._is_reading = False
        membership = self._membership
        if bounds is None or membership.is_over:
            return
        if any(beat.seq > bounds.last for beat in self._peers.living()) and self._peers.is_outdone():
            return  # the log has lost batches that another relay's journal has: that relay has to be the first
        position = membership.position
        if position is None:
            is_empty = images.is_empty(self._relay.params)
            if bounds.last and not (bounds.first <= 1 and is_empty):
                self._refuse_state(bounds)
                return
            membership.base = b"" if is_empty else digest_of(membership.following.link.encode())
            position = Position(0, membership.ledger.digest)
        if position.seq > bounds.last:
            self._join_off_log(position, bounds)
            return
        if bounds.first > position.seq + 1:
            membership.fatal(
                f"the stream {membership.stream} begins at batch {bounds.first}, behind what this relay's files "
                f"have (batch {position.seq}): start a relay that has more first, and this one with an empty data-dir"
            )
            return
        membership.is_cold = True
        self._read_from(position, bounds.first, bounds.last)

    def _join_off_log(self, position: Position, bounds: Bounds) -> None:
        """Continues after a log that has lost its end, unless another relay has more of it."""
        membership = self._membership
        if membership.monotonic_s() - self._began_s < COLD_S + OFF_LOG_S or self._peers.is_outdone():
            return

        def goes_on(last: Position) -> None:
            membership.alarm(
                f"the stream {membership.stream} ends at batch {bounds.last}, before what this relay's journal has "
                f"(batch {position.seq}): it goes on from the journal"
            )
            membership.base, membership.is_cold = position.digest, True
            time_us = max(last.time_us, position.time_us)
            self._begin_reading(Position(last.seq, last.digest, max(last.epoch, position.epoch), time_us), last.seq)

        if not bounds.last:
            goes_on(Position(0, NO_DIGEST))
            return
        self._is_reading = True

        def compared(row: Change | None, payloads: Sequence[bytes]) -> None:
            self._is_reading = False
            mine = position_of(row)
            # If the log has lost that batch, too, there is nothing to compare.
            if mine is None or (payloads and mine.digest != digest_of(payloads[0])):
                membership.fatal(
                    f"the stream {membership.stream} and this relay's journal contradict each other at batch "
                    f"{bounds.last}: give the cluster another name, or start this relay with an empty data-dir"
                )
            else:
                goes_on(mine)

        def read(payloads: Sequence[bytes] | None) -> None:
            if payloads is None:
                self._is_reading = False
            else:
                membership.journal.find_position(bounds.last, lambda row: compared(row, payloads))

        membership.engine.read(bounds.last, 1, read)

    def _refuse_state(self, bounds: Bounds) -> None:
        if images.is_empty(self._relay.params):
            self._wait_for_state(bounds.first)
            return
        self._membership.fatal(
            "this relay's data-dir has a state that is not of the cluster "
            f"{self._membership.stream}: start it with an empty data-dir, or give the cluster another name"
        )

    def _wait_for_state(self, first: int) -> None:
        """Waits again: a relay with the state that the log began with may start later."""
        self._membership.is_cold = False
        self.begin()
        events.CLUSTER_NEEDS_IMAGE.log(seq=first)

    def _read_from(self, position: Position, first: int, last: int) -> None:
        """Checks that the files belong to this log, and follows it from there."""
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
                self._contradict(position.seq, "journal and the stream")
            else:
                self._is_reading = False
                if payloads is not None:
                    self._join_at_gap(position, last)

        self._membership.engine.read(max(1, position.seq), 1, found)

    def _join_at_gap(self, position: Position, last: int) -> None:
        """Follows a log that has lost the last batch of this relay's files, unless another relay has more."""
        membership = self._membership
        if membership.monotonic_s() - self._began_s < COLD_S + OFF_LOG_S or self._peers.is_outdone():
            return
        membership.alarm(
            f"the stream {membership.stream} has lost batch {position.seq}, the last one in this relay's journal: "
            "it goes on from there"
        )
        self._begin_reading(position, last)

    def _contradict(self, seq: int, what: str) -> None:
        self._membership.fatal(
            f"this relay's {what} {self._membership.stream} contradict each other at batch {seq}: "
            "start this relay with an empty data-dir"
        )

    def _begin_reading(self, position: Position, last: int) -> None:
        self._membership.begin_at(position)
        self._is_reading = False
        self._join(last)

    def _join(self, known_seq: int) -> None:
        self._membership.known_seq = max(self._membership.known_seq, known_seq)
        self._when_joined()

    # From an image

    def _ask_image(self, now_s: float, giver: Beat) -> None:
        """Requests an image: with the whole state, the changes after an older one, or without a state."""
        membership, asked = self._membership, self._image
        number = asked.ask(now_s, giver)
        position = membership.position
        if position is None:
            self._request_image(0)
            return

        def found(payloads: Sequence[bytes] | None) -> None:
            if number != asked.number or asked.since_s is None:
                return  # the request has timed out
            if payloads is None:
                asked.forget()  # no answer of the engine
            elif membership.role is Role.JOINING and not membership.is_over:
                self._is_off_log = not payloads or digest_of(payloads[0]) != position.digest
                asked.since_s = membership.monotonic_s()
                self._request_image(membership.journal.appended_seq if self._is_off_log else -1)

        membership.engine.read(position.seq, 1, found)

    def _request_image(self, journal_seq: int) -> None:
        """Requests an image with the whole state (0), with the rows after ``journal_seq``, or without a state (-1)."""
        membership = self._membership
        position = membership.position or Position(0, b"")
        request = (membership.following.link, self._image.number, journal_seq, position.seq, position.digest)
        membership.publish("image", msgpack.packb(request))

    def _request_rest(self) -> None:
        """Requests what the log does not have, from the last applied batch on."""
        membership = self._membership
        self._is_reading = False
        self._is_off_log = True
        self._note_position()
        self._image.ask(membership.monotonic_s(), self._peers.giver())
        self._request_image(membership.journal.appended_seq)

    def _note_position(self) -> None:
        """Notes how far this relay is, to go on from there."""
        ledger = self._membership.ledger
        position = Position(ledger.seq, ledger.digest, ledger.epoch, ledger.time_us)
        self._membership.position = position if ledger.seq else None

    def hear_piece(self, payload: bytes) -> None:
        """Takes a piece of an image."""
        membership, asked = self._membership, self._image
        link, number, place, count, piece = msgpack.unpackb(payload, use_list=False)
        if link != membership.following.link or number != asked.number or asked.since_s is None:
            return
        asked.hear(membership.monotonic_s())
        if not count:
            membership.fatal(
                f"this relay's journal has what the cluster {membership.stream} does not have, or is too old for "
                "it: start this relay with an empty data-dir"
            )
            return
        if count < 0:
            return  # a report that it is being made
        asked.pieces[place] = piece
        if len(asked.pieces) < count:
            return
        try:
            image = images.decode_image(asked.came())
        except DecodeError as error:
            membership.fatal(error.message)
            return
        if image.state is not None:
            self._take_state(image)
        elif self._is_off_log:
            self._take_tail(image)
        else:
            self._take_sessions(image)

    def _take_state(self, image: images.Image) -> None:
        membership = self._membership
        if not images.is_empty(self._relay.params) or membership.journal.appended_seq:
            self._refuse_state(Bounds(0, image.seq))
            return
        self._is_reading = True

        def installed() -> None:
            self._is_reading = False
            if not membership.is_over:
                membership.journal.restart_at(image.journal_seq)
                membership.applied_journal_seq = image.journal_seq
                self._install(image)
                self._when_imaged()

        membership.accounts.install(image.accounts, installed)

    def _take_tail(self, image: images.Image) -> None:
        """Applies the rows that other relays' journals have and this one's has not."""
        membership, committer = self._membership, self._relay.committer
        for change in image.tail:
            committer.record((change,))
            committer.follow(change)
        membership.applied_journal_seq = membership.journal.appended_seq
        if membership.applied_journal_seq != image.journal_seq:
            membership.fatal(f"this relay's journal is not like those of the cluster {membership.stream}")
            return
        self._install(image)

    def _take_sessions(self, image: images.Image) -> None:
        """Applies the log from the files' last batch up to the image, then the sessions of the image."""
        membership, ledger = self._membership, self._membership.ledger
        position = membership.position
        assert position is not None, "an image without a state for a relay that has none"
        if image.seq < position.seq:
            return  # another one is requested
        self._is_reading = True
        membership.begin_at(position)
        if ledger.seq < image.seq:
            self._read_on(image)
        else:
            self._was_read(image, ())

    def _read_on(self, image: images.Image) -> None:
        membership, ledger = self._membership, self._membership.ledger
        if membership.is_over or self._is_off_log:
            return
        was_read = partial(self._was_read, image)
        membership.engine.read(ledger.seq + 1, min(READ_AT_ONCE, image.seq - ledger.seq), was_read)

    def _was_read(self, image: images.Image, payloads: Sequence[bytes] | None) -> None:
        """Applies batches between this relay's files and an image."""
        membership, ledger = self._membership, self._membership.ledger
        if payloads is None:
            # No answer of the engine.
            membership.call_later(RETRY_S, partial(self._read_on, image))
            return
        self._apply_up_to(image.seq, payloads)
        if membership.is_over or self._is_off_log:
            return
        if ledger.seq < image.seq and payloads:
            self._read_on(image)
        elif ledger.seq < image.seq:
            # Messages in the middle of the stream were deleted.
            self._request_rest()
        elif ledger.digest != image.digest:
            self._contradict(image.seq, "journal and the cluster")
        else:
            self._is_reading = False
            self._install(image)

    def _apply_up_to(self, seq: int, payloads: Sequence[bytes]) -> None:
        membership, ledger = self._membership, self._membership.ledger
        for payload in payloads:
            if ledger.seq < seq and not membership.is_over and not self._is_off_log:
                self._applying.apply_next(ledger.seq + 1, payload)

    def _install(self, image: images.Image) -> None:
        images.install(image, self._relay, self._membership.ledger)
        self._join(image.seq)


class Welcoming:
    """Gives images to joining relays, if this one is the decider, or without a decider the first follower.

    Args:
        membership: the membership of this relay.
        peers: the other relays.
        relay: the serving core.
    """

    def __init__(self, membership: Membership, peers: Peers, relay: Relay) -> None:
        self._membership = membership
        self._peers = peers
        self._relay = relay

    def hear_request(self, payload: bytes) -> None:
        """Answers a request for an image."""
        membership = self._membership
        link, number, journal_seq, seq, digest = msgpack.unpackb(payload, use_list=False)
        if not self._is_to_answer(link):
            return
        self._works_on(link, number)
        epoch, last_seq = membership.ledger.epoch, membership.applied_journal_seq
        image = images.capture(self._relay, membership.ledger, last_seq, with_state=not journal_seq)
        if journal_seq == 0:
            membership.accounts.capture(
                lambda pieces: self._send(link, number, image._replace(accounts=pieces)),
                lambda: self._works_on(link, number),
            )
            return
        if journal_seq < 0:
            self._send(link, number, image)
            return

        def found(rows: Sequence[Change] | None) -> None:
            begin = position_of(rows[0]) if rows and rows[0].kind is ChangeKind.POSITION else None
            if rows is None or begin is None or (begin.seq, begin.digest) != (seq, digest):
                membership.engine.bounds(lambda bounds: self._refuse(link, number, bounds, epoch))
            else:
                image.tail.extend(rows[1:])
                self._send(link, number, image)

        if journal_seq > image.journal_seq:
            found(None)
        else:
            membership.journal.read_tail(journal_seq, image.journal_seq, found)

    def _refuse(self, link: str, number: int, bounds: Bounds | None, epoch: int, tries: int = REFUSAL_TRIES) -> None:
        """Answers that the journals differ, once this relay has applied what the log had.

        If it does not within some tries, or another relay decides, it may only have less than the one that joins.
        """
        membership = self._membership
        if bounds is None or membership.is_over or membership.ledger.epoch != epoch:
            return
        if bounds.last <= membership.ledger.seq:
            membership.publish("piece", msgpack.packb((link, number, 0, 0, b"")))
        elif tries:
            membership.call_later(RETRY_S, lambda: self._refuse(link, number, bounds, epoch, tries - 1))

    def _is_to_answer(self, link: str) -> bool:
        membership = self._membership
        own = membership.following.link
        if membership.role is Role.JOINING or link == own or membership.is_cold:
            return False
        others = [beat for beat in self._peers.living() if beat.is_joined and beat.link != link]
        return membership.role is Role.DECIDER or not any(beat.is_decider or beat.link < own for beat in others)

    def _works_on(self, link: str, number: int) -> None:
        """Reports that an image is being made, so that the relay that has requested it waits."""
        self._membership.publish("piece", msgpack.packb((link, number, 0, -1, b"")))

    def _send(self, link: str, number: int, image: images.Image) -> None:
        pieces = images.encode_image(image)
        made: list[bytes] = []
        monotonic_s = self._membership.monotonic_s
        said_s = monotonic_s()

        def go_on() -> None:
            nonlocal said_s
            for piece in pieces:
                if piece is None:
                    if monotonic_s() - said_s > WORKS_S:
                        said_s = monotonic_s()
                        self._works_on(link, number)
                    self._membership.call_later(0, go_on)
                    return
                made.append(piece)
            for place, piece in enumerate(made):
                self._membership.publish("piece", msgpack.packb((link, number, place, len(made), piece)))
            made.clear()  # ``go_on`` holds itself, and this

        go_on()


def _has_base(payload: bytes) -> bool:
    """Tells whether the log's first batch names a state from before it."""
    try:
        return any(isinstance(item, Claimed) and item.base for item in decode_batch(payload).items)
    except DecodeError:
        return True
