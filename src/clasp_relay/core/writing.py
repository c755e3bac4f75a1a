"""How values get in: SET, alone or in a bundle, and the nulls by which the relay itself ends params."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from clasp_relay.core.fanout.catch_ups import Hidden, Opening
from clasp_relay.core.fanout.recipients import Deliveries
from clasp_relay.core.pieces import SURELY_FITS_BYTES, check_param_fits
from clasp_relay.core.ports import Clock
from clasp_relay.core.records import Outcome, Param
from clasp_relay.core.rights.port import Permissions
from clasp_relay.core.rights.visibility import Visibility
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.state.conflicts import decide
from clasp_relay.core.state.draft import Draft
from clasp_relay.core.state.params import Params
from clasp_relay.wire.address import check_address
from clasp_relay.wire.messages import NULL, Set

EXPIRIES_AT_ONCE = 500
"""How many params end in one turn: some milliseconds of work. A hundred thousand can be due at the same time."""


MAX_QUIET = 16_384
"""Of how many addresses it is kept that a change there opens nothing; then it is asked anew."""

MAX_QUIET_ADDRESS = 256
"""Longer addresses are asked about every time, so that what is kept stays small."""

Write: TypeAlias = tuple[Param, bool, bool, int | None, bool, str | None]
"""A SET that was accepted and not yet applied: the change; ``lock``, ``unlock`` and ``ttl`` as its sender said; whether
its session holds the lock afterwards; the subject that a policy's stamp names, where it outlives a null. A plain tuple
is made and taken apart four times as fast as one with names, and one is made for every SET."""


class Writing:
    """The way of a SET, from the checks to the fan-out.

    Args:
        params: where values are kept.
        deliveries: who is told.
        visibility: what decides by the params, and is told when they change.
        opening: what somebody sees newly after a change.
        permissions: who may write what.
        clock: when is now.
    """

    def __init__(
        self,
        params: Params,
        deliveries: Deliveries,
        visibility: Visibility,
        opening: Opening,
        permissions: Permissions,
        clock: Clock,
    ) -> None:
        self._params = params
        self._deliveries = deliveries
        self._visibility = visibility
        self._opening = opening
        self._permissions = permissions
        self._is_open = permissions.is_open
        self._clock = clock
        self._quiet: set[str] = set()

    def set(self, session: Session, message: Set) -> Param:
        """Checks and applies one SET, and tells those who subscribed.

        Returns:
            the change as it was stored.

        Raises:
            RequestError: it is refused; nothing has changed.
        """
        write = self.check(session, message, self._params)
        change = write[0]
        if not self._params.has_room(change):
            self._make_room((Outcome(change, write[-1]),))
        self._settle(write, session)
        return change

    def check(self, session: Session, message: Set, state: Params | Draft) -> Write:
        """Checks one SET against a state: address, permissions, locks, revision, size.

        Raises:
            RequestError: it is refused.
        """
        address, value, _, lock, unlock, ttl = message
        before = state.get(address)
        # Where something is set the address was checked when it was set.
        if before is None:
            check_address(address)
        who = session.identity
        granted, stamp = message, None
        if not self._is_open:
            grant = self._permissions.check_write(who, address, value, ttl, state)
            if grant is not None:
                stamp = grant.stamp
                if grant.value is not value or grant.ttl != ttl:
                    value = grant.value
                    granted = message._replace(value=value, ttl=grant.ttl)
        change = decide(state, before, granted, session.id, who.subject, self._clock.now_us())
        if 4 * len(address) + len(value) > SURELY_FITS_BYTES:
            check_param_fits(change)
        takes_lock = lock and not unlock and value != NULL and session.is_live
        return change, lock, unlock, ttl, takes_lock, stamp

    def stage(self, write: Write, draft: Draft) -> None:
        """Puts an accepted SET on top of a draft, for the members behind it to be checked against."""
        change, _, unlock, _, takes_lock, stamp = write
        draft.stage(change, lock=takes_lock, unlock=unlock, stamp=stamp)

    def make_room(self, draft: Draft) -> None:
        """Makes room for all that a draft changes.

        Raises:
            RequestError: OVERLOADED when there is none; nothing has changed.
        """
        self._make_room(draft.outcomes())

    def commit(self, session: Session, write: Write) -> None:
        """Applies an accepted SET and tells those who subscribed, in one step."""
        self._settle(write, session)

    def expire(self) -> None:
        """Ends the params whose time is over and tells those who subscribed, a bounded number in one turn."""
        changes = self._params.expired(self._clock.now_us(), EXPIRIES_AT_ONCE)
        for change in changes:
            self._end(change)
        if len(changes) == EXPIRIES_AT_ONCE:
            self._clock.call_later(0, self.expire)

    def _make_room(self, outcomes: Iterable[Outcome]) -> None:
        for address in self._params.victims(outcomes):
            self._end(self._params.end(address, self._clock.now_us()))

    def _end(self, change: Param) -> None:
        before = self._params.get(change.address)
        stamp = None if before is None else self._permissions.stamp_of(change.address, before.value)
        self._settle((change, False, False, None, False, stamp), None)

    def _settle(self, write: Write, session: Session | None) -> None:
        """Applies a change and tells everybody, in one step; ``session`` is its writer, None for the relay itself."""
        change, lock, unlock, ttl, takes_lock, stamp = write
        if self._is_open:
            self._params.apply(change, takes_lock, unlock, stamp)
            self._deliveries.send_set(change, lock, unlock, ttl)
            return
        address = change.address
        exists = change.value != NULL
        existed = self._params.get(address) is not None
        is_quiet = address in self._quiet or self._is_quiet(address)
        hidden: Sequence[Hidden] = () if is_quiet else self._opening.hidden_before(address, exists=exists)
        if exists:
            self._params.apply(change, takes_lock, unlock, stamp)
            if not is_quiet:
                self._note_hold(address, session, exists=True)
            self._visibility.changed(address, True, existed)
            self._deliveries.send_set(change, lock, unlock, ttl)
        else:
            # A null is told to those who saw what it ends.
            self._deliveries.send_set(change, lock, unlock, ttl)
            self._params.apply(change, takes_lock, unlock, stamp)
            if not is_quiet:
                self._note_hold(address, session, exists=False)
            self._visibility.changed(address, False, existed)
        if hidden:
            self._opening.send_opened(hidden)

    def _is_quiet(self, address: str) -> bool:
        """Tells whether a change at an address opens nothing, and nobody asks who holds it: true of nearly all."""
        is_quiet = not self._permissions.catch_ups(address) and not self._permissions.tracks_holds(address)
        if is_quiet and len(address) <= MAX_QUIET_ADDRESS:
            if len(self._quiet) >= MAX_QUIET:
                self._quiet.clear()
            self._quiet.add(address)
        return is_quiet

    def _note_hold(self, address: str, session: Session | None, *, exists: bool) -> None:
        """Notes who holds an address, where somebody asks."""
        if self._permissions.tracks_holds(address):
            if not exists:
                self._params.holds.end(address, session)
            elif session is not None and session.is_live:
                self._params.holds.take(address, session)
