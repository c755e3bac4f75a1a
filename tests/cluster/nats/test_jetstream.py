"""Errors in JetStream's answers."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.cluster.nats.jetstream import NO_STREAM, error_code


class ErrorTests(SynchronousTestCase):
    def test_code_of_an_error_is_jetstreams_own_where_there_is_one(self) -> None:
        """Else that of HTTP, as nats-server answers requests that it does not understand; None without an error."""
        cases: tuple[tuple[dict[str, Any], int | None], ...] = (
            ({"error": {"code": 404, "err_code": NO_STREAM, "description": "stream not found"}}, NO_STREAM),
            ({"error": {"code": 400, "description": "bad request"}}, 400),
            ({"error": {}}, 0),
            ({"seq": 1}, None),
        )
        for answer, expected in cases:
            with self.subTest(answer=answer):
                self.assertEqual(error_code(answer), expected)
