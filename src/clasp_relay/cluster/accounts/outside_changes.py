"""Changes of this relay's ``users.db`` that were made outside of the log: sends them to the decider.

Commands make such changes, and so do entries of the audit log and session ids, for which no caller waits. All rows of a
file from before its relay was in a cluster count as changed, too. The file has notes of the changes until a record of
the log has them (``storage.users_rows``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from clasp_relay.cluster.accounts.account_asking import AccountCalls
from clasp_relay.cluster.accounts.account_calls import method_of
from clasp_relay.cluster.accounts.account_replica import AccountReplica
from clasp_relay.logs import events
from clasp_relay.storage.users import StoreBusy
from clasp_relay.storage.users_rows import OtherAccounts, Outside, RowStore

__all__ = ["OutsideChanges"]

NOTES_AT_ONCE = 400
"""How many changed rows are sent in one call at most."""

CALL_BYTES = 256 * 1024
"""Size limit of such a call; a single row is shorter."""


class OutsideChanges:
    """See the module.

    Args:
        rows: the rows of the file.
        run: calls a function on the store's thread.
        replica: the file's position in the log.
        calls: sends calls to the decider.
        busy_kind: the exception of ``run`` and ``calls`` when they are overloaded, or the decider does not answer.
    """

    def __init__(
        self,
        rows: RowStore,
        run: Callable[[Callable[[], Any]], Deferred[Any]],
        replica: AccountReplica,
        calls: AccountCalls,
        busy_kind: type[Exception],
    ) -> None:
        self._rows = rows
        self._run = run
        self._replica = replica
        self._calls = calls
        self._busy_kind = busy_kind
        self._notes = NOTES_AT_ONCE
        """How many changed rows the next call has at most."""
        self._is_sending = False

    def look(self) -> None:
        """Reads whether there are changes, and sends them to the decider; called several times a second."""
        if self._is_sending or not self._replica.is_current:
            return
        self._is_sending = True
        done = self._run(lambda: self._rows.outside(self._notes))
        done.addCallback(self._send).addErrback(self._not_sent).addErrback(events.CLUSTER_FAULT.failure)

    def _send(self, outside: Outside | None) -> Deferred[None] | None:
        if outside is None:
            self._is_sending = False
            self._replica.has_base = False
            return None
        name = "rows.put_base" if self._replica.has_base else "rows.put"
        arguments = method_of(name).encode_arguments((outside.rows, outside.told), {})
        if len(arguments) > CALL_BYTES and self._notes > 1:
            self._is_sending = False
            self._notes //= 2
            self.look()
            return None
        done: Deferred[None] = self._calls.ask(name, arguments)
        return done.addCallback(self._sent)

    def _sent(self, _: None) -> None:
        self._is_sending = False
        self._notes = NOTES_AT_ONCE
        self.look()

    def _not_sent(self, failure: Failure) -> None:
        """Handles a failure. The changes are sent again later; rows that arrive twice lead to the same result."""
        self._is_sending = False
        if failure.check(OtherAccounts) is not None:
            self._replica.refuse_base()
        elif failure.check(StoreBusy, self._busy_kind) is None:
            events.CLUSTER_FAULT.failure(failure)
