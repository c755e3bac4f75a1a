"""What things take in memory and on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clasp_relay.core.records import Param


def text_bytes(text: str) -> int:
    """Returns how many bytes a text takes in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def param_bytes(param: Param) -> int:
    """Returns what a param counts towards the bound of the state: its address and value."""
    return text_bytes(param.address) + len(param.value)
