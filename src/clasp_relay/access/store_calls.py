"""Calls of the store: off the event loop's thread, and in the words that a client reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from clasp_relay.access.issuer import BAD_TOKEN
from clasp_relay.access.refusals import Refusal, Taken, Unauthenticated
from clasp_relay.access.workers import Workers
from clasp_relay.storage.users import (
    IdentityTaken,
    NameConfusable,
    NameTaken,
    StoreRefusal,
    TokenGone,
    UserChanged,
)

__all__ = ["MAX_WAITING_CALLS", "StoreCalls"]

P = ParamSpec("P")
T = TypeVar("T")

MAX_WAITING_CALLS = 2048
"""Calls that may wait for the SQL thread: a second's worth on a slow disk."""

NAME_TAKEN = "This name belongs to a registered user. Choose another one."
NAME_CONFUSABLE = "This name looks like that of a registered user. Choose another one."
# Clients look for the words «identity belongs to a registered user», and then make up a new id.
IDENTITY_TAKEN = "This identity belongs to a registered user or to another guest who is signed in."
USER_CHANGED = "The password was changed a moment ago. Sign in with the new one."


class StoreCalls:
    """Calls methods of a ``UserStore``.

    Args:
        workers: one thread that all calls are made on.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    async def run(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls one method.

        Raises:
            Refusal: the store refuses, or too many calls are waiting.
        """
        try:
            return await self._workers.run("", _always, method, *args, **kwargs)
        except StoreRefusal as refusal:
            raise _in_words(refusal) from None


def _in_words(refusal: StoreRefusal) -> Refusal:
    match refusal:
        case NameTaken():
            return Taken(NAME_TAKEN)
        case NameConfusable():
            return Taken(NAME_CONFUSABLE)
        case IdentityTaken():
            return Taken(IDENTITY_TAKEN)
        case TokenGone():
            return Unauthenticated(BAD_TOKEN)
        case UserChanged():
            return Unauthenticated(USER_CHANGED)
    raise AssertionError(f"no words for {refusal!r}")


def _always() -> None:
    """Admits."""
