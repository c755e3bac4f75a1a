"""What a session wants to become true: SET, PUBLISH and BUNDLE."""

from __future__ import annotations

from clasp_relay.core.records import Change
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.state.draft import Draft
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.messages import Bundle, Publish, Set


def set_param(relay: Relay, session: Session, message: Set, qos: int) -> None:
    """Stores a value and tells those who subscribed; an ACK only where QoS asks for one."""
    change = relay.decider.set(session, message, relay.params)
    relay.committer.write(session, change)
    if not qos:
        return
    address, revision = message.address, change.param.revision
    if message.lock:
        holder = relay.params.holder(address)
        relay.ack(session, address, revision, holder is not None, holder)
    else:
        relay.ack(session, address, revision)


def publish(relay: Relay, session: Session, message: Publish, _qos: int) -> None:
    """Passes a signal on; there is never an answer but an ERROR."""
    relay.committer.publish(session, relay.decider.publish(session, message, relay.params))


def bundle(relay: Relay, session: Session, message: Bundle, qos: int) -> None:
    """Decides every member against what those before it would leave; then commits all, or lets all wait until due."""
    accepted, draft = _decide(relay, session, message)
    due_us = message.timestamp_us
    revision = None
    if due_us is not None and due_us > relay.clock.now_us():
        relay.committer.schedule(session, message, due_us)
    else:
        relay.committer.write_all(session, accepted, draft.outcomes())
        revisions = [change.param.revision for change in accepted if isinstance(change, Change)]
        revision = revisions[-1] if revisions else None
    if qos:
        relay.ack(session, None, revision)


def _decide(relay: Relay, session: Session, message: Bundle) -> tuple[list[Change | Publish], Draft]:
    draft = Draft(relay.params)
    accepted: list[Change | Publish] = []
    for member in message.messages:
        if isinstance(member, Set):
            change = relay.decider.set(session, member, draft)
            draft.stage(change)
            accepted.append(change)
        elif isinstance(member, Publish):
            accepted.append(relay.decider.publish(session, member, draft))
        else:
            name = type(member).__name__.upper()
            raise RequestError(ErrorCode.MESSAGE, f"a bundle may hold SET and PUBLISH, not {name}")
    return accepted, draft
