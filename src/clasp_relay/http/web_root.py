"""Serves the static files of a web app, and its page for every route of the app."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from hashlib import sha256
from http import HTTPStatus
from importlib import resources
from pathlib import Path
from typing import Any

from twisted.python.filepath import FilePath, InsecurePath
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.static import File, getTypeAndEncoding

from clasp_relay.errors import StartError
from clasp_relay.http.json_answers import with_length

PAGE = "index.html"
_CONSOLE_PAGE = "console.html"
_CONSOLE = "console"
"""The page for administrators, and the first segment of its routes."""

_FOREVER = b"public, max-age=31536000, immutable"
_ASK_AGAIN = b"no-cache"
_HASHED = re.compile(r"[-.][A-Za-z0-9_-]{8,}\.[a-z0-9]+$")
"""The name of a file with a hash of its contents, from the app's build, such as ``index-B1x_9aQz.js``."""

_ONE_RANGE = re.compile(rb"bytes=[0-9]{0,18}-[0-9]{0,18}")
"""A Range header that is applied; any other gets the whole file (RFC 9110 §14.2), since many ranges cost more."""

_HASHED_BYTES = 4 * 1024 * 1024
"""The ETag of longer files is made from size and time: to hash one would block the event loop."""

_MAX_TAGS = 1_000
"""Number of files whose ETag is cached."""

_NOT_FOUND = b"There is nothing here.\n"
_TYPES = {**File.contentTypes, ".js": "text/javascript", ".webmanifest": "application/manifest+json"}


def packaged_app() -> Path | None:
    """Returns the folder of the packaged chat; None if the relay was built without it."""
    folder = Path(str(resources.files("clasp_relay") / "web"))
    return folder if (folder / PAGE).is_file() else None


def is_known(request: IRequest, etag: bytes) -> bool:
    """Tells whether If-None-Match has an ETag, so that the client has the file (RFC 9110 §13.1.2)."""
    lines = request.requestHeaders.getRawHeaders(b"if-none-match") or []
    tags = [tag.strip().removeprefix(b"W/") for line in lines for tag in line.split(b",")]
    return b"*" in tags or etag in tags


def security_headers(connect_to: Iterable[str] = ()) -> dict[bytes, bytes]:
    """Returns the security headers of a page, which may load from and connect to its own origin only.

    Args:
        connect_to: other origins that it may connect to, such as an auth API on another host.
    """
    policy = {
        "default-src": "'self'",
        "img-src": "'self' data: blob:",
        "media-src": "'self' blob:",
        "connect-src": " ".join(("'self'", *connect_to)),
        "worker-src": "'self' blob:",
        "object-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    text = "; ".join(f"{name} {sources}" for name, sources in policy.items())
    # Calls use the first three; documents that the page embeds may not.
    allowed = [f"{name}=(self)" for name in ("camera", "microphone", "display-capture")]
    denied = [f"{name}=()" for name in ("geolocation", "payment", "usb")]
    return {
        b"Content-Security-Policy": text.encode(),
        b"X-Content-Type-Options": b"nosniff",
        b"Referrer-Policy": b"no-referrer",
        b"Cross-Origin-Opener-Policy": b"same-origin",
        b"Permissions-Policy": ", ".join((*allowed, *denied)).encode(),
    }


class WebRoot(Resource):
    """Serves a folder; any path that is no file there is a route, and gets the app's page, or that of the console.

    Clients that accept gzip get ``file.gz`` if there is one.

    Args:
        folder: the built app; must hold ``index.html``.

    Raises:
        StartError: the folder has no ``index.html``.
    """

    def __init__(self, folder: Path) -> None:
        Resource.__init__(self)
        if not (folder / PAGE).is_file():
            raise StartError(f"--web-root: {folder} has no {PAGE}; give the folder of a built app, or none")
        self._folder: Any = FilePath(str(folder))
        self._headers = security_headers()
        self._tags: dict[tuple[str, int, int], bytes] = {}
        """ETags by path, time and size."""

    def getChild(self, path: bytes, request: IRequest) -> Resource:  # noqa: ARG002, N802 - Twisted's
        """Returns the resource for every path that is not put below this one by name."""
        return _Leaf(self)

    def render_GET(self, request: IRequest) -> Any:  # noqa: N802 - Twisted's
        """Serves a file, or the page."""
        for name, value in self._headers.items():
            request.responseHeaders.setRawHeaders(name, [value])
        names = [name.decode("utf-8", "replace") for name in (*request.prepath, *request.postpath)]
        path = self._find([name for name in names if name]) if "\0" not in "".join(names) else None
        if path is None:
            request.setResponseCode(HTTPStatus.NOT_FOUND)
            request.responseHeaders.setRawHeaders(b"Content-Type", [b"text/plain; charset=utf-8"])
            return with_length(request, _NOT_FOUND)
        is_forever = _HASHED.search(path.basename()) is not None
        request.responseHeaders.setRawHeaders(b"Cache-Control", [_FOREVER if is_forever else _ASK_AGAIN])
        file = _file(request, path)
        etag = self._etag(file.path)
        request.responseHeaders.setRawHeaders(b"ETag", [etag])
        if is_known(request, etag):
            request.setResponseCode(HTTPStatus.NOT_MODIFIED.value)
            return b""
        # All files of a package may have the same time, also in another version of the package.
        request.requestHeaders.removeHeader(b"If-Modified-Since")
        ranges = request.requestHeaders.getRawHeaders(b"Range") or []
        is_whole = len(ranges) != 1 or _ONE_RANGE.fullmatch(ranges[0]) is None
        if is_whole or request.getHeader(b"if-range") not in (None, etag):
            request.requestHeaders.removeHeader(b"Range")
        return file.render_GET(request)

    def _etag(self, path: str) -> bytes:
        """Returns the ETag of a file, from its contents if it has at most ``_HASHED_BYTES``."""
        found = os.stat(path)
        key = path, found.st_mtime_ns, found.st_size
        etag = self._tags.get(key)
        if etag is None:
            size = found.st_size
            text = f"{size:x}-{found.st_mtime_ns:x}"
            if size <= _HASHED_BYTES:
                text = sha256(Path(path).read_bytes()).hexdigest()[:32]
            if len(self._tags) >= _MAX_TAGS:
                self._tags.clear()
            etag = self._tags[key] = f'"{text}"'.encode()
        return etag

    def _find(self, names: list[str]) -> Any:
        try:
            path = self._folder.descendant(names)
        except (InsecurePath, ValueError):
            return None
        if names and path.isfile():
            return path
        # A route has no extension; a missing script or picture gets no page.
        if names and "." in names[-1]:
            return None
        console = self._folder.child(_CONSOLE_PAGE)
        is_console = names[:1] == [_CONSOLE] and console.isfile()
        return console if is_console else self._folder.child(PAGE)


class _Leaf(Resource):
    isLeaf = True  # noqa: N815 - Twisted's

    def __init__(self, root: WebRoot) -> None:
        Resource.__init__(self)
        self.render_GET = root.render_GET


def _file(request: IRequest, path: Any) -> File:
    content_type, _ = getTypeAndEncoding(path.basename(), _TYPES, {}, "application/octet-stream")
    if content_type.startswith("text/"):
        content_type += "; charset=utf-8"
    request.responseHeaders.addRawHeader(b"Vary", b"Accept-Encoding")
    packed = path.siblingExtension(".gz")
    accepted = request.getHeader(b"accept-encoding") or b""
    use_packed = b"gzip" in accepted and packed.isfile()
    file = File((packed if use_packed else path).path)
    file.type, file.encoding = content_type, "gzip" if use_packed else None
    return file
