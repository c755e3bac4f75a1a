"""Tests of clasp_relay.assembly.cleanup: what ends and is deleted by itself, with real threads and files."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

from twisted.internet.defer import succeed
from twisted.internet.task import deferLater

from clasp_relay.access.names import name_keys
from clasp_relay.access.policy import Policy
from clasp_relay.access.tokens import POLICY_SCOPES, TokenRecord, digest_of
from clasp_relay.assembly import auth_server
from clasp_relay.core.records import Param, StateImage
from clasp_relay.storage.users import Claim, StoreBusy
from clasp_relay.storage.users_sqlite import SqliteUsers
from clasp_relay.wire.messages import Set
from clasp_relay.wire.values import encode_value
from tests.access.test_permissions import AuthWorld
from tests.assembly.running import REACTOR, ServerCase, until


class CleanUpTests(ServerCase):
    """A server whose purge comes often."""

    async def test_what_guests_wrote_ends_at_the_start_and_their_tokens_later(self) -> None:
        """The newest token of a guest who still has something in the state stays, however old it is."""
        policy = Policy.from_document({"scopes": ["read:/**"], "guest_ttl_days": {"/u/{id}": 400}})
        self.folder.mkdir()
        store = SqliteUsers(self.folder / "users.db", name_keys)
        now_s, ages = int(time.time()), {"ann": 500, "bob": 300, "eve": 300}
        for name, days in ages.items():
            made_s = now_s - days * 86_400
            record = TokenRecord(digest_of(name), name, name, True, POLICY_SCOPES, made_s, made_s + 1)
            store.add_guest_token(record, name_keys(name), Claim(None, True, made_s))
        store.close()
        params = [Param(f"/u/{name}", encode_value(1), 1, "s", 0, 0, name) for name in ("ann", "bob")]

        def subjects() -> list[str]:
            with closing(sqlite3.connect(self.folder / "users.db")) as db:
                return [row[0] for row in db.execute("SELECT subject FROM tokens ORDER BY subject")]

        first = self.start(policy, params)  # an hour before its next purge
        await until(first, lambda: first.world.relay.params.get("/u/ann") is None)
        await deferLater(REACTOR, 0.3)
        self.assertEqual(subjects(), ["ann", "bob", "eve"])
        await first.server.stopService()
        self.patch(auth_server, "PURGE_INTERVAL_S", 0.2)
        running = self.start(policy, params)
        await until(running, lambda: running.world.relay.params.get("/u/ann") is None)
        await until(running, lambda: subjects() == ["bob"])
        self.assertIsNotNone(running.world.relay.params.get("/u/bob"))

    async def test_relay_of_a_cluster_ends_nothing_but_in_the_core_that_decides(self) -> None:
        """What guests wrote, and what somebody left whose last session has ended; nothing any more when it is over."""
        rules = {
            "scopes": ["write:/**"],
            "guest_ttl_days": {"/u/{id}": 400},
            "clear_on_disconnect": ["/here/{session}"],
        }
        policy = Policy.from_document(rules)
        self.folder.mkdir()
        store = SqliteUsers(self.folder / "users.db", name_keys)
        made_s = int(time.time()) - 500 * 86_400
        record = TokenRecord(digest_of("ann"), "ann", "ann", True, POLICY_SCOPES, made_s, made_s + 1)
        store.add_guest_token(record, name_keys("ann"), Claim(None, True, made_s))
        store.close()
        self.patch(auth_server, "PURGE_INTERVAL_S", 0.05)
        old = Param("/u/ann", encode_value(1), 1, "s", 0, 0, "ann")
        running = self.start(policy, [old], clear=lambda _addresses: succeed(None))
        deciding = AuthWorld(rules)
        deciding.relay.params.load(StateImage([old], [], {}))
        running.server.act_in(deciding.relay)
        owner = deciding.join("owner")
        owner.send(Set("/here/owner", encode_value(1)))
        owner.leave()

        def is_over() -> bool:
            deciding.advance(0.01)
            return len(deciding.relay.params) == 0

        await until(running, is_over)
        self.assertEqual(len(running.world.relay.params), 1)
        running.server.rest()
        deciding.relay.params.load(StateImage([old], [], {}))
        await deferLater(REACTOR, 0.3)
        self.assertFalse(is_over())

    async def test_tokens_stay_while_it_is_not_known_which_of_them_count(self) -> None:
        """The store is busy when it is asked about guests, so nothing is deleted."""
        policy = Policy.from_document({"scopes": ["read:/**"], "guest_ttl_days": {"/u/{id}": 400}})
        self.patch(auth_server, "PURGE_INTERVAL_S", 0.05)
        asked: list[str] = []

        def busy(*_: object, **__: object) -> None:
            asked.append("guests")
            raise StoreBusy("users.db")

        self.patch(SqliteUsers, "last_issued", busy)
        self.patch(SqliteUsers, "purge", lambda *_: asked.append("purge"))
        running = self.start(policy, [Param("/u/ann", encode_value(1), 1, "s", 0, 0, "ann")])
        await until(running, lambda: len(asked) > 2)
        self.assertEqual(set(asked), {"guests"})

    async def test_tokens_stay_when_another_relay_decides_meanwhile(self) -> None:
        """The one that decides then was not told which tokens of guests are spared."""
        policy = Policy.from_document({"scopes": ["read:/**"]})
        self.patch(auth_server, "PURGE_INTERVAL_S", 0.05)
        asked: list[str] = []

        async def ends(_: object) -> int:
            asked.append("guests")
            if "purge" in asked:
                running.server.rest()
                asked.append("rested")
            return 0

        def purge(*_: object) -> int:
            asked.append("purge")
            return 0

        self.patch(SqliteUsers, "purge", purge)
        running = self.start(policy)
        acting = running.server._clean_up.acting
        assert acting is not None, "alone"
        assert acting.guests is not None, "it has a policy"
        self.patch(acting.guests, "end_old", ends)
        await until(running, lambda: "rested" in asked)
        await deferLater(REACTOR, 0.3)
        self.assertEqual(asked[-1], "rested")
