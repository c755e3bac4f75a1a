"""Many clients in one process: each costs an asyncio protocol and reads no more than it must."""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.trial.unittest import SkipTest

from clasp_relay.wire.codec import encode
from clasp_relay.wire.constants import MessageCode
from clasp_relay.wire.frame import encode_frame
from clasp_relay.wire.messages import Hello, Message
from tests.integration.process import PATIENCE_S
from tests.integration.raw import BINARY, CLOSE, PING, PONG, ws_frame

Result = TypeVar("Result")

_SO_TIMESTAMPNS = 35
"""Has Linux say when data had arrived (``asm-generic/socket.h``); Python has no name for it."""

_TIMESPEC = struct.Struct("@ll")
_PIECE_BYTES = 256 * 1024

_UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: clasp\r\n\r\n"
)


def masked(*messages: Message, qos: int = 0) -> bytes:
    """Returns CLASP messages as WebSocket messages of a client."""
    return b"".join(ws_frame(BINARY, encode_frame(encode(message), qos)) for message in messages)


def need_files(count: int) -> None:
    """Lets this process, and those that it starts, open so many files.

    Raises:
        SkipTest: the system does not allow that many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise SkipTest(f"{count} open files are needed, {hard} are allowed (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


class StampedTransport(asyncio.Transport):
    """A TCP connection of which the kernel says when what was received had arrived.

    Args:
        connected: a socket.
        protocol: gets what arrives.
    """

    def __init__(self, connected: socket.socket, protocol: asyncio.Protocol) -> None:
        super().__init__()
        connected.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setblocking(False)
        self.arrived_s = 0.0
        """When what the protocol gets had arrived, in Unix seconds; the last of it, where it came in pieces."""
        self._socket = connected
        self._protocol = protocol
        self._waiting = b""
        self._loop = asyncio.get_running_loop()
        self._is_closed = False
        self._loop.add_reader(connected, self._read)
        protocol.connection_made(self)

    def _read(self) -> None:
        try:
            data, ancillary, _, _ = self._socket.recvmsg(_PIECE_BYTES, socket.CMSG_SPACE(_TIMESPEC.size))
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if not data:
            self._end(None)
            return
        for _, kind, stamp in ancillary:
            if kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(stamp[: _TIMESPEC.size])
                self.arrived_s = seconds + nanoseconds / 1e9
        self._protocol.data_received(data)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Sends bytes."""
        if self._is_closed:
            return
        is_waiting = bool(self._waiting)
        self._waiting += data
        if not is_waiting:
            self._write()

    def _write(self) -> None:
        try:
            self._waiting = self._waiting[self._socket.send(self._waiting) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._end(error)
            return
        self._loop.remove_writer(self._socket)
        if self._waiting:
            self._loop.add_writer(self._socket, self._write)

    def get_write_buffer_size(self) -> int:
        """Returns how much waits."""
        return len(self._waiting)

    def close(self) -> None:
        """Ends the connection."""
        self._end(None)

    def abort(self) -> None:
        """Ends it likewise."""
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._protocol.connection_lost(error)


class SwarmClient(asyncio.Protocol):
    """One client, upgraded and past HELLO once ``ready`` is set.

    Args:
        on_payload: gets every payload, its frame's header taken off.
        hello: what is sent once the upgrade is done.
    """

    transport: asyncio.Transport

    def __init__(self, on_payload: Callable[[bytes], None], hello: bytes) -> None:
        self._on_payload = on_payload
        self._hello = hello
        self._data = b""
        self._is_upgraded = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.close_code = 0
        """What the relay's Close said."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks for the upgrade."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(_UPGRADE)

    def data_received(self, data: bytes) -> None:
        """Takes what came apart."""
        data = self._data + data if self._data else data
        at = 0
        if not self._is_upgraded:
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                self._data = data
                return
            self._is_upgraded = True
            self.transport.write(self._hello)
        end = len(data)
        while end - at >= 2:
            size, start = data[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if start > end or start + size > end:
                break
            opcode = data[at] & 0x0F
            at = start + size
            if opcode == BINARY:
                self._on_payload(data[start + 4 : at])
                if not self.ready.done() and data[start + 4] == MessageCode.SNAPSHOT:
                    self.ready.set_result(None)
            elif opcode == PING:
                self.transport.write(ws_frame(PONG, data[start:at]))
            elif opcode == CLOSE:
                self.close_code = int.from_bytes(data[start : start + 2], "big")
        self._data = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        for future in (self.ended, self.ready):
            if not future.done():
                future.set_result(None)

    def send(self, *messages: Message, qos: int = 0) -> None:
        """Sends CLASP messages."""
        self.transport.write(masked(*messages, qos=qos))


async def join(
    port: int, on_payload: Callable[[bytes], None], *messages: Message, source: str | None = None, token: str = ""
) -> SwarmClient:
    """Connects a client, which sends HELLO and then ``messages``; returns it once it is live.

    Args:
        port: where the relay listens.
        on_payload: gets every payload.
        messages: what is sent behind HELLO.
        source: the address that it comes from.
        token: whose it is; none in open mode.
    """
    hello = masked(Hello(1, 0xF8, "swarm", token), *messages)
    _, client = await asyncio.get_running_loop().create_connection(
        lambda: SwarmClient(on_payload, hello), "127.0.0.1", port, local_addr=(source, 0) if source else None
    )
    await asyncio.wait_for(client.ready, PATIENCE_S)
    return client


async def join_stamped(port: int, on_payload: Callable[[bytes], None], *, source: str, token: str) -> SwarmClient:
    """Connects a client that is told when what it gets had arrived; returns it once it is live.

    Args:
        port: where the relay listens.
        on_payload: gets every payload.
        source: the address that it comes from.
        token: whose it is.
    """
    connected = await asyncio.to_thread(
        socket.create_connection, ("127.0.0.1", port), PATIENCE_S, source_address=(source, 0)
    )
    client = SwarmClient(on_payload, masked(Hello(1, 0xF8, "swarm", token)))
    StampedTransport(connected, client)
    await asyncio.wait_for(client.ready, PATIENCE_S)
    return client


async def in_flight(count: int, at_once: int, task: Callable[[int], Awaitable[Result]]) -> list[Result]:
    """Does something ``count`` times, so many at once, and returns the results in order."""
    turns = asyncio.Semaphore(at_once)

    async def one(number: int) -> Result:
        async with turns:
            return await task(number)

    return await asyncio.gather(*(one(number) for number in range(count)))
