"""Answers to HTTP requests on the WebSocket port that are no upgrade to WebSocket."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

HEALTH_PATH = "/healthz"
"""Answers 200 as long as the event loop turns."""


def response(code: int, reason: str, path: str, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """Returns a whole HTTP response.

    Args:
        code: the status; 426 (RFC 9110 §15.5.22) says that only upgrades are served here.
        reason: why, as the body.
        path: what was asked for.
        headers: more headers.
    """
    if code == HTTPStatus.UPGRADE_REQUIRED:
        if path == HEALTH_PATH:
            code, reason = HTTPStatus.OK, "ok"
        else:
            headers = [("Upgrade", "websocket"), *headers]
            reason = "This is a WebSocket server: connect with the subprotocol clasp."
    body = f"{reason}\n".encode()
    lines = [
        f"HTTP/1.1 {code} {_phrase(code)}",
        *(f"{name}: {value}" for name, value in headers),
        "Content-Type: text/plain; charset=utf-8",
        "X-Content-Type-Options: nosniff",
        "Cache-Control: no-store",
        f"Content-Length: {len(body)}",
        f"Connection: {'Upgrade, close' if code == HTTPStatus.UPGRADE_REQUIRED else 'close'}",
    ]
    return "\r\n".join((*lines, "", "")).encode() + body


def _phrase(code: int) -> str:
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return "Error"
