"""The connection of the engine to NATS: TLS, credentials, lost connections, its end."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.protocol.parser import PERMISSIONS_ERR, STALE_CONNECTION

from clasp_relay.cluster.nats.credentials import BadCredentials, Credentials
from clasp_relay.cluster.nats.direct_client import DirectClient

__all__ = ["ANSWER_S", "RETRY_S", "NatsClient", "NoTlsError", "Unusable", "login_of", "without_secret"]

ANSWER_S = 2.0
"""Timeout for a connection to a server and for each of its answers."""

RETRY_S = 0.25
"""Time before the next attempt after one that failed."""

FLUSH_S = 5
"""Timeout for a flush; nats-py notices a dead connection earlier."""


class Unusable(Exception):
    """Another attempt would fail, too; the text is the reason, in one line."""


class NoTlsError(NatsError):
    """The server of a URL with ``tls://`` does not use TLS."""

    def __str__(self) -> str:
        return "the server speaks no TLS: give nats-server a tls block, or say nats:// where its network can be trusted"


class NatsClient(DirectClient):
    """Requires TLS with ``tls://``, and never ends by itself.

    nats-py uses TLS only if the server asks for it, and otherwise sends the password without it.
    """

    @property
    def replicas(self) -> int:
        """The number of servers that are to keep a stream."""
        return min(3, max(1, len(self.servers)))

    @property
    def has_jetstream(self) -> bool:
        """Whether the connected server has JetStream."""
        return bool(self._server_info.get("jetstream"))

    async def flush_all(self) -> None:
        """Waits until the server has taken everything, also if the connection is lost meanwhile."""
        while True:
            try:
                await self.flush(FLUSH_S)
                if self.is_connected:
                    return
            except (NatsError, TimeoutError, OSError):
                """nats-py sends it again with the next connection."""
            await asyncio.sleep(RETRY_S)

    async def close_at_once(self) -> None:
        """Ends the connection without waiting until the server has taken everything, as ``close`` would."""
        self.abort()
        try:
            await self.close()
        except (NatsError, OSError):
            """The connection was lost before the remaining data was written."""

    async def move(self, url: str) -> None:
        """Connects to another server of the cluster.

        Args:
            url: one of ``servers``.
        """
        # nats-py tries the first server of its pool next.
        self._server_pool.sort(key=lambda server: server.uri.geturl() != url)
        await self.force_reconnect()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        server = self._current_server
        if initial_connection and server is not None and server.uri.scheme == "tls" and not info.get("tls_required"):
            raise NoTlsError
        if initial_connection and info.get("tls_required"):
            # In a thread, since reading all certificates that the system trusts takes 30 ms.
            self.options["tls"] = await asyncio.to_thread(ssl.create_default_context)
        await super()._process_info(info, initial_connection)

    async def _process_connect_init(self) -> None:
        """Connects also if a busy server sends a PING of its own before it answers the client's.

        nats-py reads a single line after its PING, and would stay in the state «connecting» for ever.
        """
        await super()._process_connect_init()
        if self._current_server is not None:
            # So that the next attempt waits if the connection is lost at once.
            self._current_server.last_attempt = time.monotonic()
        if self.is_connecting:
            # The answer to the client's PING is still to come.
            self._pongs.append(asyncio.Future())
            self._status = Client.CONNECTED

    async def _process_err(self, err_msg: str) -> None:
        """Reconnects after an error from the server: nats-py would end for good, without a callback."""
        if STALE_CONNECTION in err_msg or PERMISSIONS_ERR in err_msg:
            await super()._process_err(err_msg)
            return
        error = NatsError(f"nats: {err_msg}")
        await self._error_cb(error)
        await self._process_op_err(error)


def login_of(urls: Sequence[str], creds: Path | None) -> dict[str, Any]:
    """Returns the arguments of a connection for the credentials.

    Args:
        urls: the servers. User and password, or the token, count if all URLs have the same: servers name other
            servers without them.
        creds: a file with credentials, which is read; None for none.

    Raises:
        Unusable: the file cannot be used.
    """
    if creds is not None:
        credentials = Credentials(creds)
        try:
            credentials.check()
        except BadCredentials as error:
            raise Unusable(f"--cluster-creds: {error}") from None
        return {"user_jwt_cb": credentials.jwt, "signature_cb": credentials.sign}
    (user, password), *others = {(parts.username, parts.password) for parts in map(urlsplit, urls)}
    if others or user is None:
        return {}
    return {"token": user} if password is None else {"user": user, "password": password}


def without_secret(url: str) -> str:
    """Returns the URL of a server without user and password, for people."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "", "", ""))
