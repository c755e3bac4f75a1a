"""A client of NATS with a fast path for the messages that are sent with every batch.

nats-py reads in one task, writes in another one, and calls back in a third one for each subscription, so a message
waits for three turns of its loop. Here what was gathered is written at once, also outside of the loop's turns, and who
listens is called from where it is read. Connections, subscriptions and all else are nats-py's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from nats.aio.client import PING_PROTO, Client
from nats.aio.subscription import Subscription
from nats.errors import MaxPayloadError
from nats.protocol.command import hpub_cmd, pub_cmd
from nats.protocol.parser import AWAITING_CONTROL_LINE

__all__ = ["DirectClient"]

MSG_FIELDS = 4
"""How many fields the line of a message has at least."""

WRITTEN_AHEAD_BYTES = 1024 * 1024
"""How much may wait for the connection; whoever has more to send waits for it."""


class _Reading(asyncio.Protocol):
    """Takes messages for those who listen out of what is read, and leaves all else to nats-py, in its order.

    Args:
        client: whose connection it is.
        reader: from which nats-py reads.
        rest: fills that.
    """

    def __init__(self, client: DirectClient, reader: asyncio.StreamReader, rest: asyncio.Protocol) -> None:
        self._client = client
        self._reader: Any = reader
        self._rest: Any = rest

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        # Behind what nats-py has not taken yet all is nats-py's.
        parser = self._client._ps
        is_behind = self._reader._buffer or parser.buf or parser.state != AWAITING_CONTROL_LINE
        end = 0 if is_behind else self._client.take(data)
        if end < len(data):
            self._rest.data_received(data[end:])

    def eof_received(self) -> bool | None:
        """See ``asyncio.Protocol``."""
        is_kept: bool | None = self._rest.eof_received()
        return is_kept

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self._rest.connection_lost(exc)

    def pause_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        self._rest.pause_writing()

    def resume_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        self._rest.resume_writing()


class DirectClient(Client):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._listening: dict[str, Subscription] = {}
        self._listeners: dict[int, Callable[[bytes, bytes], None]] = {}
        """By the numbers of their subscriptions."""
        self._telling: asyncio.Future[None] | None = None
        """Tells of a fault of the last listener that had one."""
        self._changing = asyncio.Lock()
        """Held while a subscription begins or ends, so that none does so twice."""

    async def listen(self, subject: str, listener: Callable[[bytes, bytes], None]) -> None:
        """Subscribes, also at each connection to come; does nothing where that was done.

        Args:
            subject: to what.
            listener: called with the subject and the payload of each message, from where it is read.
        """

        async def heard(message: Any) -> None:
            listener(message.subject.encode(), message.data)

        async with self._changing:
            if subject not in self._listening:
                subscription = self._listening[subject] = await self.subscribe(subject, cb=heard)
                self._listeners[subscription._id] = listener

    async def leave(self, subject: str) -> None:
        """Ends what ``listen`` began; does nothing where nobody listens."""
        async with self._changing:
            subscription = self._listening.pop(subject, None)
            if subscription is not None:
                del self._listeners[subscription._id]
                await subscription.unsubscribe()

    async def _process_connect_init(self) -> None:
        await super()._process_connect_init()
        reader, writer = (getattr(self._transport, name, None) for name in ("_io_reader", "_io_writer"))
        if reader is not None and writer is not None:
            transport = writer.transport
            transport.set_protocol(_Reading(self, reader, transport.get_protocol()))

    async def _attempt_reconnect(self) -> None:
        """Ends the connection at once; nats-py waits until the server has taken all, which may have stopped reading."""
        self.abort()
        await super()._attempt_reconnect()

    def abort(self) -> None:
        """Ends the connection at once: what the server has not taken yet is lost."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    def take(self, data: bytes) -> int:
        """Calls those who listen with the messages with which something that was read begins.

        Args:
            data: what was read: ``MSG subject number [reply] bytes``, then the payload, each with CR LF behind it.

        Returns:
            up to where it was taken: up to a message for somebody else, one that is not whole, or something else.
        """
        at = 0
        while data.startswith(b"MSG ", at):
            line_end = data.find(b"\r\n", at)
            fields = data[at:line_end].split()
            if line_end < 0 or len(fields) < MSG_FIELDS:
                break
            begin = line_end + 2
            end = begin + int(fields[-1])
            listener = self._listeners.get(int(fields[2]))
            if listener is None or end + 2 > len(data):
                break
            at = end + 2
            try:
                listener(fields[1], data[begin:end])
            except Exception as error:
                # Else nobody would read from the connection any more.
                self._telling = asyncio.ensure_future(self._error_cb(error))
        return at

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        listener = self._listeners.get(sid)
        if listener is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            listener(subject, data)
        except Exception as error:
            # Else nobody would read from the connection any more.
            await self._error_cb(error)

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        # nats-py writes its PING before all that waits to be written, so the answer would say nothing of that: who has
        # subscribed and flushed would not hear yet what others publish.
        self._pongs.append(asyncio.Future() if future is None else future)
        await self._send_command(PING_PROTO)
        await self._flush_pending()

    def put(self, subject: str, payload: bytes, reply: str = "", header: bytes = b"") -> Awaitable[None] | None:
        """Gathers a message for ``write``; to be called while there is a connection.

        Args:
            subject: where it goes.
            payload: what it says.
            reply: where an answer goes; empty for nowhere.
            header: its header as it is sent, empty for none.

        Returns:
            what is to be waited for before the next call, since the connection takes less than it is given; else None.

        Raises:
            MaxPayloadError: the server takes no message as long as that.
        """
        if len(header) + len(payload) > self._max_payload:
            raise MaxPayloadError
        command = hpub_cmd(subject, reply, header, payload) if header else pub_cmd(subject, reply, payload)
        self._pending.append(command)
        self._pending_data_size += len(command)
        is_too_much = self._pending_data_size > WRITTEN_AHEAD_BYTES
        return self._flush_pending(force_flush=True) if is_too_much else None

    def write(self) -> None:
        """Writes what was put, or has nats-py do that once the connection takes more."""
        if not self._pending or not self.is_connected:
            return
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None and writer.transport.get_write_buffer_size() < WRITTEN_AHEAD_BYTES:
            writer.writelines(self._pending)
            self._pending = []
            self._pending_data_size = 0
        elif self._flush_queue is not None and self._flush_queue.empty() and self._flusher_task is not None:
            self._flush_queue.put_nowait(self._flusher_task.get_loop().create_future())
