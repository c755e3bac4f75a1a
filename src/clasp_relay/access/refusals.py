"""Refusals of the accounts, each with a sentence for the user.

::

    Refusal
    ├── BadInput             the input is not valid
    ├── Unauthenticated      wrong user or password; no token, or one that is not valid
    ├── Forbidden            the relay's operator does not allow it
    ├── Missing              there is no such thing, or it is not the caller's
    ├── Taken                the name or the id belongs to somebody else
    ├── TooLarge             what the client sends is too large ever to be accepted
    ├── NoRoom               the relay's disk has no room for it
    └── Later                retry after ``retry_after_s`` seconds
        ├── Limited          the client made too many attempts
        └── Busy             the relay is overloaded

The text of each is a whole sentence that clients show to the user; it never contains the user's input.
"""

from __future__ import annotations

from clasp_relay.errors import ClaspError

__all__ = [
    "BadInput",
    "Busy",
    "Forbidden",
    "Later",
    "Limited",
    "Missing",
    "NoRoom",
    "Refusal",
    "Taken",
    "TooLarge",
    "Unauthenticated",
]


class Refusal(ClaspError):
    """A call that is refused.

    Args:
        sentence: what is wrong and what to do about it.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class BadInput(Refusal):
    """The input is not valid."""


class Unauthenticated(Refusal):
    """Wrong name or password; or no token, or one that is not valid."""


class Forbidden(Refusal):
    """The operator of the relay does not allow it."""


class Missing(Refusal):
    """What the call names does not exist, or is not the caller's."""


class Taken(Refusal):
    """A name or an id belongs to somebody else."""


class TooLarge(Refusal):
    """What the client sends is too large ever to be accepted."""


class NoRoom(Refusal):
    """The relay's disk has no room for it."""


class Later(Refusal):
    """The call may succeed later.

    Args:
        sentence: what is wrong and what to do about it.
        retry_after_s: seconds after which another try makes sense.
    """

    def __init__(self, sentence: str, retry_after_s: float) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


class Limited(Later):
    """The client made too many attempts."""


class Busy(Later):
    """The relay is overloaded."""
