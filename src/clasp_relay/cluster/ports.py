"""The interface of the engine that a node is given. ``engine`` implements it over NATS, the tests in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import NamedTuple, Protocol

__all__ = ["Appended", "Bounds", "Engine", "Outcome"]


class Outcome(Enum):
    """What became of an append."""

    DONE = "done"
    FENCED = "fenced"
    """The log does not end where it was expected to."""
    FAILED = "failed"
    """It is not known whether it happened."""
    TOO_LONG = "too long"
    """It did not happen: the log takes nothing as long as that."""


class Appended(NamedTuple):
    """The answer to an append."""

    outcome: Outcome
    seq: int = 0
    text: str = ""


class Bounds(NamedTuple):
    """What the log holds. An empty one begins behind its last message."""

    first: int
    last: int


class Engine(Protocol):
    """A log with one subject, and a bus. All callbacks come in the event loop, in the order of what happened."""

    is_connected: bool
    """Whether there is a connection and the log was found or made."""

    def start(self, when_connected: Callable[[bool], None], when_fatal: Callable[[str], None]) -> None:
        """Begins to connect, and goes on for ever.

        Args:
            when_connected: is told of each connection, and of its end.
            when_fatal: is told, in one line, what makes no sense to try again.
        """

    def stop(self, done: Callable[[], None]) -> None:
        """Sends what waits, and ends the connection; takes a second at most."""

    def subscribe(self, subject: str, call: Callable[[bytes], None]) -> None:
        """Has ``call`` called with every message of a subject from now on."""

    def hear(self, subject: str, is_heard: bool) -> None:
        """Has messages of a subscribed subject be left out from now on, or come again.

        It takes effect before what is published or appended afterwards.
        """

    def publish(self, subject: str, payload: bytes) -> None:
        """Sends a message to whoever listens; it may be lost."""

    def in_one_write(self) -> AbstractContextManager[None]:
        """Returns a context within which what is published and appended waits, to be written together at its end."""

    def append(self, payload: bytes, expected: int, done: Callable[[Appended], None]) -> None:
        """Appends to the log, if its last message is number ``expected``."""

    def read(self, seq: int, at_most: int, done: Callable[[Sequence[bytes] | None], None]) -> None:
        """Reads messages of the log from a number on; gives fewer at its end, None where it cannot be read."""

    def bounds(self, done: Callable[[Bounds | None], None]) -> None:
        """Asks what the log holds; None where it does not answer."""
