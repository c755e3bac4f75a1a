"""Why the accounts say no, for people to act on.

::

    Refusal
    ├── BadInput             what was sent cannot be used
    ├── Unauthenticated      wrong user or password; no token, or one that is not valid
    ├── Taken                the name or the id is somebody else's
    └── Later                not now; ``retry_after_s`` says when
        ├── Limited          the caller has tried too often
        └── Busy             the relay has too much to do

The text of each is a whole sentence, shown to the user as it is; it never holds what the user typed.
"""

from __future__ import annotations

from clasp_relay.errors import ClaspError

__all__ = ["BadInput", "Busy", "Later", "Limited", "Refusal", "Taken", "Unauthenticated"]


class Refusal(ClaspError):
    """A call that is refused.

    Args:
        sentence: what is wrong and what to do about it.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class BadInput(Refusal):
    """What was sent cannot be used."""


class Unauthenticated(Refusal):
    """Nobody was recognised."""


class Taken(Refusal):
    """A name or an id belongs to somebody else."""


class Later(Refusal):
    """Not now.

    Args:
        sentence: what is wrong and what to do about it.
        retry_after_s: seconds after which another try makes sense.
    """

    def __init__(self, sentence: str, retry_after_s: float) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


class Limited(Later):
    """The caller has tried too often."""


class Busy(Later):
    """The relay has too much to do."""
