"""The auth API: registration, sign-in, guests and tokens over HTTP (``docs/openapi.yaml``)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from klein import Klein
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from clasp_relay.access.accounts import Accounts
from clasp_relay.access.addresses import ClientAddresses, address_group
from clasp_relay.access.console import Console
from clasp_relay.access.issuer import Issued
from clasp_relay.access.refusals import (
    BadInput,
    Busy,
    Forbidden,
    Later,
    Limited,
    Missing,
    NoRoom,
    Refusal,
    Taken,
    TooLarge,
    Unauthenticated,
)
from clasp_relay.access.turn_server import TurnServer
from clasp_relay.http.cors import Origins, set_cors_headers
from clasp_relay.http.json_answers import (
    answer,
    bearer_of,
    has_body,
    is_too_large,
    optional_text,
    read_object,
    refuse,
    required_text,
)
from clasp_relay.logs import events
from clasp_relay.push.web_push import WebPush

__all__ = ["AuthApi", "load_openapi", "make_auth_resource", "request_address"]


STATUS: Mapping[type[Refusal], HTTPStatus] = {
    BadInput: HTTPStatus.BAD_REQUEST,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    Missing: HTTPStatus.NOT_FOUND,
    Taken: HTTPStatus.CONFLICT,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    NoRoom: HTTPStatus.INSUFFICIENT_STORAGE,
    Limited: HTTPStatus.TOO_MANY_REQUESTS,
    Busy: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""The HTTP status of each refusal."""

_NOT_FOUND = "There is nothing here."
_MALFORMED = "The request is malformed."


