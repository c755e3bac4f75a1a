"""Errors in answers of JetStream, for the log (``engine``, ``log_stream``) and the object store (``objects``).

It is a file of its own since the object store does not need nats-py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CUT_OFF", "NO_MESSAGE", "NO_REPLICAS", "NO_STREAM", "WRONG_SEQUENCE", "error_code"]

NO_MESSAGE = 10037
NO_STREAM = 10059
NO_REPLICAS = 10074
WRONG_SEQUENCE = 10071
"""The expected last message is not the last one."""

CUT_OFF = (10008, 10009)
"""Errors of a server that does not reach the other servers of a stream."""


def error_code(answer: Mapping[str, Any]) -> int | None:
    """Returns the error code of an answer; None if it is no error."""
    error = answer.get("error")
    return None if error is None else int(error.get("err_code", error.get("code", 0)))
