"""HELLO, PING, PONG and SYNC."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from clasp_relay.core.pieces import judged_frames, snapshot_frames
from clasp_relay.core.ports import Frame
from clasp_relay.wire.codec import encode_to_frame
from clasp_relay.wire.constants import PROTOCOL_VERSION, Feature
from clasp_relay.wire.messages import Hello, Ping, Pong, Sync, Welcome

if TYPE_CHECKING:
    from clasp_relay.core.relay import Relay
    from clasp_relay.core.session.sessions import Session

FEATURES = Feature.PARAM | Feature.EVENT | Feature.STREAM | Feature.GESTURE | Feature.TIMELINE
"""What WELCOME offers, whatever HELLO asked for: all that PUBLISH and SET can carry."""

_PONG = Frame(encode_to_frame(Pong()))


def hello(relay: Relay, session: Session, message: Hello, _qos: int) -> None:
    """Lets a session in: WELCOME, then a SNAPSHOT of what it may see.

    Every version is welcome: clients in the field send 1 and mean the same bytes by 2 and 3.
    """
    session.identity = relay.permissions.admit(message.token)
    session.name = message.name
    session.features = message.features
    # What can fail comes first: a session that is live has its WELCOME.
    frames = _all_it_may_see(relay, session)
    relay.admit(session)
    now_us = relay.clock.now_us()
    welcome = Welcome(PROTOCOL_VERSION, FEATURES, now_us, session.id, relay.options.name)
    relay.answer(session, Frame(encode_to_frame(welcome)))
    relay.snapshot(session, "hello", frames)
    relay.observer.began(session)


def _all_it_may_see(relay: Relay, session: Session) -> Iterator[bytes]:
    permissions = relay.permissions
    if permissions.is_open:
        return snapshot_frames(relay.params.all())
    params = relay.params.all() if permissions.hello_snapshot else []
    return judged_frames(relay.visibility.show_in_pieces(params, session, None), even_if_empty=True)


def ping(relay: Relay, session: Session, _message: Ping, _qos: int) -> None:
    """Answers in order, so that a client knows that what it sent before has happened."""
    relay.answer(session, _PONG)


def pong(_relay: Relay, _session: Session, _message: Pong, _qos: int) -> None:
    """A sign of life; that something came is noted where the bytes arrive."""


def sync(relay: Relay, session: Session, message: Sync, _qos: int) -> None:
    """Tells the server's time to a client that asks."""
    now_us = relay.clock.now_us()
    relay.answer(session, Frame(encode_to_frame(Sync(message.t1_us, now_us, now_us))))
