"""Answering: how a session of this relay learns what became of its requests, by the items of the log.

A client of CLASP gets the decider's ACKs and ERRORs; a door of another protocol is called back for each message
(``Session.when_decided``).
"""

from __future__ import annotations

from collections.abc import Iterable

from clasp_relay.cluster.exchange.batches import Answer, Answered
from clasp_relay.cluster.exchange.packets import Asked
from clasp_relay.cluster.following.requests import Request, SessionRequests
from clasp_relay.core.relay import Relay
from clasp_relay.core.session.sessions import Session
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire import messages as m
from clasp_relay.wire.codec import decode

__all__ = ["answer", "refuse"]


def answer(relay: Relay, asking: SessionRequests, done: Iterable[Request], item: Answered) -> None:
    """Passes the decider's answers to a session.

    Args:
        relay: the serving core.
        asking: the session.
        done: its requests that are done.
        item: says so, with the answers.
    """
    if asking.session.when_decided is None:
        _send(relay, asking, item)
    else:
        _tell_door(relay, asking.session, done, dict(item.answers))


def refuse(relay: Relay, session: Session, refusal: RequestError) -> None:
    """Tells a session, and its door, that a message of it was refused.

    Args:
        relay: the serving core.
        session: the session.
        refusal: the reason.
    """
    relay.refuse(session, refusal)
    if session.when_decided is not None:
        session.when_decided(None, refusal)


def _send(relay: Relay, asking: SessionRequests, item: Answered) -> None:
    """Sends the answers to a client of CLASP, without those to requests that were refused meanwhile."""
    session, given_up = asking.session, asking.given_up
    for number, data in item.answers:
        if given_up and number in given_up:
            continue
        if isinstance(data, tuple):
            relay.ack(session, *data)
            continue
        message = decode(data)
        if isinstance(message, m.Error):
            relay.refuse(session, RequestError(ErrorCode(message.error), message.message, message.address))


def _tell_door(relay: Relay, session: Session, done: Iterable[Request], answers: dict[int, Answer]) -> None:
    """Reports the outcome of each message of a session to its door; a message has one answer at most."""
    for kept in done:
        if kept.entry.kind != Asked.MESSAGE:
            continue
        data = answers.get(kept.entry.number)
        message = decode(data) if isinstance(data, bytes) else None
        if isinstance(message, m.Error):
            refuse(relay, session, RequestError(ErrorCode(message.error), message.message, message.address))
        elif session.when_decided is not None:
            session.when_decided(data[1] if isinstance(data, tuple) else None, None)
