"""Answers HTTP requests on the WebSocket port that are not upgrades to WebSocket."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus

HEALTH_PATH = "/healthz"
"""The path that answers 200 as long as the event loop runs."""

TLS_BEGIN = b"\x16\x03"
"""The first bytes of a TLS handshake (RFC 8446 §5.1); no HTTP request begins so."""

_HEALTH_CHECK = re.compile(rb"(GET|HEAD) " + HEALTH_PATH.encode() + rb"(?:\?\S*)? HTTP/1\.[01]\r\n")
_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)
_EMPTY_PORT = re.compile(rb"(\r\nhost[ \t]*:[^\r\n]*[^\r\n:]):[ \t]*(?=\r\n)", re.IGNORECASE)


def health_answer(request: bytes) -> bytes | None:
    """Returns the answer to a health check; None for any other request.

    HTTP/1.0, HEAD and requests without Host are accepted, too: HAProxy and monitors send these, and Autobahn refuses
    them.

    Args:
        request: a whole request without a body.
    """
    found = _HEALTH_CHECK.match(request)
    if found is None or _UPGRADE.search(request):
        return None
    whole = response(HTTPStatus.OK, "ok", HEALTH_PATH)
    return whole[: whole.index(b"\r\n\r\n") + 4] if found[1] == b"HEAD" else whole


def without_empty_port(request: bytes) -> bytes:
    """Returns a request whose Host has no colon without a port behind it, which RFC 9110 §4.2.3 allows."""
    return _EMPTY_PORT.sub(rb"\1", request)


def response(code: int, reason: str, path: str, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """Returns a whole HTTP response.

    Args:
        code: the status; 426 (RFC 9110 §15.5.22) tells that this port serves upgrades only.
        reason: the body.
        path: the requested path.
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
