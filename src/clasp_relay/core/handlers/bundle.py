"""BUNDLE: all or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clasp_relay.core.ports import Frame
from clasp_relay.core.state.draft import Draft
from clasp_relay.core.writing import Write
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.codec import ack_frame
from clasp_relay.wire.messages import Bundle, Publish, Set

if TYPE_CHECKING:
    from clasp_relay.core.relay import Relay
    from clasp_relay.core.session.sessions import Session


def bundle(relay: Relay, session: Session, message: Bundle, qos: int) -> None:
    """Checks every member against what those before it would leave; then applies all, or waits until they are due."""
    accepted, draft = _check(relay, session, message)
    due_us = message.timestamp_us
    if due_us is not None and due_us > relay.clock.now_us():
        relay.schedule.check(session, message, due_us)
        relay.schedule.add(session, message, due_us)
        revision = None
    else:
        relay.writing.make_room(draft)
        revision = _apply(relay, session, accepted)
    if qos:
        relay.answer(session, Frame(ack_frame(revision=revision)))


def _check(relay: Relay, session: Session, message: Bundle) -> tuple[list[Write | Publish], Draft]:
    draft = Draft(relay.params)
    accepted: list[Write | Publish] = []
    for member in message.messages:
        if isinstance(member, Set):
            write = relay.writing.check(session, member, draft)
            relay.writing.stage(write, draft)
            accepted.append(write)
        elif isinstance(member, Publish):
            relay.publishing.check(session, member, draft)
            accepted.append(member)
        else:
            name = type(member).__name__.upper()
            raise RequestError(ErrorCode.MESSAGE, f"a bundle may hold SET and PUBLISH, not {name}")
    return accepted, draft


def _apply(relay: Relay, session: Session, accepted: list[Write | Publish]) -> int | None:
    revision = None
    for one in accepted:
        if isinstance(one, Publish):
            relay.publishing.send(session, one)
        else:
            relay.writing.commit(session, one)
            revision = one[0].revision
    return revision
