"""Reads JSON requests and writes JSON responses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from io import SEEK_END
from math import ceil
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from clasp_relay.access.refusals import BadInput, Busy
from clasp_relay.http.cors import Origins, set_cors_headers
from clasp_relay.http.site import MAX_BODY_BYTES
from clasp_relay.logs import events

__all__ = [
    "NOT_FOUND",
    "AnsweredLater",
    "NotFound",
    "answer",
    "bearer_of",
    "has_body",
    "is_too_large",
    "optional_text",
    "read_object",
    "refuse",
    "required_text",
    "with_length",
]

JsonObject = Mapping[str, Any]

NOT_FOUND = "There is nothing here."
"""The sentence in the answer for a path that does not exist."""


def is_too_large(request: IRequest) -> bool:
    """Tells whether a request's body is longer than ``MAX_BODY_BYTES``."""
    content = request.content
    if content is None:
        return False
    size_bytes = content.seek(0, SEEK_END)
    content.seek(0)
    return bool(size_bytes > MAX_BODY_BYTES)


def has_body(request: IRequest) -> bool:
    """Tells whether a request has a body that is neither empty nor a JSON null, which some clients send."""
    content = request.content
    if content is None:
        return False
    text = content.read()
    content.seek(0)
    return text.strip() not in (b"", b"null")


def read_object(request: IRequest) -> JsonObject:
    """Returns the JSON object in a request's body.

    Raises:
        BadInput: it is no JSON object in UTF-8.
    """
    body = b"" if request.content is None else request.content.read()
    try:
        parsed = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise BadInput("The body is not valid JSON.") from None
    if not isinstance(parsed, dict):
        raise BadInput("The body is not a JSON object.")
    return parsed


def required_text(body: JsonObject, key: str) -> str:
    """Returns a required string.

    Raises:
        BadInput: it is missing, or no string.
    """
    text = optional_text(body, key)
    if text is None:
        raise BadInput(f"«{key}» is missing.")
    return text


def optional_text(body: JsonObject, key: str) -> str | None:
    """Returns an optional string; None when it is missing or null.

    Raises:
        BadInput: it is no string, or no valid text, such as half a surrogate pair.
    """
    text = body.get(key)
    if text is None:
        return None
    if not isinstance(text, str):
        raise BadInput(f"«{key}» is not a string.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput(f"«{key}» is not valid text.") from None
    return text


def bearer_of(request: IRequest) -> str | None:
    """Returns the token in the Authorization header (RFC 6750 §2.1); None when there is none."""
    header = request.getHeader(b"authorization")
    if header is None:
        return None
    scheme, _, token = header.decode("utf-8", "replace").strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def with_length(request: IRequest, body: bytes) -> bytes:
    """Sets Content-Length, and returns the body; nothing for HEAD, since Twisted would log a warning."""
    request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
    return b"" if request.method == b"HEAD" else body


def answer(request: IRequest, status: HTTPStatus, body: Mapping[str, object] | Sequence[object]) -> bytes:
    """Returns the bytes of an answer, and sets status and headers for them.

    Caches must not store it, since it may contain a token.
    """
    text = json.dumps(body, ensure_ascii=False).encode("utf-8")
    request.setResponseCode(status.value, status.phrase.encode("ascii"))
    headers = request.responseHeaders
    headers.setRawHeaders(b"Content-Type", [b"application/json"])
    headers.setRawHeaders(b"Cache-Control", [b"no-store"])
    headers.setRawHeaders(b"X-Content-Type-Options", [b"nosniff"])
    return with_length(request, text)


def refuse(request: IRequest, status: HTTPStatus, sentence: str, retry_after_s: float | None = None) -> bytes:
    """Returns the bytes of an error, and sets status and headers for them.

    Args:
        request: the request that is answered.
        status: 4xx or 5xx.
        sentence: what is wrong and what to do about it.
        retry_after_s: seconds after which another try makes sense.
    """
    if retry_after_s is not None:
        request.responseHeaders.setRawHeaders(b"Retry-After", [b"%d" % max(1, ceil(retry_after_s))])
    if status is HTTPStatus.UNAUTHORIZED:
        request.responseHeaders.setRawHeaders(b"WWW-Authenticate", [b"Bearer"])
    return answer(request, status, {"error": sentence})


class NotFound(Resource):
    """Answers 404 to every request to its path and below it."""

    def __init__(self) -> None:
        Resource.__init__(self)

    def getChild(self, path: bytes, request: IRequest) -> Resource:  # noqa: ARG002, N802 - Twisted's
        """Returns itself, for all paths below."""
        return self

    def render(self, request: IRequest) -> bytes:
        """Answers."""
        return refuse(request, HTTPStatus.NOT_FOUND, NOT_FOUND)


class AnsweredLater(Resource):
    """Answers a request after a Deferred has fired.

    Args:
        waits: the Deferred.
        find: returns the resource that answers then.
        origins: the origins whose pages may read an error.
    """

    isLeaf = True  # noqa: N815 - Twisted's

    def __init__(self, waits: Deferred[None], find: Callable[[Any], Any], origins: Origins) -> None:
        Resource.__init__(self)
        self._waits = waits
        self._find = find
        self._origins = origins

    def render(self, request: Any) -> Any:
        """Waits, then answers; does nothing if the client is gone by then."""
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)

        def go_on(_: None) -> None:
            if gone:
                return
            connection = request.channel
            request.render(self._find(request))
            if connection.transport is None:
                # A WebSocket took it over, of which a connection notices nothing outside ``allContentReceived``.
                connection.handed_over()

        def refused(failure: Failure) -> None:
            failure.trap(Busy)
            busy = failure.value
            assert isinstance(busy, Busy), "trapped something else"
            if not gone:
                set_cors_headers(request, self._origins)
                request.write(refuse(request, HTTPStatus.SERVICE_UNAVAILABLE, busy.sentence, busy.retry_after_s))
                request.finish()

        def failed(failure: Failure) -> None:
            if gone or request.finished:
                events.AUTH_FAULT.failure(failure)
            else:
                request.processingFailed(failure)

        self._waits.addCallbacks(go_on, refused).addErrback(failed)
        return NOT_DONE_YET
