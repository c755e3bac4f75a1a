"""Params, events, bundles and event streams over HTTP, below ``/api`` (``docs/openapi.yaml``)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from clasp_relay.access.addresses import ClientAddresses
from clasp_relay.doors.door import RequestDoor
from clasp_relay.errors import DecodeError, ErrorCode, RequestError
from clasp_relay.http.api_sessions import ApiSessions
from clasp_relay.http.auth_api import request_address
from clasp_relay.http.cors import Origins, set_cors_headers
from clasp_relay.http.journal_api import PATHS, JournalApi
from clasp_relay.http.json_answers import NOT_FOUND, answer, bearer_of, is_too_large, refuse
from clasp_relay.http.stream_api import StreamApi
from clasp_relay.logs import events
from clasp_relay.wire.address import Pattern, check_address
from clasp_relay.wire.constants import MAX_JSON_MARKS
from clasp_relay.wire.cost import json_cost
from clasp_relay.wire.json_values import parse_json, value_from_json
from clasp_relay.wire.messages import NULL, Bundle, Get, Message, Publish, Set, Value
from clasp_relay.wire.values import encode_value

__all__ = ["LIST_METHODS", "METHODS", "STATUS", "answer_method", "make_params_resource", "refuse_code"]

STATUS: Mapping[int, HTTPStatus] = {
    ErrorCode.MESSAGE: HTTPStatus.BAD_REQUEST,
    ErrorCode.ADDRESS: HTTPStatus.BAD_REQUEST,
    ErrorCode.PATTERN: HTTPStatus.BAD_REQUEST,
    ErrorCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    ErrorCode.TOKEN_EXPIRED: HTTPStatus.UNAUTHORIZED,
    ErrorCode.SCOPE: HTTPStatus.FORBIDDEN,
    ErrorCode.POLICY: HTTPStatus.FORBIDDEN,
    ErrorCode.CONFLICT: HTTPStatus.PRECONDITION_FAILED,
    ErrorCode.LOCKED: HTTPStatus.CONFLICT,
    ErrorCode.VALUE: HTTPStatus.BAD_REQUEST,
    ErrorCode.NO_TARGET: HTTPStatus.NOT_FOUND,
    ErrorCode.LIMIT: HTTPStatus.TOO_MANY_REQUESTS,
    ErrorCode.NOT_CONFIGURED: HTTPStatus.NOT_IMPLEMENTED,
    ErrorCode.OVERLOADED: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""The HTTP status of each ERROR that a message may get; 500 for any other."""

_ANSWERS = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED})
_RETRY_AFTER_S = {HTTPStatus.TOO_MANY_REQUESTS: 1.0, HTTPStatus.SERVICE_UNAVAILABLE: 5.0}
_ETAG = re.compile(r'"([0-9]{1,10})"')
_LONGEST_TTL_S = 0x7FFF_FFFF
_LATEST_US = (1 << 63) - 1
METHODS = {
    "params": ("DELETE", "GET", "HEAD", "PUT"),
    "events": ("POST",),
    "bundle": ("POST",),
    "stream": ("GET",),
    "journal": ("GET", "HEAD"),
}
"""The methods of paths, by the first segment below ``/api``."""

_WITHOUT_ADDRESS = frozenset({"bundle", "stream"})

LIST_METHODS = ("GET", "HEAD")
"""The methods of ``/api/params`` itself."""

LIST_LIMIT = 1_000
MAX_LIST_LIMIT = 10_000
"""The most params of a list: the default, and the most that a request may ask for."""

Ask = Callable[[Message], Deferred[dict[str, Any]]]


