"""How values get in: SET, alone or in a bundle, and the nulls by which the relay itself ends params."""

from __future__ import annotations

from typing import NamedTuple

from clasp_relay.core.delivery import Deliveries
from clasp_relay.core.draft import Draft
from clasp_relay.core.params import Param, Params, decide
from clasp_relay.core.permissions import Permissions
from clasp_relay.core.pieces import check_param_fits
from clasp_relay.core.ports import Clock, Frame, Kind
from clasp_relay.core.sessions import Session
from clasp_relay.wire.address import check_address
from clasp_relay.wire.codec import set_frame
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import NULL, Set


class Write(NamedTuple):
    """A SET that was accepted and not yet applied."""

    change: Param
    lock: bool
    unlock: bool
    ttl: int | None
    """As the sender wrote it: subscribers get it so, and none when there was none."""
    stamp: str | None


class Writing:
    """The way of a SET, from the checks to the fan-out.

    Args:
        params: where values are kept.
        deliveries: who is told.
        permissions: who may write what.
        clock: when is now.
    """

    def __init__(self, params: Params, deliveries: Deliveries, permissions: Permissions, clock: Clock) -> None:
        self._params = params
        self._deliveries = deliveries
        self._permissions = permissions
        self._clock = clock

    def set(self, session: Session, message: Set) -> Param:
        """Checks and applies one SET, and tells those who subscribed.

        Returns:
            the change as it was stored.

        Raises:
            RequestError: it is refused; nothing has changed.
        """
        write = self.check(session, message, self._params)
        self._make_room((write.change,))
        self.commit(session, write)
        return write.change

    def check(self, session: Session, message: Set, state: Params | Draft) -> Write:
        """Checks one SET against a state: address, permissions, locks, revision, size.

        Raises:
            RequestError: it is refused.
        """
        check_address(message.address)
        who = session.identity
        grant = self._permissions.check_write(who, message.address, message.value, message.ttl, state)
        granted = message if grant is None else message._replace(value=grant.value, ttl=grant.ttl)
        change = decide(state, granted, session.id, who.subject, self._clock.now_us())
        check_param_fits(change)
        stamp = None if grant is None else grant.stamp
        return Write(change, message.lock, message.unlock, message.ttl, stamp)

    def stage(self, write: Write, draft: Draft) -> None:
        """Puts an accepted SET on top of a draft, for the members behind it to be checked against."""
        draft.stage(write.change, lock=write.lock, unlock=write.unlock, stamp=write.stamp)

    def make_room(self, draft: Draft) -> None:
        """Makes room for all that a draft changes.

        Raises:
            RequestError: OVERLOADED when there is none; nothing has changed.
        """
        self._make_room(tuple(draft.changes()))

    def commit(self, session: Session, write: Write) -> None:
        """Applies an accepted SET and tells those who subscribed, in one step."""
        change = write.change
        lock = write.lock and not write.unlock and change.value != NULL and session.is_live
        self._params.apply(change, lock=lock, unlock=write.unlock, stamp=write.stamp)
        if lock:
            session.locks.add(change.address)
        elif write.unlock:
            session.locks.discard(change.address)
        if self._permissions.tracks_holds(change.address):
            if change.value == NULL:
                self._params.holds.end(change.address, session)
            elif session.is_live:
                self._params.holds.take(change.address, session)
        self._tell(change, write.lock, write.unlock, write.ttl)

    def expire(self) -> None:
        """Ends the params whose time is over and tells those who subscribed."""
        for change in self._params.expired(self._clock.now_us()):
            self._end(change)

    def _make_room(self, drafts: tuple[Param, ...]) -> None:
        self._params.check_share(drafts)
        for address in self._params.victims(drafts):
            self._end(self._params.end(address, self._clock.now_us()))

    def _end(self, change: Param) -> None:
        self._params.apply(change)
        self._params.holds.end(change.address, None)
        self._tell(change, False, False, None)

    def _tell(self, change: Param, lock: bool, unlock: bool, ttl: int | None) -> None:
        address = change.address
        frame = Frame(
            set_frame(address, change.value, change.revision, lock=lock, unlock=unlock, ttl=ttl), Kind.PARAM, address
        )
        self._deliveries.send(address, Signal.PARAM, frame, change.value)
