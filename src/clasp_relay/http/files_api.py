"""``/files``: files that users send to each other (``access.files``, ``docs/openapi.yaml``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from clasp_relay.access.addresses import ClientAddresses
from clasp_relay.access.files import FileReading, Files, Upload, UploadCut, refusal_of
from clasp_relay.access.refusals import BadInput, Later, Missing, Refusal, Unauthenticated
from clasp_relay.http.auth_api import STATUS, request_address
from clasp_relay.http.connections import BODY_TIMEOUT_S
from clasp_relay.http.cors import Origins, set_cors_headers
from clasp_relay.http.json_answers import NOT_FOUND, answer, bearer_of, refuse
from clasp_relay.http.params_api import answer_method
from clasp_relay.http.site import MAX_DRAINED_BYTES, PACE_BYTES, Body, BoundedRequest
from clasp_relay.http.web_root import is_known
from clasp_relay.logs import events
from clasp_relay.storage.files import StoredFile

__all__ = ["FilesApi", "make_files_resource", "range_of"]

LEAST_BYTES_A_SECOND = 16 * 1024
"""The slowest upload that is accepted: a mebibyte may take 64 s, and a minute more."""

SENT_BYTES = 128 * 1024
"""Bytes that are read from the disk and written at once."""

_RANGE = re.compile(rb"bytes=([0-9]{0,18})-([0-9]{0,18})")
_NO_LENGTH = "Say how long the file is, in Content-Length."
_FAULT = "The relay has a problem. Try again later."


class ByteRange(NamedTuple):
    """A part of a file."""

    start: int
    end: int
    """The offset after its last byte."""


def range_of(header: bytes | None, size_bytes: int) -> ByteRange | None:
    """Returns the part of a file that a Range header asks for (RFC 9110 §14).

    Args:
        header: the header's value; None for none.
        size_bytes: the file's length.

    Returns:
        the part; empty if the file has no byte of it; None for the whole file, also if the header is not one range.
    """
    found = None if header is None else _RANGE.fullmatch(header.strip())
    if found is None:
        return None
    first, last = found.groups()
    if not first:
        return None if not last else ByteRange(max(0, size_bytes - int(last)), size_bytes)
    start = int(first)
    end = min(int(last) + 1, size_bytes) if last else size_bytes
    if last and int(last) < start:
        return None
    return ByteRange(start, end) if start < size_bytes else ByteRange(size_bytes, size_bytes)


class RefusedBody:
    """The body of an upload that is refused: it is read and discarded, so that the client can read the answer.

    Args:
        error: the reason.
        max_bytes: the most bytes of it that are read.
    """

    patience_s = None

    def __init__(self, error: Refusal, max_bytes: int) -> None:
        # A traceback has the frames of the request, which has this body.
        self._error: Refusal | None = error.with_traceback(None)
        self.max_bytes = max_bytes

    def take_error(self) -> Refusal:
        """Returns the reason, and lets go of it; may be called once."""
        error, self._error = self._error, None
        assert error is not None, "answered twice"
        return error

    def when_room(self, call: Callable[[], None]) -> None:
        """Does nothing: there is always room, since bytes are discarded."""

    def write(self, data: bytes) -> bool:  # noqa: ARG002 - it is discarded
        """Discards bytes."""
        return True

    def abort(self) -> None:
        """Does nothing."""


def _patience_s(length: int) -> float:
    """Returns in how many seconds each ``PACE_BYTES`` of a body of that length have to arrive."""
    return BODY_TIMEOUT_S + min(length, PACE_BYTES) / LEAST_BYTES_A_SECOND


class ArrivingBody:
    """The body of an upload.

    Args:
        upload: the upload that gets its bytes.
    """

    def __init__(self, upload: Upload) -> None:
        self.upload = upload
        self.patience_s = _patience_s(upload.length)
        self.max_bytes = upload.length

    def when_room(self, call: Callable[[], None]) -> None:
        """See ``Body``."""
        self.upload.room = call

    def write(self, data: bytes) -> bool:
        """See ``Body``."""
        return self.upload.write(data)

    def abort(self) -> None:
        """See ``Body``."""
        self.upload.abort()


class LateBody:
    """The body of an upload whose token is not known yet; nothing more of it is read until that is known or refused.

    Args:
        waits: fires when the token is known, or is certain not to exist; fails with a ``Refusal``.
        begin: returns the body that gets the bytes then.
        length: its length in bytes.
    """

    def __init__(self, waits: Deferred[None], begin: Callable[[], ArrivingBody | RefusedBody], length: int) -> None:
        self.patience_s = _patience_s(length)
        self.max_bytes = length
        self._begin: Callable[[], ArrivingBody | RefusedBody] | None = begin
        self._room: Callable[[], None] = _nothing
        self._kept = b""
        """The first bytes; after them the connection is not read."""
        self._body: ArrivingBody | RefusedBody | None = None
        self._is_gone = False
        self._found: Deferred[ArrivingBody | RefusedBody] = Deferred()
        waits.addCallbacks(self._known, self._refuse).addErrback(events.FILES_FAULT.failure)

    @property
    def found(self) -> Deferred[ArrivingBody | RefusedBody]:
        """Fires with the body that gets the bytes; to be waited for once."""
        return self._found

    def when_room(self, call: Callable[[], None]) -> None:
        """See ``Body``."""
        self._room = call
        if self._body is not None:
            self._body.when_room(call)

    def write(self, data: bytes) -> bool:
        """See ``Body``."""
        if self._body is not None:
            return self._body.write(data)
        self._kept += data
        return False

    def abort(self) -> None:
        """See ``Body``."""
        self._is_gone = True
        if self._body is not None:
            self._body.abort()

    def _known(self, _: None) -> None:
        begin = self._begin
        assert begin is not None, "begun twice"
        self._take(RefusedBody(Missing(NOT_FOUND), self.max_bytes) if self._is_gone else begin())

    def _refuse(self, failure: Failure) -> None:
        failure.trap(Refusal)
        refusal = failure.value
        assert isinstance(refusal, Refusal), "trapped something else"
        self._take(RefusedBody(refusal, self.max_bytes))

    def _take(self, body: ArrivingBody | RefusedBody) -> None:
        self._body = body
        # It refers to the request, which has this body: without this a reference cycle would stay.
        self._begin = None
        body.when_room(self._room)
        kept, self._kept = self._kept, b""
        if not kept or body.write(kept):
            self._room()
        self._found.callback(body)


@implementer(IPushProducer)
class _Sending:
    """Sends a part of a file, as fast as the client and the disk are.

    Args:
        request: the request that is answered.
        reading: the file.
        part: the part.
    """

    def __init__(self, request: Any, reading: FileReading, part: ByteRange) -> None:
        self._request = request
        self._reading = reading
        self._next, self._end = part
        self._is_paused = self._is_stopped = False
        self._is_reading = False

    def begin(self) -> None:
        """Begins to send."""
        self._request.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        """Pauses: the client does not read."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Goes on: the client reads."""
        self._is_paused = False
        if not self._is_reading and not self._is_stopped:
            self._is_reading = True
            Deferred.fromCoroutine(self._send()).addErrback(self._fail)

    def stopProducing(self) -> None:
        """Ends: the client is gone."""
        if not self._is_stopped:
            self._is_stopped = True
            # The request has this object as its producer: without this a reference cycle would stay.
            self._request = None
            if not self._is_reading:
                self._reading.close()

    async def _send(self) -> None:
        while not self._is_stopped and not self._is_paused and self._next < self._end:
            data = await self._reading.read(self._next, min(SENT_BYTES, self._end - self._next))
            if not data:
                raise OSError(f"{self._reading.record.id} is shorter than its record says")
            self._next += len(data)
            if not self._is_stopped:
                self._request.write(data)
        self._is_reading = False
        if self._is_stopped:
            self._reading.close()
        elif self._next >= self._end:
            self._is_stopped = True
            self._reading.close()
            self._request.unregisterProducer()
            self._request.finish()

    def _fail(self, failure: Failure) -> None:
        """Aborts the connection: the client can notice the failure only by a body that ends early."""
        self._is_reading = False
        is_told = self._is_stopped
        self._is_stopped = True
        self._reading.close()
        if failure.check(Refusal) is None:
            events.FILES_FAULT.failure(failure)
        if not is_told:
            self._request.unregisterProducer()
            self._request.channel.abort()


