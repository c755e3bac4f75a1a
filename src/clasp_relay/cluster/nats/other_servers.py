"""Which server of NATS is used where the connected one is cut off from the log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from clasp_relay.cluster.nats.jetstream import NO_STREAM, error_code
from clasp_relay.cluster.nats.log_stream import NO_ANSWER, LogStream
from clasp_relay.cluster.nats.nats_client import ANSWER_S, NatsClient, without_secret

__all__ = ["OtherServers"]

ELSEWHERE_S = 8.0
"""After this time without an answer about the log, another server that reaches it is looked for."""


class OtherServers:
    """Connects to another server if the connected one does not reach the log and the other one does.

    Args:
        stream: the log.
        name: the name of the connection that asks another server, for the servers' list of connections.
        left: called with the server that is left and the one that is used instead, both for people.
    """

    def __init__(self, stream: LogStream, name: str, left: Callable[[str, str], None]) -> None:
        self._stream = stream
        self._name = name
        self._left = left
        self._is_looking = False

    def are_due(self, now_s: float) -> bool:
        """Tells whether they are to be looked at (``look``), as they were not yet.

        Args:
            now_s: the time of ``time.monotonic``.
        """
        since_s = self._stream.silent_since_s
        return since_s is not None and now_s - since_s > ELSEWHERE_S and not self._is_looking

    async def look(self, client: NatsClient, login: Mapping[str, Any]) -> None:
        """Looks for a server that reaches the log, and connects to it.

        Args:
            client: the connection.
            login: the arguments of a connection for the credentials.
        """
        if self._is_looking or self._stream.silent_since_s is None:
            return  # asked for twice, before it began
        self._is_looking = True
        try:
            own = client.connected_url
            if await self._stream.answers():
                return
            for uri in client.servers:
                if own is None or self._stream.silent_since_s is None:
                    return
                if uri != own and await self._reaches_log(uri.geturl(), login):
                    await self._move(client, uri.geturl())
                    return
        finally:
            self._is_looking = False
            self._stream.silent_since_s = None

    async def _move(self, client: NatsClient, url: str) -> None:
        """Connects to another server, unless the connected one has answered meanwhile."""
        if self._stream.silent_since_s is None or client.connected_url is None:
            return
        self._left(without_secret(client.connected_url.geturl()), without_secret(url))
        await client.move(url)

    async def _reaches_log(self, url: str, login: Mapping[str, Any]) -> bool:
        """Tells whether a server answers requests about the log, even if only that there is none yet."""
        probe = NatsClient()
        try:
            async with asyncio.timeout(2 * ANSWER_S):
                await probe.connect(
                    servers=[url],
                    name=self._name,
                    **login,
                    connect_timeout=int(ANSWER_S),
                    allow_reconnect=False,
                    error_cb=_ignore,
                )
                answer = await probe.request(self._stream.info, timeout=ANSWER_S)
            return error_code(json.loads(answer.data)) in (None, NO_STREAM)
        except NO_ANSWER:
            return False
        finally:
            await probe.close_at_once()


async def _ignore(_error: Exception) -> None:
    """Does nothing: the caller of ``connect`` gets the exception."""
