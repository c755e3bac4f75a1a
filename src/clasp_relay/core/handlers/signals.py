"""ANNOUNCE and QUERY."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clasp_relay.core.pieces import check_signal_fits, result_frames
from clasp_relay.core.ports import Frame
from clasp_relay.wire.address import Pattern, check_address
from clasp_relay.wire.codec import ack_frame
from clasp_relay.wire.messages import Announce, Query

if TYPE_CHECKING:
    from clasp_relay.core.relay import Relay
    from clasp_relay.core.session.sessions import Session


def announce(relay: Relay, session: Session, message: Announce, qos: int) -> None:
    """Registers signal definitions, all or none."""
    for definition in message.signals:
        check_address(definition.address)
        check_signal_fits(definition)
        relay.permissions.check_announce(session.identity, definition.address)
    if message.signals:
        relay.signals.announce(message.signals, relay.clock.now_us())
    if qos:
        relay.answer(session, Frame(ack_frame(message.namespace)))


def query(relay: Relay, session: Session, message: Query, _qos: int) -> None:
    """Answers with the announced signals that match, also with none: clients wait for it."""
    pattern = Pattern.parse(message.pattern)
    relay.permissions.check_subscribe(session.identity, pattern)
    found = [
        definition
        for definition in relay.signals.match(pattern, relay.clock.now_us())
        if relay.visibility.is_shown(session, definition.address, pattern)
    ]
    for frame in result_frames(found):
        relay.answer(session, Frame(frame))
