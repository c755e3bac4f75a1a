"""What is gathered for a batch: how much, and what is refused while too much waits."""

from __future__ import annotations

from clasp_relay.cluster.deciding.batch_log import MAX_WAITING_BYTES
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.messages import Error, Set
from tests.cluster.deciding_world import DecidingCase, said
from tests.core.world import value


class BatchLogTests(DecidingCase):
    """The log of a decider."""

    def test_a_batch_is_closed_when_it_is_full(self) -> None:
        """Between two messages."""
        self.begin()
        calls: list[int] = []
        self.log.when_full = lambda: calls.append(len(self.deciding.seal()))
        self.ask(*(said(2 + n, Set(f"/big/{n}", value("x" * 60_000)), 1) for n in range(12)))
        self.assertEqual(calls, [1] * 6)

    def test_writes_are_refused_while_too_much_waits_for_the_log(self) -> None:
        """An engine that hangs does not fill the memory."""
        self.begin()
        self.log.waiting_bytes = MAX_WAITING_BYTES + 1
        self.assertRaises(RequestError, self.log.check)
        self.ask(said(2, Set("/a", value(1)), 1))
        (error,) = self.answers(self.sealed())
        assert isinstance(error, Error)
        self.assertEqual(error.error, ErrorCode.OVERLOADED)
