"""What a relay ends and deletes by itself: what lost users and former guests have left, old tokens, old files.

In a cluster the decider does so, in its core; every other relay deletes only what it has in memory and on disk itself.
"""

from __future__ import annotations

import time

from clasp_relay.access.accounts import Accounts
from clasp_relay.access.audit import Audit
from clasp_relay.access.files import Files
from clasp_relay.access.guests import GuestParams
from clasp_relay.access.policy import Policy
from clasp_relay.access.refusals import Busy
from clasp_relay.access.session_ids import KnownSessionIds
from clasp_relay.access.tokens import TokenTable
from clasp_relay.access.wills import Wills
from clasp_relay.core.relay import Relay
from clasp_relay.push.web_push import WebPush

__all__ = ["Acting", "CleanUp"]


class Acting:
    """Ends in the core that decides the params that lost users and former guests have left behind.

    Args:
        relay: the core.
        policy: says which params end; None for none.
        tokens: the valid tokens.
    """

    def __init__(self, relay: Relay, policy: Policy | None, tokens: TokenTable) -> None:
        paths = () if policy is None else policy.document.clear_on_disconnect
        self.memory = relay.permissions.memory
        self.wills = Wills(paths, relay.params, relay.committer, relay.work, relay.sessions, relay.clock)
        relay.hooks.when_gone = self.wills.gone
        self.guests: GuestParams | None = None
        """Ends the params that former guests wrote for themselves; None without a policy."""
        if policy is not None:
            self.guests = GuestParams(policy.document, relay.params, relay.committer, relay.work, tokens, time.time)

    def stop(self) -> None:
        """Stops, since the core no longer decides and never finishes the work that it has begun."""
        if self.guests is not None:
            self.guests.stop()


class CleanUp:
    """See the module.

    Args:
        policy: says which params end; None for none.
        tokens: the valid tokens.
        session_ids: the session ids and their owners.
        push: sends push messages to browsers; None where it is off.
    """

    def __init__(
        self, policy: Policy | None, tokens: TokenTable, session_ids: KnownSessionIds, push: WebPush | None
    ) -> None:
        self._policy = policy
        self._tokens = tokens
        self._session_ids = session_ids
        self._push = push
        self.acting: Acting | None = None
        """Ends what lost users and former guests have left; None while another relay decides."""
        self._is_starting = True

    def act_in(self, relay: Relay, *, is_running: bool) -> None:
        """Begins to act in a core; see ``AtDecider``.

        Args:
            relay: the core.
            is_running: whether the server runs, so that ``start`` is due at once.
        """
        self.rest()
        self.acting = Acting(relay, self._policy, self._tokens)
        if is_running:
            self.start()

    def rest(self) -> None:
        """Stops acting until ``act_in``; see ``AtDecider``."""
        acting, self.acting = self.acting, None
        if acting is not None:
            acting.stop()

    def start(self) -> None:
        """Ends a while later the params of users who have not reconnected, if this relay decides."""
        if self.acting is not None:
            self.acting.wills.start()

    async def purge(self, accounts: Accounts, audit: Audit, files: Files | None) -> None:
        """Ends the params of former guests, then deletes old tokens and addresses, which can wait at the start.

        Args:
            accounts: the accounts.
            audit: the audit log.
            files: the files that users sent; None where the relay takes none.
        """
        is_start, self._is_starting = self._is_starting, False
        self._session_ids.renew()
        if files is not None:
            await files.sweep(acts=self.acting is not None)
        acting = self.acting
        if acting is None:
            return
        if acting.guests is not None:
            try:
                await acting.guests.end_old(accounts.last_issued)
            except Busy:
                return  # the tokens stay, too: it is not known which of them are still needed
        if files is not None:
            await files.end_old()
        # A relay that decides by now was not told which tokens are still needed.
        if not is_start and self.acting is acting:
            await accounts.purge()
            if self._push is not None:
                await self._push.subscriptions.purge()
            await audit.trim()
