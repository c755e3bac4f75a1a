"""What things take in memory and on the wire."""

from __future__ import annotations


def text_bytes(text: str) -> int:
    """Returns how many bytes a text takes in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())
