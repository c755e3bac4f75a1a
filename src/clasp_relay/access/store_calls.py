"""Calls the user store on the SQL thread, and translates its refusals for clients."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from clasp_relay.access.issuer import BAD_TOKEN
from clasp_relay.access.refusals import Busy, Forbidden, Missing, Refusal, Taken, Unauthenticated
from clasp_relay.access.threads import LANE, Workers
from clasp_relay.logs import events
from clasp_relay.storage.users import (
    Disabled,
    IdentityTaken,
    InviteGone,
    NameConfusable,
    NameTaken,
    PersonGone,
    ResetGone,
    StoreBusy,
    StoreRefusal,
    TokenGone,
    UserChanged,
)

__all__ = ["MAX_WAITING_CALLS", "MAX_WAITING_CALLS_PER_ADDRESS", "StoreCalls"]

_RETRY_AFTER_S = 5
_TOLD_EVERY_S = 60

P = ParamSpec("P")
T = TypeVar("T")

MAX_WAITING_CALLS = 2048
"""Length of the queue for the SQL thread: about a second's work on a slow disk."""

MAX_WAITING_CALLS_PER_ADDRESS = 512
"""Number of them that may be for requests of one client address. Client addresses take turns."""

STORE_BUSY = "The relay cannot reach its accounts at the moment. Try again in a few seconds."
NAME_TAKEN = "This name belongs to a registered user. Choose another one."
NAME_CONFUSABLE = "This name looks like that of a registered user. Choose another one."
# Clients look for the words «identity belongs to a registered user», and then make up a new id.
IDENTITY_TAKEN = "This identity belongs to a registered user or to another guest who is signed in."
INVITE_GONE = "This invite is not valid, or it is used up. Ask whoever invited you for a new one."
DISABLED = "This account is disabled. Ask the operator of this relay."
PERSON_GONE = "There is no such person."
RESET_GONE = "The link is not valid any more. Ask for another one."
USER_CHANGED = "The password was changed a moment ago. Sign in with the new one."


class StoreCalls:
    """Calls methods of a ``UserStore``.

    Args:
        workers: one thread that all calls are made on.
        monotonic_s: a monotonic clock, in seconds.
    """

    def __init__(self, workers: Workers, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._workers = workers
        self._monotonic_s = monotonic_s
        self._silent_until_s = 0.0

    async def run(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls one method.

        Raises:
            Refusal: the store refuses, or too many calls are waiting.
        """
        try:
            return await self._workers.run(LANE.get(), _always, method, *args, **kwargs)
        except StoreBusy as busy:
            self._tell_busy(busy)
            raise Busy(STORE_BUSY, _RETRY_AFTER_S) from None
        except StoreRefusal as refusal:
            raise _in_words(refusal) from None

    def _tell_busy(self, busy: StoreBusy) -> None:
        """Logs that the store is held by another process, at most once a minute."""
        now_s = self._monotonic_s()
        if now_s >= self._silent_until_s:
            self._silent_until_s = now_s + _TOLD_EVERY_S
            events.USERS_HELD.log(file=str(busy))


def _in_words(refusal: StoreRefusal) -> Refusal:
    match refusal:
        case NameTaken():
            return Taken(NAME_TAKEN)
        case NameConfusable():
            return Taken(NAME_CONFUSABLE)
        case IdentityTaken():
            return Taken(IDENTITY_TAKEN)
        case InviteGone():
            return Forbidden(INVITE_GONE)
        case TokenGone():
            return Unauthenticated(BAD_TOKEN)
        case Disabled():
            return Forbidden(DISABLED)
        case PersonGone():
            return Missing(PERSON_GONE)
        case ResetGone():
            return Unauthenticated(RESET_GONE)
        case UserChanged():
            return Unauthenticated(USER_CHANGED)
    raise AssertionError(f"no words for {refusal!r}")


def _always() -> None:
    """Does nothing: admits every call."""
