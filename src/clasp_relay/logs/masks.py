"""Masks tokens in log lines and frames. Passwords and headers are never passed to the log."""

from __future__ import annotations

import re

from clasp_relay.errors import RequestError
from clasp_relay.wire.codec import decode
from clasp_relay.wire.constants import MAGIC, MessageCode
from clasp_relay.wire.frame import decode_frame
from clasp_relay.wire.messages import Hello

__all__ = ["MAX_SHOWN_BYTES", "frame_hex", "mask_tokens", "sent_hex"]

MAX_SHOWN_BYTES = 4_096
"""Maximum bytes of a frame that a line shows, so that lines stay readable."""

_TOKEN = re.compile(r"(cps[kt])_[\w-]+")
_TOKEN_BYTES = re.compile(rb"cps[kt]_[\w-]+")

_BEFORE_TOKEN_BYTES = 10
"""Bytes of a HELLO before any token, in every form: header, code, version, features, length of the name."""

_HEADER_BYTES = 4
_UNUSUAL_FLAGS = 0x38
_OTHERS = frozenset(MessageCode) - {MessageCode.HELLO}
_MASK = "**"


def mask_tokens(text: str) -> str:
    """Returns a text with every token (``cpsk_…``) and every ticket (``cpst_…``) masked."""
    return _TOKEN.sub(r"\1_***", text)


def frame_hex(data: bytes) -> str:
    """Returns a received frame in hexadecimal, with ``**`` for each byte of a token.

    Of a frame that may be a HELLO but cannot be decoded only the beginning is shown, since the position of its token is
    unknown.
    """
    try:
        message = decode(decode_frame(data).payload)
    except RequestError:
        if _may_be_hello(data):
            return _cut(data[:_BEFORE_TOKEN_BYTES].hex(), len(data))
        return sent_hex(data)
    secret = message.token.encode() if isinstance(message, Hello) else b""
    return _hex(data, [found.span() for found in re.finditer(re.escape(secret), data)] if secret else [])


def sent_hex(data: bytes) -> str:
    """Returns sent bytes in hexadecimal, with ``**`` for each byte of ``cpsk_…`` and ``cpst_…``."""
    return _hex(data, [])


def _may_be_hello(data: bytes) -> bool:
    """Tells whether undecodable bytes may be meant as a HELLO: unless they are a plain frame of another type."""
    is_plain = len(data) > _HEADER_BYTES and data[0] == MAGIC and not data[1] & _UNUSUAL_FLAGS
    return not is_plain or data[_HEADER_BYTES] not in _OTHERS


def _hex(data: bytes, secrets: list[tuple[int, int]]) -> str:
    shown = data[:MAX_SHOWN_BYTES].hex()
    for start, end in secrets + [found.span() for found in _TOKEN_BYTES.finditer(data)]:
        masked = _MASK * (min(end, MAX_SHOWN_BYTES) - start)
        shown = shown[: 2 * start] + masked + shown[2 * start + len(masked) :]
    return _cut(shown, len(data))


def _cut(shown: str, size_bytes: int) -> str:
    return shown if len(shown) == 2 * size_bytes else f"{shown}… ({size_bytes} bytes)"