def load_openapi() -> dict[str, Any]:
    """Returns the OpenAPI 3.0 document of this API; ``docs/openapi.yaml`` is the same for people to read."""
    text = (files("clasp_relay.http") / "openapi.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def request_address(request: IRequest, addresses: ClientAddresses) -> str:
    """Returns the address of the client that a request comes from; ``local`` for a Unix socket."""
    peer = getattr(request.getClientAddress(), "host", None)
    forwarded = request.requestHeaders.getRawHeaders("x-forwarded-for") or ()
    return addresses.of(peer or "local", forwarded)


class AuthApi:
    """The routes of the auth API.

    Args:
        accounts: makes the calls.
        address_of: returns the client's address of a request.
        turn: makes credentials for the TURN server; None if there is no such server.
        push: sends push messages to browsers; None if the relay sends none.
        console: signs administrators in; None without a console.
    """

    app = Klein()

    def __init__(
        self,
        accounts: Accounts,
        address_of: Callable[[IRequest], str],
        turn: TurnServer | None = None,
        push: WebPush | None = None,
        console: Console | None = None,
    ) -> None:
        self._accounts = accounts
        self._push = push
        self._turn = turn or TurnServer()
        self._console = console
        self._address_of = address_of
        self._openapi = load_openapi()

    @app.route("/register", methods=["POST"])
    async def register(self, request: IRequest) -> bytes:
        """Registers a user."""
        body = read_object(request)
        issued = await self._accounts.register(
            required_text(body, "username"),
            required_text(body, "password"),
            optional_text(body, "user_id"),
            bearer_of(request),
            self._address_of(request),
            optional_text(body, "invite"),
            optional_text(body, "device"),
        )
        return _answer_issued(request, issued)

    @app.route("/login", methods=["POST"])
    async def login(self, request: IRequest) -> bytes:
        """Signs a user in."""
        body = read_object(request)
        username, password = required_text(body, "username"), required_text(body, "password")
        device = optional_text(body, "device")
        issued = await self._accounts.login(username, password, self._address_of(request), device)
        return _answer_issued(request, issued)

    @app.route("/guest", methods=["POST"])
    async def guest(self, request: IRequest) -> bytes:
        """Signs a guest in."""
        body = read_object(request)
        name, user_id = optional_text(body, "name"), optional_text(body, "user_id")
        device = optional_text(body, "device")
        issued = await self._accounts.guest(name, user_id, bearer_of(request), self._address_of(request), device)
        return _answer_issued(request, issued)

    @app.route("/admin", methods=["POST"])
    async def admin(self, request: IRequest) -> bytes:
        """Signs an administrator in to the console."""
        body = read_object(request)
        username, password = required_text(body, "username"), required_text(body, "password")
        issued = await self._admins().sign_in(username, password, self._address_of(request))
        return answer(
            request,
            HTTPStatus.OK,
            {
                "token": issued.token,
                "user_id": issued.user_id,
                "username": issued.username,
                "expires_at": issued.expires_s,
            },
        )

    @app.route("/reset", methods=["POST"])
    async def reset(self, request: IRequest) -> bytes:
        """Sets a password by a one-time link."""
        body = read_object(request)
        secret, password = required_text(body, "secret"), required_text(body, "password")
        username = await self._admins().reset(secret, password, self._address_of(request))
        return answer(request, HTTPStatus.OK, {"username": username})

    def _admins(self) -> Console:
        if self._console is None:
            raise Forbidden("This relay has no console.")
        return self._console

    @app.route("/logout", methods=["POST"])
    async def logout(self, request: IRequest) -> bytes:
        """Revokes the token."""
        await self._accounts.logout(bearer_of(request), self._address_of(request))
        return answer(request, HTTPStatus.OK, {})

    @app.route("/refresh", methods=["POST"])
    async def refresh(self, request: IRequest) -> bytes:
        """Replaces the token; the body is optional."""
        device = optional_text(read_object(request), "device") if has_body(request) else None
        issued = await self._accounts.refresh(bearer_of(request), self._address_of(request), device)
        return _answer_issued(request, issued)

    @app.route("/sessions", methods=["GET"])
    async def sessions(self, request: IRequest) -> bytes:
        """Lists the sign-ins of the user."""
        found = await self._accounts.sessions(bearer_of(request))
        return answer(request, HTTPStatus.OK, [asdict(session) for session in found])

    @app.route("/sessions/<session_id>", methods=["DELETE"])
    async def end_session(self, request: IRequest, session_id: str) -> bytes:
        """Ends a sign-in of the user."""
        await self._accounts.end_session(session_id, bearer_of(request), self._address_of(request))
        return answer(request, HTTPStatus.OK, {})

    @app.route("/password", methods=["POST"])
    async def password(self, request: IRequest) -> bytes:
        """Changes the password."""
        body = read_object(request)
        old, new = required_text(body, "old"), required_text(body, "new")
        await self._accounts.change_password(old, new, bearer_of(request), self._address_of(request))
        return answer(request, HTTPStatus.OK, {})

    @app.route("/me", methods=["GET"])
    def me(self, request: IRequest) -> bytes:
        """Describes the token."""
        info = self._accounts.me(bearer_of(request))
        return answer(
            request,
            HTTPStatus.OK,
            {
                "user_id": info.user_id,
                "username": info.username,
                "guest": info.guest,
                "scopes": list(info.scopes),
                "expires_at": info.expires_at,
            },
        )

    @app.route("/turn", methods=["GET"])
    def turn(self, request: IRequest) -> bytes:
        """Gives credentials for the TURN server to somebody in a call."""
        servers = self._turn.servers_for(self._accounts.me(bearer_of(request)).user_id)
        return answer(request, HTTPStatus.OK, asdict(servers))

    @app.route("/push", methods=["GET"])
    def push_key(self, request: IRequest) -> bytes:
        """Gives the key that a browser needs to subscribe."""
        return answer(request, HTTPStatus.OK, {"public_key": self._web_push().public_key})

    @app.route("/push", methods=["POST"])
    async def subscribe(self, request: IRequest) -> bytes:
        """Subscribes a browser to push messages."""
        push = self._web_push()
        bearer = bearer_of(request)
        record = self._accounts.signed_in(bearer)
        body = read_object(request)
        keys = body.get("keys")
        if not isinstance(keys, dict):
            raise BadInput("«keys» is missing.")
        p256dh, auth = required_text(keys, "p256dh"), required_text(keys, "auth")
        lane = address_group(self._address_of(request))
        endpoint = required_text(body, "endpoint")
        still_holds = partial(self._accounts.signed_in, bearer)
        await push.subscriptions.add(record, endpoint, p256dh, auth, lane, still_holds)
        return answer(request, HTTPStatus.CREATED, {})

    @app.route("/push", methods=["DELETE"])
    async def unsubscribe(self, request: IRequest) -> bytes:
        """Unsubscribes a browser from push messages; all browsers of the user if the body has no endpoint."""
        push = self._web_push()
        record = self._accounts.signed_in(bearer_of(request))
        endpoint = optional_text(read_object(request), "endpoint") if has_body(request) else None
        await push.subscriptions.remove(record.subject, endpoint)
        return answer(request, HTTPStatus.OK, {})

    def _web_push(self) -> WebPush:
        if self._push is None:
            raise Missing("This relay sends no push messages.")
        return self._push

    @app.route("/ticket", methods=["POST"])
    def ticket(self, request: IRequest) -> bytes:
        """Gives a ticket for the token."""
        ticket = self._accounts.ticket(bearer_of(request), self._address_of(request))
        return answer(request, HTTPStatus.OK, {"ticket": ticket})

    @app.route("/config", methods=["GET"])
    def config(self, request: IRequest) -> bytes:
        """Gives the ways to sign in, and other facts by which a client knows what to offer."""
        admission = self._accounts.admission
        return answer(
            request,
            HTTPStatus.OK,
            {
                "registration": admission.registration,
                "guests": admission.guests,
                "name": admission.name,
                "files": None if admission.files is None else dict(admission.files),
                "push": self._push is not None,
            },
        )

    @app.route("/openapi.json", methods=["GET"])
    def openapi(self, request: IRequest) -> bytes:
        """Serves the OpenAPI document."""
        return answer(request, HTTPStatus.OK, self._openapi)

    @app.handle_errors(Exception)
    def handle_error(self, request: IRequest, failure: Failure) -> bytes:
        """Answers all errors."""
        error = failure.value
        match error:
            case Refusal():
                retry_after_s = error.retry_after_s if isinstance(error, Later) else None
                return refuse(request, STATUS[type(error)], error.sentence, retry_after_s)
            case MethodNotAllowed():
                return _answer_method(request, error.valid_methods or ())
            case HTTPException():
                return refuse(request, HTTPStatus.NOT_FOUND, _NOT_FOUND)
        events.AUTH_FAULT.failure(failure)
        return refuse(request, HTTPStatus.INTERNAL_SERVER_ERROR, "The relay has a problem. Try again later.")


class _AuthResource(Resource):
    """Applies CORS and limits to every request, whether its path exists or not."""

    isLeaf = True  # noqa: N815 - Twisted's

    def __init__(self, api: AuthApi, origins: Origins, page: IResource | None) -> None:
        Resource.__init__(self)
        self._routes: Any = api.app.resource()
        self._origins = origins
        self._page = page

    def render(self, request: IRequest) -> Any:
        """Answers a request to ``/auth`` or below it."""
        if not request.postpath and self._page is not None:
            return self._page.render(request)
        set_cors_headers(request, self._origins)
        if is_too_large(request):
            return refuse(request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too large.")
        if not _is_route(request.postpath):
            return refuse(request, HTTPStatus.NOT_FOUND, _NOT_FOUND)
        if not _is_text(request.getRequestHostname()):
            return refuse(request, HTTPStatus.BAD_REQUEST, _MALFORMED)
        try:
            return self._routes.render(request)
        except HTTPException:
            # Werkzeug refuses an invalid Host header before it looks for a route.
            return refuse(request, HTTPStatus.BAD_REQUEST, _MALFORMED)


def make_auth_resource(
    accounts: Accounts,
    *,
    origins: Origins,
    addresses: ClientAddresses,
    page: IResource | None = None,
    turn: TurnServer | None = None,
    push: WebPush | None = None,
    console: Console | None = None,
) -> IResource:
    """Returns the auth API, to be put at ``auth`` below a site's root.

    Args:
        accounts: makes the calls.
        origins: the origins whose pages may read the answers.
        addresses: finds the clients' addresses.
        page: the resource at ``/auth`` itself, without a slash; None for a JSON 404.
        turn: makes credentials for the TURN server; None if there is no such server.
        push: sends push messages to browsers; None if the relay sends none.
        console: signs administrators in; None without a console.
    """
    api = AuthApi(accounts, lambda request: request_address(request, addresses), turn, push, console)
    return _AuthResource(api, origins, page)


def _is_route(path: Sequence[bytes]) -> bool:
    """Tells whether a path below ``/auth`` may be a route: no part is empty, and only that of a session has two."""
    if not path or len(path) > 2 or not all(part and _is_text(part) for part in path):
        return False
    return len(path) == 1 or path[0] == b"sessions"


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _answer_issued(request: IRequest, issued: Issued) -> bytes:
    return answer(
        request,
        HTTPStatus.OK,
        {"token": issued.token, "user_id": issued.user_id, "username": issued.username},
    )


def _answer_method(request: IRequest, methods: Iterable[str]) -> bytes:
    """Answers OPTIONS, or a method that a path does not have (RFC 9110 §15.5.6)."""
    allow = ", ".join(sorted({*methods, "OPTIONS"}))
    request.responseHeaders.setRawHeaders("Allow", [allow])
    if request.method == b"OPTIONS":
        request.setResponseCode(HTTPStatus.NO_CONTENT)
        return b""
    return refuse(request, HTTPStatus.METHOD_NOT_ALLOWED, f"This path takes {allow}.")
