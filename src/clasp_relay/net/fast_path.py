"""A short way in for the usual frame, in front of Autobahn's frame machine.

Nearly all that clients send are whole, masked, binary, unfragmented messages of less than 64 kB. They
are recognised and unmasked here, in about a tenth of the time. Everything else, and everything while
Autobahn is in the middle of something, goes to Autobahn; what comes out is the same either way.
"""

from __future__ import annotations

from clasp_relay.net.guarded import GuardedProtocol

_FIN_BINARY = 0x82
_MASKED = 0x80
_NO_MASK = bytes(4)
_REPEATS = tuple(int.from_bytes(b"\1\0\0\0" * words, "little") for words in range(129))
"""What repeats a mask that is multiplied by it, for payloads of so many words."""


def unmask(masked: bytes, key: bytes) -> bytes:
    """Returns a payload without its mask (RFC 6455 §5.3).

    Args:
        masked: the payload as it came.
        key: the four bytes of its mask.
    """
    if key == _NO_MASK:
        return masked
    length = len(masked)
    words = (length + 3) >> 2
    # One XOR of two long numbers is far quicker than one per byte.
    if words < len(_REPEATS):
        mask = int.from_bytes(key, "little") * _REPEATS[words]
    else:
        mask = int.from_bytes(key * words, "little")
    return (int.from_bytes(masked, "little") ^ mask).to_bytes(words << 2, "little")[:length]


class FastPathProtocol(GuardedProtocol):
    """Reads the usual frame itself and leaves the rest to Autobahn."""

    _tail = b""
    """The beginning of a short usual frame whose end has not come yet."""

    def _dataReceived(self, data: bytes) -> None:
        if self._tail:
            data, self._tail = self._tail + data, b""
        if self.state != self.STATE_OPEN or self.data or self.current_frame is not None or self.inside_message:
            super()._dataReceived(data)
            return
        at = self._pass_messages(data)
        if at < len(data):
            rest = data[at:]
            if self.state == self.STATE_OPEN and _is_short_beginning(rest):
                self._tail = rest
            elif self.state != self.STATE_CLOSED:
                super()._dataReceived(rest)

    def _pass_messages(self, data: bytes) -> int:
        """Passes on the whole usual frames that ``data`` begins with, and returns how many bytes these are.

        Once the session's end was decided ``onMessage`` ignores what comes, here as behind Autobahn.
        """
        at, end = 0, len(data)
        take = self.onMessage
        while end - at >= 6 and data[at] == _FIN_BINARY:
            length = data[at + 1] ^ _MASKED
            start = at + 6
            if length >= 126:
                # Not masked, or longer than 64 kB, or not a length that needs 16 bits: Autobahn knows what to say.
                if length != 126 or end - at < 8:
                    break
                length = data[at + 2] << 8 | data[at + 3]
                if length < 126:
                    break
                start = at + 8
            stop = start + length
            if stop > end:
                break
            at = stop
            take(unmask(data[start:stop], data[start - 4 : start]), True)
        return at


def _is_short_beginning(rest: bytes) -> bool:
    """Says whether bytes that are no whole usual frame are the beginning of one with a short length."""
    if rest[0] != _FIN_BINARY:
        return False
    return len(rest) == 1 or _MASKED <= rest[1] < _MASKED + 126
