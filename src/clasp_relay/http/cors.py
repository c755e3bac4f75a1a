"""Decides which web pages may use the relay, over HTTP and WebSocket (CORS and the Origin header)."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import idna
from twisted.web.iweb import IRequest

__all__ = ["Origins", "set_cors_headers"]

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_METHODS = b"GET, HEAD, POST, PUT, DELETE, OPTIONS"
_HEADERS = b"Content-Type, Authorization, If-Match, If-None-Match, If-Range, Range, Last-Event-ID"
_EXPOSED = b"ETag, Content-Range, Retry-After"


def _normalise(origin: str) -> str:
    """Returns an origin as browsers write it: lower case, IDNA's ASCII form, no default port, no slash at the end."""
    try:
        parts = urlsplit(origin.strip())
        port = parts.port
    except ValueError:
        return origin
    if not parts.scheme or not parts.hostname:
        return origin.strip().lower()
    host = f"[{parts.hostname}]" if ":" in parts.hostname else _ascii_host(parts.hostname)
    suffix = "" if port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{port}"
    return f"{parts.scheme}://{host}{suffix}"


def _ascii_host(host: str) -> str:
    """Returns ``xn--bcher-kva.example`` for ``bücher.example``; a text that is no host name is returned unchanged."""
    if host.isascii():
        return host
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError:
        return host


class Origins:
    """The allowed origins.

    Args:
        allowed: origins as ``scheme://host[:port]``; ``null`` and ``file://`` for local pages; None for every origin.
    """

    def __init__(self, allowed: Iterable[str] | None) -> None:
        self._allowed = None if allowed is None else frozenset(map(_normalise, allowed))

    @property
    def any(self) -> bool:
        """Whether every origin is allowed."""
        return self._allowed is None

    def admit(self, origin: str, host: str, scheme: str | None = None) -> bool:
        """Tells whether a page may use the relay: its origin is in the list, or is the relay's own.

        Args:
            origin: the request's Origin header.
            host: its Host header.
            scheme: http or https; None when it is unknown (a proxy may end TLS), so both count as the relay's own.
        """
        if self._allowed is None:
            return True
        origin = _normalise(origin)
        schemes = ("http", "https") if scheme is None else (scheme,)
        return origin in self._allowed or any(origin == _normalise(f"{own}://{host}") for own in schemes)


def set_cors_headers(request: IRequest, origins: Origins) -> None:
    """Tells the browser whether the page that asks may read the answer (Fetch standard, CORS protocol)."""
    origin = request.getHeader(b"origin")
    headers = request.responseHeaders
    if origins.any:
        headers.setRawHeaders(b"Access-Control-Allow-Origin", [b"*"])
    else:
        headers.addRawHeader(b"Vary", b"Origin")
        host = request.getHeader(b"host") or b""
        scheme = "https" if request.isSecure() else "http"
        if origin is None or not origins.admit(
            origin.decode("utf-8", "replace"), host.decode("utf-8", "replace"), scheme
        ):
            return
        headers.setRawHeaders(b"Access-Control-Allow-Origin", [origin])
    headers.setRawHeaders(b"Access-Control-Expose-Headers", [_EXPOSED])
    if request.method == b"OPTIONS":
        headers.setRawHeaders(b"Access-Control-Allow-Methods", [_METHODS])
        headers.setRawHeaders(b"Access-Control-Allow-Headers", [_HEADERS])
