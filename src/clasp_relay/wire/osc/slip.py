"""SLIP (RFC 1055), which separates OSC packets on a stream: each is between two ENDs (OSC 1.1)."""

from __future__ import annotations

from clasp_relay.errors import DecodeError

END, ESC, ESC_END, ESC_ESC = b"\xc0", b"\xdb", b"\xdb\xdc", b"\xdb\xdd"


def encode_slip(packet: bytes) -> bytes:
    """Returns an escaped packet between two ENDs."""
    return END + packet.replace(ESC, ESC_ESC).replace(END, ESC_END) + END


def decode_slip(framed: bytes) -> bytes:
    """Returns the packet of the bytes between two ENDs.

    Raises:
        DecodeError: an escape is neither of the two that SLIP has.
    """
    if framed.count(ESC) != framed.count(ESC_END) + framed.count(ESC_ESC):
        raise DecodeError("a SLIP escape is not valid")
    return framed.replace(ESC_END, END).replace(ESC_ESC, ESC)


class SlipReader:
    """Divides a stream into packets.

    Args:
        max_bytes: the longest packet, with its escapes.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._data = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Takes received bytes, and returns the complete packets, still escaped, without empty ones.

        Raises:
            DecodeError: a packet is too long; nothing more can be read.
        """
        *found, self._data = (self._data + data).split(END)
        if any(len(each) > self._max_bytes for each in (*found, self._data)):
            raise DecodeError(f"an OSC packet is longer than {self._max_bytes} bytes")
        return [each for each in found if each]