class FilesApi(Resource):
    """Everything below ``/files``.

    Args:
        files: the files.
        origins: the origins whose pages may read the answers.
        addresses: finds the clients' addresses.
    """

    isLeaf = True  # noqa: N815 - Twisted's

    def __init__(self, files: Files, origins: Origins, addresses: ClientAddresses) -> None:
        Resource.__init__(self)
        self._files = files
        self._origins = origins
        self._addresses = addresses
        self.until_known: Callable[[str | None], Deferred[None] | None] = _known
        """Returns a Deferred to wait for before a token is looked up that is not known yet; None for no wait.

        In a cluster another relay may have issued the token just now."""

    def open_body(self, request: BoundedRequest, method: bytes, path: bytes, length: int | None) -> Body | None:
        """Returns the body of an upload; see ``site.OpenBody``."""
        if method != b"POST" or path.partition(b"?")[0] != b"/files":
            return None
        waits = None if length is None else self.until_known(bearer_of(request))
        if waits is None or length is None:
            return self._begin(request, length)
        return LateBody(waits, lambda: self._begin(request, length), length)

    def _begin(self, request: BoundedRequest, length: int | None) -> ArrivingBody | RefusedBody:
        try:
            if length is None:
                raise _LengthMissing(_NO_LENGTH)
            upload = self._files.begin(bearer_of(request), request_address(request, self._addresses), length)
        except Unauthenticated as refusal:
            return RefusedBody(refusal, MAX_DRAINED_BYTES)
        except Refusal as refusal:
            return RefusedBody(refusal, self._files.quotas.limits.file + MAX_DRAINED_BYTES)
        return ArrivingBody(upload)

    def render(self, request: Any) -> Any:
        """Answers a request after its work is done."""
        set_cors_headers(request, self._origins)
        names = [name.decode("utf-8", "replace") for name in request.postpath]
        method = request.method.decode("ascii", "replace")
        if not names:
            if method != "POST":
                return answer_method(request, method, ("POST",))
            return _run(request, self._post(request))
        if len(names) != 1 or not names[0]:
            return refuse(request, HTTPStatus.NOT_FOUND, NOT_FOUND)
        match method:
            case "GET" | "HEAD":
                return _run(request, self._get(request, names[0], method))
            case "DELETE":
                return _run(request, self._delete(request, names[0]))
        return answer_method(request, method, ("DELETE", "GET", "HEAD"))

    async def _post(self, request: Any) -> bytes | None:
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        body = request.body
        if isinstance(body, LateBody):
            body = await body.found
        if isinstance(body, RefusedBody):
            # Not raised: the traceback would have the frames of this request, and they have the refusal.
            return _answer_refusal(body.take_error(), request)
        if not isinstance(body, ArrivingBody):
            raise Missing(NOT_FOUND)  # the path is /files in another spelling, so no ``Body`` has the body
        record = await body.upload.finish()
        if gone:
            await self._files.forget(record)
            return None
        request.responseHeaders.setRawHeaders(b"Location", [f"/files/{record.id}".encode()])
        return answer(request, HTTPStatus.CREATED, {"id": record.id, "size": record.size})

    async def _get(self, request: Any, file_id: str, method: str) -> bytes | None:
        bearer = bearer_of(request)
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)  # before any wait: a later call would miss the end
        file = await self._files.find(bearer, file_id)
        if gone:
            return None
        _set_headers(request, file)
        etag = _etag(file)
        if is_known(request, etag):
            request.setResponseCode(HTTPStatus.NOT_MODIFIED.value)
            return b""
        wanted = request.getHeader(b"if-range")
        part = range_of(request.getHeader(b"range") if wanted in (None, etag) else None, file.size)
        headers = request.responseHeaders
        if part is not None and part.start >= part.end:
            headers.setRawHeaders(b"Content-Range", [b"bytes */%d" % file.size])
            return refuse(request, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "The file is shorter than that.")
        if part is not None:
            request.setResponseCode(HTTPStatus.PARTIAL_CONTENT.value)
            headers.setRawHeaders(b"Content-Range", [b"bytes %d-%d/%d" % (part.start, part.end - 1, file.size)])
        part = part or ByteRange(0, file.size)
        headers.setRawHeaders(b"Content-Length", [b"%d" % (part.end - part.start)])
        if method == "HEAD":
            return b""
        reading = await self._files.open(bearer, request_address(request, self._addresses), file)
        if gone:
            reading.close()
            return None
        sending = _Sending(request, reading, part)
        request.notifyFinish().addErrback(lambda _: sending.stopProducing())
        sending.begin()
        return None

    async def _delete(self, request: Any, file_id: str) -> bytes:
        await self._files.remove(bearer_of(request), file_id)
        return answer(request, HTTPStatus.OK, {})


