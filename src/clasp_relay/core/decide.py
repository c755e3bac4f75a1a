"""Decides SETs and PUBLISHes: a function of the state, the rights and the message, which changes nothing.

A SET is decided against the params, or inside a bundle against a draft of them (``core.state.draft``). The decision is
a ``Change``, to be committed, or a refusal (``docs/protocol.md``, Params, Bundles, Signals).
"""

from __future__ import annotations

from clasp_relay.core.history.keeping import Keeping
from clasp_relay.core.ports import Clock
from clasp_relay.core.records import Change, ChangeKind, Param
from clasp_relay.core.rights.port import Permissions
from clasp_relay.core.rights.visibility import Visibility
from clasp_relay.core.session.sessions import Session, SessionTable
from clasp_relay.core.state.draft import Draft
from clasp_relay.core.state.params import Params
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import check_address
from clasp_relay.wire.clasp import ROOM_BYTES
from clasp_relay.wire.codec import encode_to_frame, result_entry, snapshot_entry
from clasp_relay.wire.constants import MAX_PAYLOAD_BYTES, Signal
from clasp_relay.wire.messages import NULL, Publish, Set, SignalDefinition, Value
from clasp_relay.wire.tuples import new_tuple

_OWN_ADDRESSES = "/clasp/"
"""Addresses below this have a meaning for the relay itself. Checked for each signal before the two longer prefixes."""

P2P_SIGNAL = "/clasp/p2p/signal/"
"""A signal below this address goes only to the session whose id is the next segment."""

REPLAY_ADDRESSES = "/clasp/replay/"
"""Only the relay publishes below this address, so that no client can forge the end of a REPLAY."""

ONLY_THE_RELAY = "only the relay sends what is below /clasp/replay"

SOMETHING: Value = b"\x0a\x00\x00"
"""An empty array: the value by which a policy judges samples. With null, samples would pass where only null is
allowed."""

SURELY_FITS_BYTES = ROOM_BYTES - 256
"""A param fits into a SNAPSHOT if four bytes per character of its address, and its value, are at most this many
bytes."""

_WRITE = ChangeKind.WRITE


