"""A minute of the soak: honest people notice nothing while attackers of every kind are at work."""

from __future__ import annotations

import asyncio
import os

from tests.integration.accounts import WATCHED, AccountsTestCase
from tests.integration.soak import free_doors, options, soak
from tests.integration.swarm import need_files

SECONDS = 60 if os.environ.get("CI") == "true" else 20
SEED = 20

MAX_TURN_MS = 100.0
"""Whoever runs the soak by hand holds it to 10 ms. Here two cores are shared with the attackers, with other tests and
with browsers, and the machine itself with others: what it takes away in the middle of a turn counts as CPU time."""


class SoakTests(AccountsTestCase):
    def test_honest_people_notice_nothing(self) -> None:
        """Nothing of theirs is refused or lost, nobody stops the relay, and the memory is back at the end."""
        need_files(4096)
        doors = free_doors()
        relay = self.start_accounts(*options(doors, self.folder), command=WATCHED)
        result = asyncio.run(soak(relay, doors, SECONDS, SEED))
        self.assertEqual(result.faults(MAX_TURN_MS), [], str(result))
        self.assertEqual(relay.stop(), 0)
