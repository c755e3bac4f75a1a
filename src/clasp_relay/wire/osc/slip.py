"""SLIP (RFC 1055), which separates OSC packets on a stream: END stands before and behind each (OSC 1.1)."""

from __future__ import annotations

from clasp_relay.errors import DecodeError

END, ESC, ESC_END, ESC_ESC = b"\xc0", b"\xdb", b"\xdb\xdc", b"\xdb\xdd"


def encode_slip(packet: bytes) -> bytes:
    """Returns a packet between two ENDs."""
    return END + packet.replace(ESC, ESC_ESC).replace(END, ESC_END) + END


def decode_slip(framed: bytes) -> bytes:
    """Returns the packet in what stood between two ENDs.

    Raises:
        DecodeError: an escape is none of the two that there are.
    """
    if framed.count(ESC) != framed.count(ESC_END) + framed.count(ESC_ESC):
        raise DecodeError("a SLIP escape is not valid")
    return framed.replace(ESC_END, END).replace(ESC_ESC, ESC)


class SlipReader:
    """Takes a stream apart.

    Args:
        max_bytes: the longest packet, as it stands on the stream.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._data = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Returns what has come between ENDs, still escaped; empty packets are left out.

        Raises:
            DecodeError: a packet is too long; nothing more can be read.
        """
        *found, self._data = (self._data + data).split(END)
        if any(len(each) > self._max_bytes for each in (*found, self._data)):
            raise DecodeError(f"an OSC packet is longer than {self._max_bytes} bytes")
        return [each for each in found if each]
