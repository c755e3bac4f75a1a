"""The Python client of the package index, watched: it prints its errors, and stops reading without a word."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from clasp import Clasp

from tests.integration.process import PATIENCE_S

_NOWHERE = "/no/such/"
"""Addresses below it never have a value."""


class Watched:
    """A connected client.

    Args:
        url: where the relay is.
    """

    def __init__(self, url: str) -> None:
        self.client = Clasp(url, name="python", features=["param", "event", "stream", "gesture", "timeline"])
        self.errors: list[Exception] = []
        """What the client has reported; its receive loop ends with each but those of callbacks."""
        self.client.on_error(self.errors.append)

    async def subscribe(self, pattern: str, **options: Any) -> list[tuple[str, Any]]:
        """Subscribes, waits until the relay knows, and returns the list that what comes is added to.

        The client passes on answers to ``get`` too; those to ``round_trip`` are left out.
        """
        came: list[tuple[str, Any]] = []

        def collect(value: Any, address: str) -> None:
            if not address.startswith(_NOWHERE):
                came.append((address, value))

        self.client.subscribe(pattern, collect, **options)
        await self.round_trip()
        return came

    async def round_trip(self) -> None:
        """Waits until the relay has handled all that was sent and the client has read all that was sent to it.

        Raises:
            AssertionError: the client no longer reads.
        """
        # subscribe() only schedules its frame.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        try:
            assert await self.client.get(f"{_NOWHERE}{uuid.uuid4()}", timeout=PATIENCE_S) is None
        except Exception as error:
            raise AssertionError(f"the client no longer reads: {error!r}, {self.errors}") from error


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Watched]:
    """Connects a client, and makes sure at the end that it still reads what the relay sends."""
    watched = Watched(url)
    await watched.client.connect()
    try:
        yield watched
        await watched.round_trip()
        if watched.errors:
            raise AssertionError(watched.errors)
    finally:
        await watched.client.close()


async def until(condition: Callable[[], object], what: str) -> None:
    """Waits for a condition.

    Raises:
        AssertionError: it did not come true in time.
    """
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {PATIENCE_S:.0f} s: {what}")
        await asyncio.sleep(0.01)
