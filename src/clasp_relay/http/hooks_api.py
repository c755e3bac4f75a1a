"""``POST /hooks/{id}``: incoming webhooks (``access.hooks``)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from clasp_relay.access.addresses import ClientAddresses
from clasp_relay.access.hooks import Hooks
from clasp_relay.access.refusals import Later, Refusal
from clasp_relay.doors.door import RequestDoor
from clasp_relay.http.api_sessions import ApiSessions
from clasp_relay.http.auth_api import STATUS, request_address
from clasp_relay.http.cors import Origins, set_cors_headers
from clasp_relay.http.json_answers import (
    NOT_FOUND,
    answer,
    is_too_large,
    optional_text,
    read_object,
    refuse,
    required_text,
)
from clasp_relay.http.params_api import answer_method, refuse_code
from clasp_relay.logs import events

__all__ = ["make_hooks_resource"]


class _HooksResource(Resource):
    """Everything below ``/hooks``."""

    isLeaf = True  # noqa: N815 - Twisted's

    def __init__(
        self, hooks: Hooks, sessions: ApiSessions, door: RequestDoor, origins: Origins, addresses: ClientAddresses
    ) -> None:
        Resource.__init__(self)
        self._hooks = hooks
        self._sessions = sessions
        self._door = door
        self._origins = origins
        self._addresses = addresses

    def render(self, request: Any) -> Any:
        """Answers a request after the message was sent."""
        set_cors_headers(request, self._origins)
        if is_too_large(request):
            return refuse(request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too large.")
        if len(request.postpath) != 1 or not request.postpath[0]:
            return refuse(request, HTTPStatus.NOT_FOUND, NOT_FOUND)
        method = request.method.decode("ascii", "replace")
        if method != "POST":
            return answer_method(request, method, ("POST",))
        self._door.came()
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        done = Deferred.fromCoroutine(self._post(request)).addErrback(self._refuse, request)
        done.addCallback(lambda body: None if gone else _finish(request, body))
        return NOT_DONE_YET

    async def _post(self, request: Any) -> bytes:
        body = read_object(request)
        hook_id = request.postpath[0].decode("utf-8", "replace")
        who, message = await self._hooks.message(hook_id, required_text(body, "text"), optional_text(body, "name"))
        client = request_address(request, self._addresses)
        told = await self._sessions.ask_as(who, client, message)
        if "error" in told:
            self._door.refused(client, told["error"])
            return refuse_code(request, told["code"], told["error"])
        return answer(request, HTTPStatus.ACCEPTED, {})

    def _refuse(self, failure: Failure, request: Any) -> bytes:
        error = failure.value
        client = request_address(request, self._addresses)
        if isinstance(error, Refusal):
            self._door.refused(client, error.sentence)
            retry_after_s = error.retry_after_s if isinstance(error, Later) else None
            return refuse(request, STATUS[type(error)], error.sentence, retry_after_s)
        self._door.refused(client, "internal error")
        events.AUTH_FAULT.failure(failure)
        return refuse(request, HTTPStatus.INTERNAL_SERVER_ERROR, "The relay has a problem. Try again later.")


def make_hooks_resource(
    hooks: Hooks, sessions: ApiSessions, door: RequestDoor, *, origins: Origins, addresses: ClientAddresses
) -> IResource:
    """Returns the resource for ``hooks`` below a site's root.

    Args:
        hooks: makes the messages.
        sessions: sends the messages.
        door: counts the requests.
        origins: the origins whose pages may read the answers.
        addresses: finds the clients' addresses.
    """
    return _HooksResource(hooks, sessions, door, origins, addresses)


def _finish(request: Any, body: bytes) -> None:
    request.write(body)
    request.finish()