class _ParamsResource(Resource):
    """Everything below ``/api``."""

    isLeaf = True  # noqa: N815 - Twisted's

    def __init__(
        self,
        sessions: ApiSessions,
        streams: StreamApi,
        origins: Origins,
        addresses: ClientAddresses,
        journal: JournalApi,
        door: RequestDoor,
        admin: IResource | None,
    ) -> None:
        Resource.__init__(self)
        self._door = door
        self._admin = admin
        self._journal = journal
        self._sessions = sessions
        self._streams = streams
        self._origins = origins
        self._addresses = addresses

    def render(self, request: Any) -> Any:
        """Answers a request after the core has answered."""
        if self._admin is not None and request.postpath[:1] == [b"admin"]:
            return self._admin.render(request)
        set_cors_headers(request, self._origins)
        if is_too_large(request):
            return refuse(request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too large.")
        kind = request.postpath[0].decode("utf-8", "replace") if request.postpath else ""
        methods = METHODS.get(kind)
        is_bare = len(request.postpath) == 1
        if kind == "params" and is_bare:
            methods = LIST_METHODS
        elif methods is None or (kind in _WITHOUT_ADDRESS) != is_bare:
            return refuse(request, HTTPStatus.NOT_FOUND, NOT_FOUND)
        if kind == "journal" and (len(request.postpath) != 2 or request.postpath[1].decode("latin-1") not in PATHS):
            return refuse(request, HTTPStatus.NOT_FOUND, NOT_FOUND)
        method = request.method.decode("ascii", "replace")
        if method not in methods:
            return answer_method(request, method, methods)
        if kind == "stream":
            return self._stream(request)
        self._door.came()
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        done = maybeDeferred(self._handle, request, kind, method)
        done.addErrback(_refuse, request)
        done.addCallback(self._note, request)
        done.addCallback(lambda body: None if gone else _finish(request, body))
        return NOT_DONE_YET

    def _note(self, body: bytes, request: Any) -> bytes:
        """Counts a refused request; that nothing is set, or that the revision is another one, is no refusal."""
        if request.code >= HTTPStatus.BAD_REQUEST and request.code not in _ANSWERS:
            reason = json.loads(body)["error"] if body else HTTPStatus(request.code).phrase
            self._door.refused(request_address(request, self._addresses), reason)
        return body

    def _stream(self, request: Any) -> Any:
        waits = self._streams.when_known(request)
        if waits is None:
            return self._open_stream(request)
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        waits.addCallback(lambda _: None if gone else self._open_stream(request))
        waits.addErrback(_refuse, request)
        waits.addCallback(lambda body: _finish(request, body) if isinstance(body, bytes) and not gone else None)
        waits.addErrback(events.AUTH_FAULT.failure)
        return NOT_DONE_YET

    def _open_stream(self, request: IRequest) -> Any:
        try:
            self._streams.open(request, request_address(request, self._addresses))
        except RequestError as refusal:
            return refuse_code(request, refusal.code, refusal.message)
        return NOT_DONE_YET

    def _handle(self, request: IRequest, kind: str, method: str) -> Deferred[bytes]:
        client = request_address(request, self._addresses)
        if kind == "journal":
            path = request.postpath[1].decode("latin-1")
            asked = self._journal.handle(path, request.args, bearer_of(request), client)
            return asked.addCallback(lambda told: answer(request, HTTPStatus.OK, told))
        if kind == "params" and len(request.postpath) == 1:
            listed = self._sessions.find(bearer_of(request), client, *_list_asked(request))
            return listed.addCallback(lambda told: _answer_list(request, told))
        self._sessions.pay(bearer_of(request), client, _reading_cost(request))
        message = _MAKERS[kind](request, method)
        asked = self._sessions.ask(bearer_of(request), client, message)
        return asked.addCallback(lambda told: _answer(request, method, message, told))


def make_params_resource(
    sessions: ApiSessions,
    streams: StreamApi,
    *,
    origins: Origins,
    addresses: ClientAddresses,
    journal: JournalApi,
    door: RequestDoor | None = None,
    admin: IResource | None = None,
) -> IResource:
    """Returns the resource for ``api`` below a site's root.

    Args:
        sessions: sends messages to the core.
        streams: begins event streams.
        journal: reads history.
        origins: the origins whose pages may read the answers.
        addresses: finds the clients' addresses.
        door: counts the requests, except for event streams, which have a door of their own; None for no counts.
        admin: the console's API; None for none.
    """
    return _ParamsResource(sessions, streams, origins, addresses, journal, door or RequestDoor("http"), admin)


def _list_asked(request: Any) -> tuple[Pattern, int, str]:
    """Returns pattern, limit, and the address after which the list begins."""
    try:
        pattern, limit, after = (
            request.args.get(name, [default])[0].decode("utf-8")
            for name, default in ((b"pattern", b"/**"), (b"limit", b"%d" % LIST_LIMIT), (b"after", b""))
        )
    except UnicodeDecodeError:
        raise DecodeError("the query is not UTF-8") from None
    if re.fullmatch("[0-9]{1,5}", limit) is None or not 1 <= int(limit) <= MAX_LIST_LIMIT:
        raise DecodeError(f"limit is no whole number from 1 to {MAX_LIST_LIMIT}")
    return Pattern.parse(pattern), int(limit), after


def _answer_list(request: IRequest, told: dict[str, Any]) -> bytes:
    if "error" in told:
        return refuse_code(request, told["code"], told["error"])
    return answer(request, HTTPStatus.OK, told)


def _param_message(request: IRequest, method: str) -> Message:
    address = _address(request)
    if method in ("GET", "HEAD"):
        return Get(address)
    revision = _expected_revision(request)
    if method == "DELETE":
        return Set(address, NULL, revision)
    return Set(address, _value(request, address), revision, ttl=_ttl(request))


def _event_message(request: IRequest, _method: str) -> Message:
    address = _address(request)
    data = _body(request)
    # A bundle, since it has an answer; a PUBLISH alone has none.
    return Bundle((Publish(address, value=_value(request, address) if data else None),))


def _bundle_message(request: IRequest, _method: str) -> Message:
    parsed = parse_json(_body(request), MAX_JSON_MARKS)
    members = parsed.get("messages") if isinstance(parsed, dict) else None
    if not isinstance(members, list) or not members or parsed.keys() - {"messages", "at"}:
        raise DecodeError('the body is not {"messages": [{"set" or "publish": address, "value": …}, …], "at": µs}')
    at_us = parsed.get("at")
    if at_us is not None and (type(at_us) is not int or not 0 <= at_us <= _LATEST_US):
        raise DecodeError("at is no Unix time in µs")
    return Bundle(tuple(_member(each, number) for number, each in enumerate(members)), at_us)


def _member(parsed: Any, number: int) -> Message:
    keys = parsed.keys() if isinstance(parsed, dict) else set()
    for kind in ("set", "publish"):
        if kind in keys and not keys - {kind, "value"} and isinstance(parsed[kind], str):
            address = parsed[kind]
            check_address(address)
            value = value_from_json(parsed.get("value"), address)
            return Set(address, value) if kind == "set" else Publish(address, value=value)
    raise DecodeError(f'messages[{number}] is not {{"set" or "publish": address, "value": …}}')


_MAKERS: Mapping[str, Callable[[IRequest, str], Message]] = {
    "params": _param_message,
    "events": _event_message,
    "bundle": _bundle_message,
}


def _address(request: IRequest) -> str:
    """Returns the address that the path names; its segments are percent-encoded each on its own."""
    segments = request.postpath[1:]
    try:
        texts = [segment.decode("utf-8") for segment in segments]
    except UnicodeDecodeError:
        raise RequestError(ErrorCode.ADDRESS, "the path is not UTF-8") from None
    if any("/" in text for text in texts):
        raise RequestError(ErrorCode.ADDRESS, "a segment of an address cannot hold a slash")
    address = "/" + "/".join(texts)
    check_address(address)
    return address


def _body(request: IRequest) -> bytes:
    if request.content is None:
        return b""
    request.content.seek(0)
    return bytes(request.content.read())


def _is_bytes(request: IRequest) -> bool:
    """Tells whether the body is a value of bytes, and not JSON."""
    content_type = (request.getHeader(b"content-type") or b"").partition(b";")[0].strip().lower()
    return bool(content_type == b"application/octet-stream")


def _reading_cost(request: IRequest) -> int:
    """Returns the cost of reading the body, in messages (``wire.cost``)."""
    return 0 if _is_bytes(request) else json_cost(_body(request))


def _value(request: IRequest, address: str) -> Value:
    data = _body(request)
    if _is_bytes(request):
        return encode_value(data)
    return value_from_json(parse_json(data, MAX_JSON_MARKS), address)


def _expected_revision(request: IRequest) -> int | None:
    header = request.getHeader(b"if-match")
    if header is None:
        return None
    found = _ETAG.fullmatch(header.decode("latin-1").strip())
    if found is None:
        raise DecodeError('If-Match is no revision in quotes, as ETag has it: "7"')
    return int(found[1])


def _ttl(request: IRequest) -> int | None:
    given = request.args.get(b"ttl")
    if not given:
        return None
    if re.fullmatch(rb"[0-9]{1,10}", given[0]) is None or int(given[0]) > _LONGEST_TTL_S:
        raise DecodeError(f"ttl is no whole number of seconds from 0 to {_LONGEST_TTL_S}")
    return int(given[0])


def _answer(request: IRequest, method: str, message: Message, told: dict[str, Any]) -> bytes:
    """Writes an answer of the core as an HTTP response."""
    if "error" in told:
        return refuse_code(request, told["code"], told["error"])
    if isinstance(message, Get):
        if told["revision"] == 0 or told["value"] is None:
            return refuse(request, HTTPStatus.NOT_FOUND, "Nothing is set there, or you may not see it.")
        return _with_etag(request, told)
    if isinstance(message, Bundle):
        is_event = request.postpath[0] == b"events"
        return answer(request, HTTPStatus.ACCEPTED if is_event else HTTPStatus.OK, {} if is_event else told)
    if method == "DELETE" or (isinstance(message, Set) and message.value == NULL):
        request.setResponseCode(HTTPStatus.NO_CONTENT)
        return b""
    return _with_etag(request, told)


def _with_etag(request: IRequest, told: dict[str, Any]) -> bytes:
    request.responseHeaders.setRawHeaders("ETag", [f'"{told["revision"]}"'])
    return answer(request, HTTPStatus.OK, told)


def refuse_code(request: IRequest, code: int, sentence: str) -> bytes:
    """Returns the bytes of a response for an ERROR."""
    status = STATUS.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)
    return refuse(request, status, sentence, _RETRY_AFTER_S.get(status))


def _refuse(failure: Failure, request: IRequest) -> bytes:
    """Answers errors that came before the message was sent to the core."""
    error = failure.value
    if isinstance(error, RequestError):
        return refuse_code(request, error.code, error.message)
    events.AUTH_FAULT.failure(failure)
    return refuse(request, HTTPStatus.INTERNAL_SERVER_ERROR, "The relay has a problem. Try again later.")


def _finish(request: IRequest, body: bytes) -> None:
    request.write(body)
    request.finish()


def answer_method(request: IRequest, method: str, methods: tuple[str, ...]) -> bytes:
    """Answers OPTIONS, or a method that a path does not have (RFC 9110 §15.5.6)."""
    allow = ", ".join(sorted({*methods, "OPTIONS"}))
    request.responseHeaders.setRawHeaders("Allow", [allow])
    if method == "OPTIONS":
        request.setResponseCode(HTTPStatus.NO_CONTENT)
        return b""
    return refuse(request, HTTPStatus.METHOD_NOT_ALLOWED, f"This path takes {allow}.")
