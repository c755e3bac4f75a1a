"""What a policy clears when its writer's last session ends."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access import wills
from clasp_relay.access.wills import AFTER_START_S, Wills
from clasp_relay.core.state.params import Params
from clasp_relay.wire.messages import Set, Subscribe
from tests.access.test_permissions import AuthWorld
from tests.core.world import heard, value

POLICY = {"scopes": ["read:/**", "write:/**"], "anonymous": {"scopes": ["write:/here/*"]}}


class WillsTests(SynchronousTestCase):
    """A relay with users who come and go."""

    def setUp(self) -> None:
        """Somebody who watches."""
        self.world = AuthWorld(POLICY)
        self.reader = self.world.join("reader")
        self.reader.ask(Subscribe(1, "/**"))

    def clear(self, *paths: str) -> Wills:
        """Has paths cleared."""
        relay = self.world.relay
        made = Wills(paths, relay.params, relay.committer, relay.work, relay.sessions, relay.clock)
        relay.hooks.when_gone = made.gone
        return made

    def heard(self) -> list[tuple[str, object]]:
        """Returns what was told, once all work is done."""
        self.world.advance(1)
        return heard(self.reader.hear())

    def test_last_session_of_a_writer_clears_its_own(self) -> None:
        """Not the one before; not what somebody else wrote there, nor what is at other addresses."""
        self.clear("/here/{session}", "/cursor/*/{session}")
        first, second, other = (self.world.join(name) for name in ("owner", "owner", "other"))
        for address in ("/here/owner", "/cursor/1/owner", "/cursor/2/owner", "/kept/owner"):
            first.send(Set(address, value(1)))
        other.send(Set("/cursor/3/owner", value(1)))
        other.send(Set("/here/other", value(1)))
        self.heard()
        second.leave()
        self.assertEqual(self.heard(), [])
        first.leave()
        expected = [("/cursor/1/owner", None), ("/cursor/2/owner", None), ("/here/owner", None)]
        self.assertEqual(sorted(self.heard()), expected)
        self.assertEqual(len(self.world.relay.params), 3)

    def test_param_that_a_bundle_rests_on_ends_after_it(self) -> None:
        """Only once the bundle is decided: it has read the value."""
        self.clear("/here/{session}")
        owner = self.world.join("owner")
        owner.send(Set("/here/owner", value(1)))
        self.heard()
        was_set = self.world.read_in_a_bundle("/here/owner")
        owner.leave()
        self.assertEqual((self.heard(), was_set), ([("/here/owner", None)], [True]))

    def test_path_without_the_subject_is_everybodys(self) -> None:
        """Each ends what is theirs, whoever has no token, too."""
        self.clear("/here/*")
        visitor, other = self.world.join(), self.world.join("other")
        visitor.send(Set("/here/1", value(1)))
        other.send(Set("/here/2", value(1)))
        self.heard()
        visitor.leave()
        self.assertEqual(self.heard(), [("/here/1", None)])

    def test_search_goes_through_all_params_where_that_is_cheaper(self) -> None:
        """In pieces, and each is ended once."""
        self.patch(wills, "SEARCHED_AT_ONCE", 3)
        self.patch(wills, "ENDED_AT_ONCE", 2)
        self.patch(Params, "find", lambda *_: None)
        self.clear("/here/**", "/here/*")
        owner = self.world.join("owner")
        for number in range(10):
            owner.send(Set(f"/here/{number}", value(number)))
            owner.send(Set(f"/kept/{number}", value(number)))
        self.heard()
        owner.leave()
        self.assertEqual(sorted(self.heard()), [(f"/here/{number}", None) for number in range(10)])

    def test_who_comes_back_meanwhile_loses_nothing(self) -> None:
        """The pieces that are left do nothing."""
        made = self.clear("/here/*")
        owner = self.world.join("owner")
        owner.send(Set("/here/1", value(1)))
        self.heard()
        self.world.relay.hooks.when_gone = lambda _: None
        owner.leave()
        pieces = made._clear("owner")
        next(pieces)
        self.world.join("owner")
        self.assertEqual(list(pieces), [])
        self.assertEqual(self.heard(), [])

    def test_those_who_do_not_come_back_after_a_start_are_cleared(self) -> None:
        """Half a minute later; without paths nothing is looked at."""
        for name in ("owner", "other"):
            client = self.world.join(name)
            client.send(Set(f"/here/{name}", value(1)))
            client.leave()
        self.heard()
        self.clear().start()
        self.world.advance(AFTER_START_S + 1)
        self.assertEqual(self.heard(), [])
        self.clear("/here/{session}").start()
        self.world.join("other")
        self.world.advance(AFTER_START_S - 2)
        self.assertEqual(self.heard(), [])
        self.world.advance(2)
        self.assertEqual(self.heard(), [("/here/owner", None)])