class Decider:
    """Decides SETs and PUBLISHes.

    Args:
        params: the state.
        permissions: decide what sessions may do.
        visibility: decides who sees which address.
        sessions: the live sessions, for signals to one of them.
        keeping: the history rules; None if no history is kept.
        clock: the current time.
    """

    def __init__(
        self,
        params: Params,
        permissions: Permissions,
        visibility: Visibility,
        sessions: SessionTable,
        keeping: Keeping | None,
        clock: Clock,
    ) -> None:
        self._keeping = keeping if keeping is not None and keeping.keeps_params else None
        self._params = params
        self._expires_by_default = params.expires_by_default
        self._permissions = permissions
        self._is_open = permissions.is_open
        self._visibility = visibility
        self._sessions = sessions
        self._clock = clock

    def set(self, session: Session, message: Set, state: Params | Draft) -> Change:
        """Decides a SET: address, permissions, locks, revision, size.

        Args:
            session: the writer.
            message: the SET.
            state: the params, or a draft of them.

        Returns:
            The write, not yet applied.

        Raises:
            RequestError: it is refused.
        """
        address, value, expected, lock, unlock, sent_ttl = message
        before = state.get(address)
        # The address of a param was checked when the param was set.
        if before is None:
            check_address(address)
            if address.startswith(REPLAY_ADDRESSES):
                raise RequestError(ErrorCode.POLICY, ONLY_THE_RELAY, address)
        subject = session.identity.subject
        ttl, stamp = sent_ttl, None
        if not self._is_open:
            grant = self._permissions.check_write(session.identity, address, value, ttl, state)
            if grant is not None:
                value, ttl, stamp = grant
            if lock:
                self._permissions.check_lock(session.identity, address)
        if before is None or expected is not None or state.holder(address) is not None:
            revision = self._next_revision(session, state, before, address, expected)
        else:  # the usual SET
            revision = before.revision + 1
        if ttl is None and before is not None:
            ttl = before.ttl
        now_us = self._clock.now_us() if self._keeping is None else self._time_us(self._keeping, address)
        due_us = state.due_us(ttl, now_us) if (ttl or self._expires_by_default) and value != NULL else None
        sent_as = session.sent_as
        if sent_as and value is not message.value:
            sent_as = b""
        param = new_tuple(Param, (address, value, revision, session.id, now_us, ttl, subject, session.origin, sent_as))
        if 4 * len(address) + len(value) > SURELY_FITS_BYTES:
            check_param_fits(param)
        takes_lock = lock and not unlock and value != NULL and session.is_live
        return new_tuple(Change, (param, _WRITE, lock, unlock, sent_ttl, takes_lock, stamp, due_us, 0, None))

    def _next_revision(
        self, session: Session, state: Params | Draft, before: Param | None, address: str, expected: int | None
    ) -> int:
        """Applies the conflict rules to a SET and returns its revision.

        Raises:
            RequestError: LOCKED if another session holds the lock and the writer does not own the address; CONFLICT
                if the expected revision is not the current one.
        """
        holder = state.holder(address)
        # The locks of an ended session are released in pieces; until then they lock nobody out.
        if holder is not None and holder != session.id and holder in self._sessions:
            value = NULL if before is None else before.value
            if not self._permissions.owns(session.identity, address, value):
                raise RequestError(ErrorCode.LOCKED, f"locked by session {holder}", address)
        if expected is not None:
            known = 0 if before is None else before.revision
            if expected != known:
                text = f"revision conflict: you wrote against revision {expected}, the current one is {known}"
                raise RequestError(ErrorCode.CONFLICT, text, address)
        return 1 + (state.last_revision(address) if before is None else before.revision)

    def publish(self, session: Session, message: Publish, state: Params | Draft) -> Publish:
        """Decides a PUBLISH: address, permissions, size, and whether it is for one session only.

        Returns:
            the message to pass on, with the value that the permissions put in place of its own, if they do.

        Raises:
            RequestError: it is refused.
        """
        address = message.address
        check_address(address)
        is_own = address.startswith(_OWN_ADDRESSES)
        if is_own and address.startswith(REPLAY_ADDRESSES):
            raise RequestError(ErrorCode.POLICY, ONLY_THE_RELAY, address)
        value = message.value
        if value is None or 4 * len(address) + len(value) > SURELY_FITS_BYTES:
            check_publish_fits(message)
        if not self._is_open:
            value = SOMETHING if value is None and message.samples is not None else value
            signed = self._permissions.check_publish(session.identity, address, value, state)
            if signed is not None:
                message = message._replace(value=signed)
                check_publish_fits(message)
        if is_own and address.startswith(P2P_SIGNAL) and address[len(P2P_SIGNAL) :] not in self._sessions:
            raise RequestError(ErrorCode.NO_TARGET, "there is no such session", address)
        return message

    def null(self, address: str) -> Change:
        """Returns the null by which the relay ends a param that expired or is evicted."""
        before = self._params.get(address)
        assert before is not None, "ended a param that is not set"
        stamp = self._permissions.stamp_of(address, before.value)
        now_us = self._clock.now_us() if self._keeping is None else self._time_us(self._keeping, address)
        return Change(self._params.null_of(address, now_us), stamp=stamp)

    def _time_us(self, keeping: Keeping, address: str) -> int:
        """Returns the time of a write in Unix µs; no two writes that history keeps have the same time."""
        return keeping.next_us() if keeping.may_keep(address, Signal.PARAM) else self._clock.now_us()


def check_param_fits(param: Param) -> None:
    """Refuses a param that does not fit into a SNAPSHOT: nobody could read it later.

    Raises:
        RequestError: VALUE.
    """
    size = len(snapshot_entry(param))
    if size > ROOM_BYTES:
        text = f"the param takes {size} bytes, a message carries {ROOM_BYTES}"
        raise RequestError(ErrorCode.VALUE, text, param.address)


def check_publish_fits(message: Publish) -> None:
    """Refuses a PUBLISH that fitted its MessagePack frame but does not fit the binary one.

    Raises:
        RequestError: VALUE.
    """
    about = 4 * len(message.address) + len(message.value or b"") + len(message.samples or b"") + 64
    if about > MAX_PAYLOAD_BYTES:
        try:
            # A kept signal also gets a timestamp.
            encode_to_frame(message._replace(timestamp_us=message.timestamp_us or 0))
        except ValueError:
            text = f"the message takes more than the {MAX_PAYLOAD_BYTES} bytes of a frame"
            raise RequestError(ErrorCode.VALUE, text, message.address) from None


def check_signal_fits(definition: SignalDefinition) -> None:
    """Refuses a signal definition that does not fit into a RESULT.

    Raises:
        RequestError: VALUE.
    """
    if len(result_entry(definition)) > ROOM_BYTES:
        text = f"the definition takes more than the {ROOM_BYTES} bytes that a message carries"
        raise RequestError(ErrorCode.VALUE, text, definition.address)
