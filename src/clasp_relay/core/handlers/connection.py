"""HELLO, PING, PONG and SYNC."""

from __future__ import annotations

from clasp_relay.core.ports import Frame
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.sessions import MAX_NAME_CHARACTERS, Session
from clasp_relay.wire.constants import PROTOCOL_VERSION, Feature, MessageCode
from clasp_relay.wire.messages import Hello, Ping, Pong, Sync, Welcome

FEATURES = Feature.PARAM | Feature.EVENT | Feature.STREAM | Feature.GESTURE | Feature.TIMELINE
"""The features in WELCOME, whatever HELLO asked for: everything that PUBLISH and SET can carry."""

_PONG = Pong()


def hello(relay: Relay, session: Session, message: Hello, _qos: int) -> None:
    """Makes a session live: WELCOME, then a SNAPSHOT of what it may see.

    Every protocol version is accepted: clients send 1, 2 or 3 and mean the same bytes.
    """
    relay.identify(session, message.token)
    session.name = message.name[:MAX_NAME_CHARACTERS]
    session.features = message.features
    # First what may raise, so that every live session gets its WELCOME.
    frames = relay.snapshots.after_hello(session)
    relay.admit(session)
    welcome = Welcome(PROTOCOL_VERSION, FEATURES, relay.clock.now_us(), session.id, relay.options.name)
    relay.answer(session, MessageCode.WELCOME, welcome)
    if frames is None:
        relay.send_empty_snapshot(session)
    else:
        relay.send_snapshot(session, "hello", frames)
    relay.observer.began(session)


def ping(relay: Relay, session: Session, _message: Ping, _qos: int) -> None:
    """Answers in order: a PONG tells the client that its earlier messages were handled."""
    relay.answer(session, MessageCode.PONG, _PONG)


def pong(_relay: Relay, _session: Session, _message: Pong, _qos: int) -> None:
    """Does nothing: for the session timeout, the connection itself notes that bytes arrived."""


def sync(relay: Relay, session: Session, message: Sync, _qos: int) -> None:
    """Answers with the relay's time, ahead of answers that wait, so that the time is accurate."""
    relay.pay_error(session)
    now_us = relay.clock.now_us()
    relay.counts.sent[MessageCode.SYNC] += 1
    session.outbox.send(Frame(session.codec.encode(Sync(message.t1_us, now_us, now_us))))
