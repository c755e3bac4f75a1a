"""SET and GET."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clasp_relay.core.pieces import check_param_fits, snapshot_frames
from clasp_relay.core.ports import Frame, Kind
from clasp_relay.core.records import Param
from clasp_relay.wire.address import Pattern, check_address
from clasp_relay.wire.codec import ack_frame
from clasp_relay.wire.messages import NULL, Get, Set

if TYPE_CHECKING:
    from clasp_relay.core.relay import Relay
    from clasp_relay.core.session.sessions import Session


# Skips the argument handling of the generated constructor: one is made for every SET.
_new = tuple.__new__
_KEEP = Kind.KEEP


def set_param(relay: Relay, session: Session, message: Set, qos: int) -> None:
    """Stores a value and tells those who subscribed; an ACK only where QoS asks for one."""
    change = relay.writing.set(session, message)
    if not qos:
        return
    address, revision = change.address, change.revision
    if message.lock:
        holder = relay.params.holder(address)
        data = ack_frame(address, revision, holder is not None, holder)
    else:
        data = ack_frame(address, revision)
    relay.answer(session, _new(Frame, (data, _KEEP, "")))


def get(relay: Relay, session: Session, message: Get, _qos: int) -> None:
    """Answers with a SNAPSHOT of that one param; null with revision 0 where nothing is set."""
    address = message.address
    check_address(address)
    relay.permissions.check_get(session.identity, address)
    relay.params.renew(address, relay.clock.now_us())
    param = relay.params.get(address)
    shown = [] if param is None else relay.visibility.show([param], session, Pattern.parse(address))
    if not shown:
        nothing = Param(address, NULL, 0, "", relay.clock.now_us())
        check_param_fits(nothing)
        shown = [nothing]
    relay.snapshot(session, ("get", address), snapshot_frames(shown))
