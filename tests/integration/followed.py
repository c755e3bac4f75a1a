"""Relays with accounts that follow: what the tests of accounts and policies do at one relay, through a follower."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import ClassVar

from tests.integration.accounts import AccountsRelay, AccountsTestCase
from tests.integration.nats import Nats
from tests.integration.process import TWISTD, wait_until

__all__ = ["FollowedTestCase", "Pair"]

_NUMBERS = count(1)
"""Of the clusters on one engine, each of which has a name of its own."""


class Pair:
    """Two relays of one cluster, which have one working folder and a data-dir each.

    Args:
        folder: the working folder; what a test has put into ``data`` there is the state that the cluster begins with.
        url: the engine's.
        options: of both.
        started: told of each relay that was started, so that it is ended again.
        command: how Python starts each.
        variables: more environment.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        *options: str,
        started: Callable[[AccountsRelay], object],
        command: Sequence[str] = TWISTD,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        both = (*options, "--cluster", url, "--cluster-name", f"pair-{next(_NUMBERS)}")

        def start(name: str, data: str) -> AccountsRelay:
            where = ("--relay-name", name, "--data-dir", data)
            relay = AccountsRelay(folder, *both, *where, command=command, variables=variables)
            started(relay)
            return relay

        self.decider = start("first", "data")
        """The one that was started first, and decides."""
        wait_until(lambda: "first decides from now on" in self.decider.log, f"one decides: {self.decider.log}")
        self.follower = start("second", "data-2")
        wait_until(lambda: "second follows the log" in self.follower.log, f"the other follows: {self.follower.log}")

    @property
    def relays(self) -> tuple[AccountsRelay, AccountsRelay]:
        """Both."""
        return self.decider, self.follower


class FollowedTestCase(AccountsTestCase):
    """Runs the tests of a relay with accounts through one that follows: one engine for all tests of a class.

    To be named before the class whose tests it runs.
    """

    nats: ClassVar[Nats]
    _engine: ClassVar[Path]
    pair: Pair
    """The relays that were started last."""

    @classmethod
    def setUpClass(cls) -> None:
        """Starts the engine."""
        super().setUpClass()
        cls._engine = Path(tempfile.mkdtemp(prefix="clasp-engine-"))
        cls.nats = Nats.with_password(cls._engine / "nats")
        cls.nats.start()

    @classmethod
    def tearDownClass(cls) -> None:
        """Ends it."""
        cls.nats.close()
        shutil.rmtree(cls._engine)
        super().tearDownClass()

    def start_pair(
        self, *options: str, command: Sequence[str] = TWISTD, variables: Mapping[str, str] | None = None
    ) -> Pair:
        """Starts two relays; they end with the test, if not earlier."""
        self.pair = Pair(
            self.folder,
            self.nats.url,
            *options,
            started=lambda relay: self.addCleanup(self._end, relay),
            command=command,
            variables=variables,
        )
        return self.pair

    def start_accounts(
        self, *options: str, command: Sequence[str] = TWISTD, variables: Mapping[str, str] | None = None
    ) -> AccountsRelay:
        """See ``AccountsTestCase``: returns the relay that follows."""
        return self.start_pair(*options, command=command, variables=variables).follower
