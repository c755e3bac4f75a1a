"""A client of NATS with a fast path for the messages that are sent with every batch.

nats-py reads in one task, writes in another one, and calls back in a third one for each subscription, so a message
waits for three turns of its loop. Here gathered messages are written at once, also outside of the loop's turns, and
listeners are called directly from where the message is read. Connections, subscriptions and all else are nats-py's.
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
"""The smallest number of fields in the line of a message."""

WRITTEN_AHEAD_BYTES = 1024 * 1024
"""How many bytes may wait for the connection before a sender has to wait."""


class _Reading(asyncio.Protocol):
    """Takes the messages of listeners from the bytes that are read, and passes all else to nats-py, in its order.

    Args:
        client: the client of the connection.
        reader: the reader of nats-py.
        rest: the protocol that fills that reader.
    """

    def __init__(self, client: DirectClient, reader: asyncio.StreamReader, rest: asyncio.Protocol) -> None:
        self._client = client
        self._reader: Any = reader
        self._rest: Any = rest

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        # While nats-py has unread bytes, later ones are nats-py's, too, to keep their order.
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
        """The listeners by the numbers of their subscriptions."""
        self._telling: asyncio.Future[None] | None = None
        """The report of the last fault of a listener."""
        self._changing = asyncio.Lock()
        """Held while a subscription begins or ends, so that none does so twice."""

    async def listen(self, subject: str, listener: Callable[[bytes, bytes], None]) -> None:
        """Subscribes, also after each reconnect; does nothing if the subscription exists.

        Args:
            subject: the subject.
            listener: called with the subject and the payload of each message, directly from where it is read.
        """

        async def heard(message: Any) -> None:
            listener(message.subject.encode(), message.data)

        async with self._changing:
            if subject not in self._listening:
                subscription = self._listening[subject] = await self.subscribe(subject, cb=heard)
                self._listeners[subscription._id] = listener

    async def leave(self, subject: str) -> None:
        """Ends a subscription of ``listen``; does nothing if there is none."""
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
        """Ends the connection at once; nats-py would wait for a server that may have stopped reading to take all."""
        self.abort()
        await super()._attempt_reconnect()

    def abort(self) -> None:
        """Ends the connection at once: what the server has not taken yet is lost."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    def take(self, data: bytes) -> int:
        """Calls listeners with the messages at the beginning of the bytes that were read.

        Args:
            data: the bytes: ``MSG subject number [reply] bytes``, then the payload, each followed by CR LF.

        Returns:
            how many bytes were taken: up to a message without a listener, an incomplete one, or another command.
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
                # Otherwise nothing would read from the connection any more.
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
            # Otherwise nothing would read from the connection any more.
            await self._error_cb(error)

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        # nats-py writes its PING before all data that waits to be written, so the PONG would not confirm that data:
        # after subscribe and flush, messages of others could still be missed.
        self._pongs.append(asyncio.Future() if future is None else future)
        await self._send_command(PING_PROTO)
        await self._flush_pending()

    def put(self, subject: str, payload: bytes, reply: str = "", header: bytes = b"") -> Awaitable[None] | None:
        """Gathers a message for ``write``; only called while there is a connection.

        Args:
            subject: its subject.
            payload: its payload.
            reply: the subject for an answer; empty for none.
            header: its encoded header; empty for none.

        Returns:
            an awaitable that the caller must wait for before the next call, if the connection is too slow; else None.

        Raises:
            MaxPayloadError: the server does not accept messages as long as this one.
        """
        if len(header) + len(payload) > self._max_payload:
            raise MaxPayloadError
        command = hpub_cmd(subject, reply, header, payload) if header else pub_cmd(subject, reply, payload)
        self._pending.append(command)
        self._pending_data_size += len(command)
        is_too_much = self._pending_data_size > WRITTEN_AHEAD_BYTES
        return self._flush_pending(force_flush=True) if is_too_much else None

    def write(self) -> None:
        """Writes the gathered messages, or lets nats-py do that once the connection takes more."""
        if not self._pending or not self.is_connected:
            return
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None and writer.transport.get_write_buffer_size() < WRITTEN_AHEAD_BYTES:
            writer.writelines(self._pending)
            self._pending = []
            self._pending_data_size = 0
        elif self._flush_queue is not None and self._flush_queue.empty() and self._flusher_task is not None:
            self._flush_queue.put_nowait(self._flusher_task.get_loop().create_future())
