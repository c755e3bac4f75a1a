"""Tests of clasp_relay.http.health."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import IResource

from clasp_relay.http.health import make_health_resource
from tests.http.memory_site import MemorySite


class HealthTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Makes a health port; the memory site has it below /auth."""
        self.trouble = "starting or stopping"
        self.registry = CollectorRegistry()
        resource: IResource = make_health_resource(lambda: self.trouble, self.registry)
        self.site = MemorySite(resource)

    def test_process_that_answers_is_alive(self) -> None:
        """Whether it is ready or not."""
        answer = self.site.request("GET", "/auth/healthz")
        self.assertEqual((answer.status, answer.body), (200, b"ok\n"))
        self.assertEqual(answer.headers["cache-control"], "no-store")

    def test_readiness_follows_the_relay(self) -> None:
        """503 before and after, with the cause."""
        answers = []
        for self.trouble in ("starting or stopping", "", "the disk of the journal is almost full"):
            answer = self.site.request("GET", "/auth/readyz")
            answers.append((answer.status, answer.body))
        causes = (b"starting or stopping\n", b"the disk of the journal is almost full\n")
        self.assertEqual(answers, [(503, causes[0]), (200, b"ready\n"), (503, causes[1])])

    def test_metrics_are_those_of_the_registry(self) -> None:
        """In Prometheus's own text format."""
        Counter("made", "A counter.", registry=self.registry).inc(3)
        answer = self.site.request("GET", "/auth/metrics")
        self.assertTrue(answer.headers["content-type"].startswith("text/plain; version="))
        self.assertIn(b"made_total 3.0\n", answer.body)

    def test_head_has_no_body(self) -> None:
        """And the status and length of a GET; it leaves no line in the log."""
        with capturedLogs() as events:
            answer = self.site.request("HEAD", "/auth/readyz")
        self.assertEqual((answer.status, answer.body), (503, b""))
        self.assertEqual(answer.headers["content-length"], str(len("starting or stopping\n")))
        self.assertEqual(events, [])

    def test_nothing_else_is_there(self) -> None:
        """No other path, no other method."""
        for method, path, status in (
            ("GET", "/auth/", 404),
            ("GET", "/auth/healthz/x", 404),
            ("GET", "/auth/other", 404),
            ("POST", "/auth/metrics", 405),
        ):
            with self.subTest(path):
                self.assertEqual(self.site.request(method, path).status, status)
