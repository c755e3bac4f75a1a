"""SET, PUBLISH and BUNDLE."""

from __future__ import annotations

from clasp_relay.core.bundles import DONE_AT_ONCE
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.work import WAIT_US, Pieces
from clasp_relay.wire.messages import Bundle, Publish, Set


def set_param(relay: Relay, session: Session, message: Set, qos: int) -> Pieces | None:
    """Stores a value and tells its subscribers; answers with an ACK if QoS asks for one."""
    params = relay.params
    is_reserved = params.reserved.is_used
    if is_reserved and message.address in params.reserved:
        return _set_later(relay, session, message, qos)
    change = relay.decider.set(session, message, params)
    if is_reserved and not params.has_room(change.param):
        # The param that would be evicted may be at an address where the bundle writes next.
        return _set_later(relay, session, message, qos)
    relay.committer.write(session, change)
    if not qos:
        return None
    address, revision = message.address, change.param.revision
    if message.lock:
        holder = params.holder(address)
        relay.ack(session, address, revision, holder is not None, holder)
    else:
        relay.ack(session, address, revision)
    return None


def _set_later(relay: Relay, session: Session, message: Set, qos: int) -> Pieces:
    """Handles a SET after the bundle that is being decided or carried out."""
    while relay.params.reserved.is_used:
        yield WAIT_US
    if session.is_live:
        set_param(relay, session, message, qos)


def publish(relay: Relay, session: Session, message: Publish, _qos: int) -> None:
    """Sends a signal to its subscribers; the only possible answer is an ERROR."""
    relay.committer.publish(session, relay.decider.publish(session, message, relay.params))


def bundle(relay: Relay, session: Session, message: Bundle, qos: int) -> Pieces | None:
    """Commits all members or none, or schedules them; a long bundle in pieces."""
    if len(message.messages) > DONE_AT_ONCE or relay.params.reserved.is_used:
        return _bundle_in_pieces(relay, session, message, qos)
    revision = relay.bundles.at_once(session, message)
    if qos:
        relay.ack(session, None, revision)
    return None


def _bundle_in_pieces(relay: Relay, session: Session, message: Bundle, qos: int) -> Pieces:
    revision = yield from relay.bundles.in_pieces(session, message)
    if qos and session.is_live:
        relay.ack(session, None, revision)
