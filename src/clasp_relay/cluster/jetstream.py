"""Errors of JetStream's answers: the log (``engine``) and the object store (``objects``) read them alike.

It is a file of its own since the object store needs nothing of nats-py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CUT_OFF", "NO_MESSAGE", "NO_REPLICAS", "NO_STREAM", "WRONG_SEQUENCE", "error_code"]

NO_MESSAGE = 10037
NO_STREAM = 10059
NO_REPLICAS = 10074
WRONG_SEQUENCE = 10071
"""The message that was to be the last one is not."""

CUT_OFF = (10008, 10009)
"""What a server answers that does not reach those with which it keeps a stream."""


def error_code(answer: Mapping[str, Any]) -> int | None:
    """Returns the code of an error; None where there is none."""
    error = answer.get("error")
    return None if error is None else int(error.get("err_code", error.get("code", 0)))
