"""Tests of clasp_relay.access.search: many params, in pieces."""

from collections.abc import Sequence
from functools import partial

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.search import SEARCHED_AT_ONCE, Search
from clasp_relay.core.records import Param
from clasp_relay.core.work import TURN_US
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import Set
from tests.core.world import World, value

COUNT = 5 * SEARCHED_AT_ONCE


def _is_below(start: str, param: Param) -> bool:
    return param.address.startswith(start)


class SearchTests(SynchronousTestCase):
    """A relay with some params."""

    def setUp(self) -> None:
        """Sets them."""
        self.world = World()
        self.client = self.world.join()
        for number in range(COUNT):
            self.client.send(Set(f"/a/{number}", value(number)))
        self.client.send(Set("/b", value(1)))
        self.world.turn()
        relay = self.world.relay
        self.search = Search(relay.params, relay.committer, relay.work)

    def test_params_are_found_in_pieces(self) -> None:
        """No turn has more than a bounded part of them; what has ended meanwhile is passed over."""
        for pattern, count in (("/a/*", COUNT), ("/**", COUNT + 1), ("/b", 1), ("/c/*", 0)):
            found: list[Param] = []
            done = self.search.each(Pattern.parse(pattern), found.append)
            self.world.turn()
            self.successResultOf(done)
            self.assertEqual(len(found), count)
        found = []
        done = self.search.each(Pattern.parse("/a/*"), found.append)
        self.assertLess(len(found), COUNT)
        self.assertLessEqual(len(found), TURN_US)
        self.client.send(Set(f"/a/{COUNT - 1}", value(None)))
        self.world.turn()
        self.successResultOf(done)
        self.assertEqual(len(found), COUNT - 1)

    def test_piece_has_few_params_where_their_values_are_decoded(self) -> None:
        """As far as they are large."""
        for number in range(20):
            self.client.send(Set(f"/large/{number}", value("x" * 50_000)))
        self.world.turn()
        for decoded, few in ("/none", 20), ("/large", 1):
            found: list[Param] = []
            done = self.search.each(Pattern.parse("/large/*"), found.append, partial(_is_below, decoded))
            self.assertEqual(len(found), few)
            self.world.turn()
            self.successResultOf(done)
            self.assertEqual(len(found), 20)

    def test_params_are_ended(self) -> None:
        """Those that are set."""
        done = self.search.end([f"/a/{number}" for number in range(COUNT + 10)])
        self.world.turn()
        self.successResultOf(done)
        self.assertEqual([param.address for param in self.world.relay.params.all()], ["/b"])

    def test_another_ends_them_where_another_decides(self) -> None:
        """It says when that is done; nothing ends here meanwhile."""
        relay = self.world.relay
        asked: list[str] = []
        done: Deferred[None] = Deferred()

        def clear(addresses: Sequence[str]) -> Deferred[None]:
            asked.extend(addresses)
            return done

        ended = Search(relay.params, relay.committer, relay.work, clear).end(["/b"])
        self.world.turn()
        self.assertEqual((asked, relay.params.get("/b") is None), (["/b"], False))
        self.assertNoResult(ended)
        done.callback(None)
        self.successResultOf(ended)

    def test_fault_fails_the_search(self) -> None:
        """And nothing else."""

        def fail(_param: Param) -> None:
            raise KeyError("x")

        self.failureResultOf(self.search.each(Pattern.parse("/b"), fail), KeyError)
