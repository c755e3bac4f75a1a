"""The baseline: a minimal relay with one ``sendMessage`` per subscriber and no checks.

Run: ``python -m bench.peers.plain_autobahn PORT``
"""

from __future__ import annotations

import struct
import sys
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor as _reactor

reactor: Any = _reactor
_SIZE = struct.Struct(">H")
subscribers: dict[str, list[Plain]] = {}
revisions: dict[str, int] = {}


def frame(payload: bytes, flags: int = 1) -> bytes:
    """Puts a payload into a CLASP frame."""
    return b"\x53" + bytes((flags,)) + _SIZE.pack(len(payload)) + payload


class Plain(WebSocketServerProtocol):
    """One client."""

    def onConnect(self, request: Any) -> str:  # noqa: ARG002
        """Accepts every client."""
        return "clasp"

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: ARG002, N803
        """Handles HELLO, SUBSCRIBE (exact addresses and ``/**``), SET, PUBLISH, PING."""
        code, body = payload[4], payload[4:]
        if code in {0x20, 0x21}:
            end = 4 + _SIZE.unpack_from(body, 2)[0]
            address = body[4:end].decode()
            data = frame(body, 0x41)
            if code == 0x21:
                revisions[address] = revision = revisions.get(address, 0) + 1
                tail = struct.pack(">Q", revision)
                data = frame(bytes((0x21, body[1] | 0x80)) + body[2:] + tail, 0x41)
            for one in subscribers.get(address, []) + subscribers.get("/**", []):
                if code == 0x21 or one is not self:
                    one.sendMessage(data, True)
            if code == 0x21 and payload[1] & 0xC0:
                self.sendMessage(frame(b"\x50\x03" + body[2:end] + tail), True)
        elif code == 0x10:
            subscribers.setdefault(body[7 : 7 + _SIZE.unpack_from(body, 5)[0]].decode(), []).append(self)
        elif code == 0x01:
            self.sendMessage(frame(b"\x02\x01\xff" + bytes(8) + b"\x00\x01s\x00\x01n\x00\x00"), True)
        elif code == 0x41:
            self.sendMessage(frame(b"\x42"), True)

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:  # noqa: ARG002, N803
        """Forgets a client."""
        for those in subscribers.values():
            those[:] = [one for one in those if one is not self]


if __name__ == "__main__":
    factory = WebSocketServerFactory("ws://127.0.0.1", protocols=["clasp"])
    factory.protocol = Plain
    factory.setProtocolOptions(tcpNoDelay=True)
    reactor.listenTCP(int(sys.argv[1]), factory, 1024, "127.0.0.1")
    reactor.run()
