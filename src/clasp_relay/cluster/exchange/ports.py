"""The interface of the engine. ``nats.engine`` implements it with NATS, the tests in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import NamedTuple, Protocol

__all__ = ["Appended", "Bounds", "Engine", "Outcome"]


class Outcome(Enum):
    """The outcome of an append."""

    DONE = "done"
    FENCED = "fenced"
    """Refused: the last message is not the expected one."""
    FAILED = "failed"
    """It is not known whether the message was appended."""
    TOO_LONG = "too long"
    """Refused: the log accepts no message as long as this."""


class Appended(NamedTuple):
    """The answer to an append."""

    outcome: Outcome
    seq: int = 0
    text: str = ""


class Bounds(NamedTuple):
    """The first and the last message of the log. If it is empty, the first is the one after the last."""

    first: int
    last: int


class Engine(Protocol):
    """A log with one subject, and a bus. All callbacks are made in the event loop, in the order of their causes."""

    is_connected: bool
    """Whether there is a connection and the log was found or made."""

    def start(self, when_connected: Callable[[bool], None], when_fatal: Callable[[str], None]) -> None:
        """Begins to connect; reconnects until ``stop``.

        Args:
            when_connected: called with True after each connect, and with False when the connection is lost.
            when_fatal: called with one line for the operator if further attempts would fail, too.
        """

    def stop(self, done: Callable[[], None]) -> None:
        """Sends the waiting messages, and ends the connection; takes a second at most."""

    def subscribe(self, subject: str, call: Callable[[bytes], None]) -> None:
        """Subscribes to a subject: calls with every message from now on."""

    def hear(self, subject: str, is_heard: bool) -> None:
        """Ignores the messages of a subscribed subject from now on, or delivers them again.

        It takes effect before later publishes and appends.
        """

    def publish(self, subject: str, payload: bytes) -> None:
        """Sends a message to all subscribers; it may be lost."""

    def in_one_write(self) -> AbstractContextManager[None]:
        """Returns a context at whose end all messages that were published and appended in it are written together."""

    def append(self, payload: bytes, expected: int, done: Callable[[Appended], None]) -> None:
        """Appends to the log, if its last message is number ``expected``."""

    def read(self, seq: int, at_most: int, done: Callable[[Sequence[bytes] | None], None]) -> None:
        """Reads messages of the log from a number on; fewer at its end, None if it cannot be read."""

    def bounds(self, done: Callable[[Bounds | None], None]) -> None:
        """Asks for the bounds of the log; None if it does not answer."""
