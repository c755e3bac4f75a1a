"""Tests of clasp_relay.net.open_files."""

import os
import resource
import subprocess
import sys
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from clasp_relay.http.site import make_site
from clasp_relay.net.open_files import RESERVED, is_none_left, is_short, raise_limit, room_for_sessions
from tests.net.helpers import Site

RAISE = """
import resource
from clasp_relay.net.open_files import raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 300))
print(raise_limit(), raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


class OpenFilesTests(SynchronousTestCase):
    """Descriptors that connections must not take."""

    def leave(self, free: int) -> None:
        """Lowers this process's limit until the test ends, so that so many descriptors are free."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        lowest_free = os.open("/", os.O_RDONLY)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + free, before[1]))

    def test_soft_limit_is_raised_to_the_hard_one(self) -> None:
        """In a process of its own, since nobody could lower it again."""
        result = subprocess.run([sys.executable, "-c", RAISE], capture_output=True, text=True, check=True)
        self.assertEqual(result.stdout.split(), ["300", "300", "300", "300"])

    def test_the_last_descriptors_are_reserved(self) -> None:
        """None of them counts as free for connections."""
        for free, short in ((RESERVED + 1, False), (RESERVED, True), (0, True)):
            self.leave(free)
            self.assertIs(is_short(), short, free)
            self.assertIs(is_none_left(), not free)
        self.assertEqual((room_for_sessions(1_000), room_for_sessions(3)), (1_000 - RESERVED, 0))

    def test_closed_standard_input_is_a_free_descriptor(self) -> None:
        """As with a supervisor that opens none."""
        code = "import os; os.close(0); from clasp_relay.net.open_files import *; print(is_short(), is_none_left())"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        self.assertEqual(result.stdout, "False False\n")

    def test_no_limit_is_no_limit(self) -> None:
        """Other systems have none; its number is -1."""
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        self.patch(resource, "getrlimit", lambda _: unlimited)
        self.assertFalse(is_short())
        self.assertEqual(raise_limit(), sys.maxsize)

    def test_connections_are_refused_and_health_checks_are_not(self) -> None:
        """When descriptors run short."""
        site = Site()
        root = Resource()
        ports: list[Any] = [make_site(root, MemoryReactorClock(), uses_reserve=uses) for uses in (False, True)]
        for free, taken in ((RESERVED + 1, [True, True, True]), (RESERVED, [False, False, True])):
            self.leave(free)
            protocols = [each.buildProtocol(None) for each in (site.factory, *ports)]
            self.assertEqual([protocol is not None for protocol in protocols], taken)
        self.assertEqual(site.factory.writer.counters.turned_away, 1)
