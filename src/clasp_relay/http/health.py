"""The resources of the health port (``/healthz``, ``/readyz`` and ``/metrics``) and of the metrics port."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource

from clasp_relay.http.json_answers import with_length

__all__ = ["make_health_resource", "make_metrics_resource"]


class _Answer(NamedTuple):
    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


class _Page(Resource):
    """The resource of one path.

    Args:
        answer: makes the answer to GET and HEAD.
    """

    isLeaf = True  # noqa: N815 - Twisted's

    def __init__(self, answer: Callable[[], _Answer]) -> None:
        Resource.__init__(self)
        self._answer = answer

    def render_GET(self, request: IRequest) -> bytes:  # noqa: N802 - Twisted's
        """Answers."""
        answer = self._answer() if not request.postpath else _Answer(HTTPStatus.NOT_FOUND, b"there is nothing here\n")
        request.setResponseCode(answer.status)
        headers = request.responseHeaders
        headers.setRawHeaders("Content-Type", [answer.content_type])
        headers.setRawHeaders("Cache-Control", ["no-store"])
        headers.setRawHeaders("X-Content-Type-Options", ["nosniff"])
        return with_length(request, answer.body)


def make_health_resource(
    trouble: Callable[[], str],
    registry: CollectorRegistry,
    status: Callable[[], Mapping[str, object]] | None = None,
) -> IResource:
    """Returns the root of the health port.

    Args:
        trouble: returns why the relay is not ready; empty if it is.
        registry: the metrics.
        status: returns the relay's status in its cluster, which ``/readyz`` gives as JSON; None without a cluster.
    """

    def health() -> _Answer:
        return _Answer(HTTPStatus.OK, b"ok\n")

    def readiness() -> _Answer:
        why = trouble()
        code = HTTPStatus.SERVICE_UNAVAILABLE if why else HTTPStatus.OK
        if status is not None:
            body = json.dumps({"ready": not why, **status()}).encode() + b"\n"
            return _Answer(code, body, "application/json")
        return _Answer(code, f"{why or 'ready'}\n".encode())

    root = make_metrics_resource(registry)
    root.putChild(b"healthz", _Page(health))
    root.putChild(b"readyz", _Page(readiness))
    return root


def make_metrics_resource(registry: CollectorRegistry) -> Resource:
    """Returns the root of the metrics port.

    Args:
        registry: the metrics.
    """

    def metrics() -> _Answer:
        return _Answer(HTTPStatus.OK, generate_latest(registry), CONTENT_TYPE_LATEST)

    root = Resource()
    root.putChild(b"metrics", _Page(metrics))
    return root
