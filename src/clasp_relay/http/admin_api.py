"""The console's API below ``/api/admin`` (``docs/openapi.yaml``): admits calls, and finds the handler of each.

The calls are in ``admin_people``, ``admin_rooms``, ``admin_params`` and ``admin_state``, as tables of routes. A call is
admitted only by the token in its Authorization header; there are no cookies that another site's page could use.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from clasp_relay.access.addresses import ClientAddresses
from clasp_relay.access.audit import Audit
from clasp_relay.access.console import Administrator, Console
from clasp_relay.access.refusals import BadInput, Later, Refusal
from clasp_relay.errors import RequestError
from clasp_relay.http.auth_api import STATUS, request_address
from clasp_relay.http.cors import Origins, set_cors_headers
from clasp_relay.http.json_answers import (
    NOT_FOUND,
    answer,
    bearer_of,
    has_body,
    is_too_large,
    optional_text,
    read_object,
    refuse,
    required_text,
)
from clasp_relay.http.params_api import answer_method, refuse_code
from clasp_relay.logs import events

__all__ = ["TAKEN", "Call", "Route", "console_routes", "cursor", "make_admin_resource", "page"]

LIMIT = 50
MAX_LIMIT = 200
"""Items of a page: the default, and the most that a request may ask for."""

MAX_SEARCH = 100
"""Characters of a search."""

MAX_NUMBER = 1 << 53
"""The greatest number in a cursor: JavaScript has no greater exact integers, and SQLite none from 2^63 on."""

TAKEN = object()
"""The result of a handler that writes the answer itself."""

_CAPTURE = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Call:
    """One request of an administrator.

    Args:
        request: the request.
        who: the administrator.
        address: the client's.
        names: the segments of the path by their names in the route.
    """

    request: Any
    who: Administrator
    address: str
    names: Mapping[str, str]

    def body(self) -> Mapping[str, Any]:
        """Returns the body; an empty object if there is none.

        Raises:
            BadInput: it is no JSON object.
        """
        if not has_body(self.request):
            return {}
        parsed = read_object(self.request)
        self.request.content.seek(0)
        return parsed

    def text(self, name: str) -> str:
        """Returns a string of the body.

        Raises:
            BadInput: it is missing, or no string.
        """
        return required_text(self.body(), name)

    def optional(self, name: str) -> str | None:
        """Returns a string of the body; None if it is missing.

        Raises:
            BadInput: it is no string.
        """
        return optional_text(self.body(), name)

    def query(self, name: str, default: str = "") -> str:
        """Returns a value of the query.

        Raises:
            BadInput: it is not UTF-8.
        """
        given = self.request.args.get(name.encode())
        if not given:
            return default
        try:
            return str(given[0], "utf-8")
        except UnicodeDecodeError:
            raise BadInput("The query is not UTF-8.") from None

    def search(self) -> str:
        """Returns the text that is searched for.

        Raises:
            BadInput: it is too long.
        """
        text = self.query("search").strip()
        if len(text) > MAX_SEARCH:
            raise BadInput(f"A search has at most {MAX_SEARCH} characters.")
        return text

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """Returns a value of the query that must be one of some choices; the first choice if it is missing.

        Raises:
            BadInput: it is none of them.
        """
        text = self.query(name, choices[0])
        if text not in choices:
            raise BadInput(f"«{name}» is none of {', '.join(choices)}.")
        return text

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        """Returns a whole number of the query.

        Raises:
            BadInput: it is no whole number within the bounds.
        """
        text = self.query(name, str(default))
        if re.fullmatch("[0-9]{1,16}", text) is None or not least <= int(text) <= most:
            raise BadInput(f"«{name}» is no whole number from {least} to {most}.")
        return int(text)

    def limit(self) -> int:
        """Returns the most items that the page may have.

        Raises:
            BadInput: it is no whole number up to ``MAX_LIMIT``.
        """
        return self.whole("limit", LIMIT, 1, MAX_LIMIT)

    def after(self, *kinds: type) -> list[Any] | None:
        """Returns the cursor of the request, as it was given to ``page``; None at the beginning.

        Args:
            kinds: the types of the cursor's parts; none for any number of strings.

        Raises:
            BadInput: it is no cursor of this API.
        """
        text = self.query("after")
        if not text:
            return None
        try:
            parts = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        except (binascii.Error, ValueError, RecursionError):
            parts = None
        wanted = kinds or (str,) * (len(parts) if isinstance(parts, list) else 0)
        if not isinstance(parts, list) or len(parts) != len(wanted) or not all(map(_is_place, parts, wanted)):
            raise BadInput("«after» is not the «next» of another page.")
        return parts


Handle = Callable[[Call], Coroutine[Any, Any, object]]
"""Handles a call: returns an answer that ``json.dumps`` takes, or ``TAKEN``. May raise a Refusal or a RequestError."""


@dataclass(frozen=True, slots=True)
class Route:
    """A call of the API.

    Args:
        method: the HTTP method.
        path: the path below ``/api/admin``, with names in braces.
        handle: the handler.
    """

    method: str
    path: str
    handle: Handle

    @property
    def pattern(self) -> re.Pattern[str]:
        """Matches paths of the route; a name stands for one segment."""
        return re.compile(_CAPTURE.sub(r"(?P<\1>[^/]+)", re.escape(self.path).replace(r"\{", "{").replace(r"\}", "}")))


def _is_place(part: object, kind: type) -> bool:
    """Tells whether a part of a cursor may come from this API: a text, or a number up to ``MAX_NUMBER``."""
    if type(part) is not kind:
        return False
    if isinstance(part, str):
        return not any("\ud800" <= each <= "\udfff" for each in part)
    return not isinstance(part, int) or 0 <= part <= MAX_NUMBER


def page(items: Sequence[object], following: Sequence[object] | None) -> dict[str, object]:
    """Returns a page of a list.

    Args:
        items: its items.
        following: the cursor of the next page; None at the end.
    """
    return {"items": items, "next": None if following is None else cursor(following)}


def cursor(parts: Sequence[object]) -> str:
    """Returns a cursor, a position in a list, as a text that needs no escaping in a query."""
    text = json.dumps(list(parts), ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode("utf-8")).decode("ascii").rstrip("=")


def console_routes(console: Console, audit: Audit) -> list[Route]:
    """Returns the routes about the caller.

    Args:
        console: has the tokens.
        audit: the audit log.
    """

    async def me(call: Call) -> object:
        who = call.who
        kind = "console" if who.is_console else "token"
        return {"user_id": who.user_id, "username": who.username, "kind": kind, "expires_at": who.expires_s}

    async def logout(call: Call) -> object:
        if console.end(bearer_of(call.request) or ""):
            await audit.record(audit.entry("admin.logout", call.who.actor(call.address)))
        return {}

    return [Route("GET", "me", me), Route("POST", "logout", logout)]


class _AdminResource(Resource):
    """Everything below ``/api/admin``."""

    isLeaf = True  # noqa: N815 - Twisted's

    def __init__(self, console: Console, routes: Iterable[Route], origins: Origins, addresses: ClientAddresses) -> None:
        Resource.__init__(self)
        self._console = console
        self._origins = origins
        self._addresses = addresses
        self._routes: dict[re.Pattern[str], dict[str, Handle]] = {}
        for route in routes:
            handlers = self._routes.setdefault(route.pattern, {})
            assert route.method not in handlers, f"{route.method} {route.path} is there twice"
            handlers[route.method] = route.handle

    def render(self, request: Any) -> Any:
        """Answers a request after its handler has returned."""
        set_cors_headers(request, self._origins)
        if is_too_large(request):
            return refuse(request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too large.")
        found = self._find(request)
        if found is None:
            return refuse(request, HTTPStatus.NOT_FOUND, NOT_FOUND)
        handlers, names = found
        method = request.method.decode("ascii", "replace")
        handle = handlers.get("GET" if method == "HEAD" else method)
        if handle is None:
            methods = tuple(handlers) + (("HEAD",) if "GET" in handlers else ())
            return answer_method(request, method, methods)
        try:
            who = self._console.admit(bearer_of(request))
        except Refusal as refusal:
            return refuse(request, STATUS[type(refusal)], refusal.sentence)
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        call = Call(request, who, request_address(request, self._addresses), names)
        done = Deferred.fromCoroutine(handle(call)).addCallback(_answer, request).addErrback(_refuse, request)
        done.addCallback(lambda body: None if gone or body is None else _finish(request, body))
        return NOT_DONE_YET

    def _find(self, request: Any) -> tuple[Mapping[str, Handle], dict[str, str]] | None:
        segments = request.postpath[1:]
        try:
            texts = [str(segment, "utf-8") for segment in segments]
        except UnicodeDecodeError:
            return None
        if any("/" in text for text in texts):
            return None
        path = "/".join(texts)
        for pattern, handlers in self._routes.items():
            match = pattern.fullmatch(path)
            if match is not None:
                return handlers, match.groupdict()
        return None


def make_admin_resource(
    console: Console, routes: Iterable[Route], *, origins: Origins, addresses: ClientAddresses
) -> IResource:
    """Returns the console's API; its path is ``/api/admin``, so that the first word of ``postpath`` is ``admin``.

    Args:
        console: admits administrators.
        routes: the calls.
        origins: the origins whose pages may read the answers.
        addresses: finds the clients' addresses.
    """
    return _AdminResource(console, routes, origins, addresses)


def _answer(told: Any, request: Any) -> bytes | None:
    return None if told is TAKEN else answer(request, HTTPStatus.OK, told)


def _refuse(failure: Failure, request: Any) -> bytes:
    error = failure.value
    if isinstance(error, Refusal):
        retry_after_s = error.retry_after_s if isinstance(error, Later) else None
        return refuse(request, STATUS[type(error)], error.sentence, retry_after_s)
    if isinstance(error, RequestError):
        return refuse_code(request, error.code, error.message)
    events.AUTH_FAULT.failure(failure)
    return refuse(request, HTTPStatus.INTERNAL_SERVER_ERROR, "The relay has a problem. Try again later.")


def _finish(request: Any, body: bytes) -> None:
    request.write(body)
    request.finish()