class _LengthMissing(BadInput):
    """There is no Content-Length."""


def make_files_resource(files: Files, *, origins: Origins, addresses: ClientAddresses) -> FilesApi:
    """Returns the resource for ``files`` below a site's root; the site has to call its ``open_body``, too.

    Args:
        files: the files.
        origins: the origins whose pages may read the answers.
        addresses: finds the clients' addresses.
    """
    return FilesApi(files, origins, addresses)


def _nothing() -> None:
    """Does nothing."""


def _known(_bearer: str | None) -> None:
    """Returns None: without a cluster a relay knows all tokens."""


def _run(request: Any, work: Coroutine[Any, Any, bytes | None]) -> int:
    """Answers with the bytes that a coroutine returns; None if it has answered already."""
    gone: list[Failure] = []
    request.notifyFinish().addErrback(gone.append)
    done = Deferred.fromCoroutine(work).addErrback(_refuse, request)
    done.addCallback(lambda body: None if gone or body is None else _finish(request, body))
    return NOT_DONE_YET


def _refuse(failure: Failure, request: IRequest) -> bytes | None:
    """Answers a failure."""
    if failure.check(UploadCut) is not None:
        return None
    for name in (b"ETag", b"Accept-Ranges", b"Content-Disposition", b"Content-Range"):
        request.responseHeaders.removeHeader(name)
    refusal = refusal_of(failure.value)
    if refusal is not None:
        return _answer_refusal(refusal, request)
    events.FILES_FAULT.failure(failure)
    return refuse(request, HTTPStatus.INTERNAL_SERVER_ERROR, _FAULT)


