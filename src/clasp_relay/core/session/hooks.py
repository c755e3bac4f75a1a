"""The functions of other layers that are called at a session's beginning and end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clasp_relay.core.session.sessions import Session

__all__ = ["SessionHooks"]


def _no_origin(_peer: str) -> str:
    return ""


def _as_it_is(peer: str) -> str:
    return peer


def _unseen(_session: Session) -> None:
    """Does nothing."""


def _untold(_subject: str) -> None:
    """Does nothing."""


@dataclass(slots=True)
class SessionHooks:
    """The functions that the relay calls for each session; to be set before the first session connects.

    Attributes:
        origin_of: maps a client address to the origin whose share counts; several addresses may be one client's.
            Without it no address is counted.
        group_of: maps a client address to its lane where ``origin_of`` counts none; without it each address has its
            own lane.
        when_began: called with a session that has become live, before its WELCOME.
        when_ended: called with a session that has ended, after all that the core does about it.
        when_gone: called with a subject whose last session has ended; never in open mode.
    """

    origin_of: Callable[[str], str] = _no_origin
    group_of: Callable[[str], str] = _as_it_is
    when_began: Callable[[Session], None] = _unseen
    when_ended: Callable[[Session], None] = _unseen
    when_gone: Callable[[str], None] = _untold
