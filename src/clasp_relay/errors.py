"""The errors of the relay, and how a client reads them.

::

    ClaspError
    ├── RequestError          a message is refused: the client gets an ERROR, its session goes on
    │   └── DecodeError       the bytes are no valid frame (100) or no valid message (101)
    ├── Disconnect            the session ends: an ERROR (when there is a code), then a WebSocket close
    ├── JournalLost           a commit of the journal failed: the relay stops
    └── StartError            the relay cannot start: one line that names the cause and the remedy

Any other exception while a message is handled is a defect of the relay: it is logged with its traceback, and the
client gets ERROR 500 «internal error».
"""

from __future__ import annotations

import os
from enum import IntEnum

__all__ = [
    "ClaspError",
    "CloseCode",
    "DecodeError",
    "Disconnect",
    "ErrorCode",
    "JournalLost",
    "RequestError",
    "StartError",
    "cause_text",
]


class ErrorCode(IntEnum):
    """The codes of an ERROR message (``docs/protocol.md``, Errors).

    The relay never sends VERSION, because it accepts every version in HELLO, nor NOT_FOUND, because a GET of an
    address without a value is answered with NULL. Both are here because the protocol defines them.
    """

    FRAME = 100
    MESSAGE = 101
    VERSION = 102
    ADDRESS = 200
    NOT_FOUND = 201
    PATTERN = 202
    UNAUTHENTICATED = 300
    SCOPE = 301
    TOKEN_EXPIRED = 302
    CONFLICT = 400
    LOCKED = 401
    VALUE = 402
    POLICY = 403
    NO_TARGET = 404
    LIMIT = 429
    INTERNAL = 500
    NOT_CONFIGURED = 501
    OVERLOADED = 503


class CloseCode(IntEnum):
    """The WebSocket close codes that the relay sends (RFC 6455 §7.4.1)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    TRY_AGAIN_LATER = 1013


class ClaspError(Exception):
    """The root of the relay's own errors."""


class RequestError(ClaspError):
    """A message is refused. Its sender gets an ERROR, and the session goes on.

    Args:
        code: the ERROR's code.
        message: the ERROR's text: what is wrong and what to do.
        address: the address or pattern that the ERROR names, or None.
    """

    def __init__(self, code: ErrorCode, message: str, address: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.address = address

    def again(self) -> RequestError:
        """Returns an equal one to be raised, for an object that is kept.

        Python adds the frames of each raise to the traceback of the object that is raised, with all that these hold.
        """
        return RequestError(self.code, self.message, self.address)

    def __str__(self) -> str:
        about = "" if self.address is None else f" ({self.address})"
        return f"{self.code:d}: {self.message}{about}"


class DecodeError(RequestError):
    """Bytes that are not a valid frame or message. Too many of them end the session.

    Args:
        message: what is wrong with the bytes.
        code: ``ErrorCode.FRAME`` for the frame around the payload, else ``ErrorCode.MESSAGE``.
    """

    def __init__(self, message: str, code: ErrorCode = ErrorCode.MESSAGE) -> None:
        super().__init__(code, message)


class Disconnect(ClaspError):
    """The session ends.

    Args:
        close_code: the WebSocket close code.
        reason: the text of the close, the only one that the clients' ``connect()`` shows.
        code: the ERROR to send before the close, or None for none.
    """

    def __init__(self, close_code: CloseCode, reason: str, code: ErrorCode | None = None) -> None:
        super().__init__(reason)
        self.close_code = close_code
        self.reason = reason
        self.code = code

    def again(self) -> Disconnect:
        """Returns an equal one to be raised, for an object that is kept; see ``RequestError.again``."""
        return Disconnect(self.close_code, self.reason, self.code)

    def __str__(self) -> str:
        return f"close {self.close_code:d}: {self.reason}"


class JournalLost(ClaspError):
    """A commit of the journal has failed: nothing is recorded any more, and the relay stops. The text is one line."""


class StartError(ClaspError):
    """The relay cannot start. The text is one line that names the cause and the remedy."""


def cause_text(error: object) -> str:
    """Returns the text of an exception or another cause in one line, without Python's notation.

    An ``OSError`` reads as ``/data/state.json: Is a directory``.
    """
    reason = str(error)
    if isinstance(error, OSError) and error.strerror:
        path = error.filename2 or error.filename  # the second is what was to be made
        reason = f"{os.fsdecode(path)}: {error.strerror}" if isinstance(path, str | bytes) else error.strerror
    return " ".join(reason.split()) or type(error).__name__