def _answer_refusal(refusal: Refusal, request: IRequest) -> bytes:
    if isinstance(refusal, _LengthMissing):
        return refuse(request, HTTPStatus.LENGTH_REQUIRED, refusal.sentence)
    retry_after_s = refusal.retry_after_s if isinstance(refusal, Later) else None
    return refuse(request, STATUS[type(refusal)], refusal.sentence, retry_after_s)


def _set_headers(request: IRequest, file: StoredFile) -> None:
    """Sets headers by which browsers download the bytes, and never show or run them, since any user may send them."""
    for name, value in (
        (b"Content-Type", b"application/octet-stream"),
        (b"Content-Disposition", b"attachment"),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Content-Security-Policy", b"sandbox; default-src 'none'"),
        (b"Cross-Origin-Resource-Policy", b"cross-origin"),
        (b"Referrer-Policy", b"no-referrer"),
        (b"Cache-Control", b"private, no-cache"),
        (b"Accept-Ranges", b"bytes"),
        (b"ETag", _etag(file)),
    ):
        request.responseHeaders.setRawHeaders(name, [value])


def _etag(file: StoredFile) -> bytes:
    """Returns the ETag of a file: its id, since a file never changes."""
    return f'"{file.id}"'.encode()


def _finish(request: Any, body: bytes) -> None:
    if body:
        request.write(body)
    request.finish()
