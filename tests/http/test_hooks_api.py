"""Posts to webhooks over HTTP."""

from __future__ import annotations

from secrets import token_hex

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.addresses import ClientAddresses
from clasp_relay.access.hooks import Hooks
from clasp_relay.access.names import name_keys
from clasp_relay.access.tokens import digest_of
from clasp_relay.doors.door import RequestDoor
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.http.api_sessions import ApiSessions
from clasp_relay.http.cors import Origins
from clasp_relay.http.hooks_api import make_hooks_resource
from clasp_relay.http.site import MAX_BODY_BYTES
from clasp_relay.storage.hooks import Hook
from clasp_relay.storage.users_sqlite import SqliteUsers
from clasp_relay.wire.messages import Set, Subscribe
from tests.access.stack import InlineWorkers
from tests.access.test_permissions import AuthWorld
from tests.core.world import heard, value
from tests.http.memory_site import Answer, MemorySite

POLICY = {
    "scopes": ["read:/**", "write:/**"],
    "write_rules": [{"path": "/chat/room/{id}/messages", "checks": [{"type": "value_null"}]}],
}
"""Nobody passes the rule; a webhook skips it."""


class HooksApiTests(SynchronousTestCase):
    """The memory site has the webhooks at /auth."""

    def setUp(self) -> None:
        """A relay with a room, somebody in it, and a webhook."""
        self.world = AuthWorld(POLICY)
        users = SqliteUsers(None, name_keys)
        self.addCleanup(users.close)
        users.hooks.add(Hook(digest_of("secret"), "/chat/room/r1/messages", "chat", "Build", 1))
        relay = self.world.relay
        hooks = Hooks(users.hooks, InlineWorkers(), relay.params, self.world.clock.now_us, token_hex)
        sessions = ApiSessions(relay)
        self.addCleanup(sessions.close)
        self.told: list[tuple[str, str, str]] = []
        door = RequestDoor("hooks", "webhooks", lambda *told: self.told.append(told))
        self.counts = door.counts
        addresses = ClientAddresses(())
        self.site = MemorySite(make_hooks_resource(hooks, sessions, door, origins=Origins(None), addresses=addresses))
        self.member = self.world.join("owner")
        self.member.ask(Set("/chat/room/r1/meta", value({"name": "Room"})))
        self.member.ask(Subscribe(1, "/chat/room/r1/messages"))

    def post(self, body: object, hook_id: str = "secret", method: str = "POST") -> Answer:
        """Makes a request."""
        return self.site.request(method, f"/auth/{hook_id}", body)

    def test_post_is_sent_into_the_room(self) -> None:
        """Nothing is left of its session."""
        answer = self.post({"text": "Built.", "name": "CI"})
        self.assertEqual((answer.status, answer.json), (202, {}))
        ((address, told),) = heard(self.member.hear())
        assert isinstance(told, dict)
        self.assertEqual((address, told["text"], told["from"]), ("/chat/room/r1/messages", "Built.", "CI (bot)"))
        self.assertEqual((len(self.world.relay.sessions), self.counts.messages, self.counts.refused), (1, 1, 0))

    def test_what_is_wrong_is_answered_in_a_sentence(self) -> None:
        """Each with its status."""
        for body, hook_id, method, status in (
            (b"{", "secret", "POST", 400),
            ({}, "secret", "POST", 400),
            ({"text": 7}, "secret", "POST", 400),
            ({"text": "x"}, "nonsense", "POST", 404),
            ({"text": "x"}, "", "POST", 404),
            ({"text": "x"}, "a/b", "POST", 404),
            ({"text": "x"}, "%FF", "POST", 404),
            ({"text": "x"}, "secret", "GET", 405),
            (b" " * (MAX_BODY_BYTES + 1), "secret", "POST", 413),
        ):
            with self.subTest(body=body if len(str(body)) < 99 else "", hook_id=hook_id, method=method):
                answer = self.post(body, hook_id, method)
                self.assertEqual((answer.status, set(answer.json)), (status, {"error"}))
        self.member.ask(Set("/chat/room/r1/meta", value({"encrypted": True})))
        self.assertEqual(self.post({"text": "x"}).status, 409)
        self.assertEqual(heard(self.member.hear()), [])

    def test_relay_may_refuse_it(self) -> None:
        """As any message, and a fault of ours is no secret told."""

        def refuse(*_: object) -> None:
            raise RequestError(ErrorCode.OVERLOADED, "full")

        self.patch(self.world.relay.committer, "write_all", refuse)
        answer = self.post({"text": "x"})
        self.assertEqual((answer.status, answer.json, self.counts.refused), (503, {"error": "full"}, 1))
        self.assertEqual(self.told, [("webhooks", "192.0.2.1", "full")])
        for _ in range(9):
            self.post({"text": "x"})
        self.assertEqual(self.post({"text": "x"}).headers["retry-after"], "1")
        self.world.advance(2)
        self.patch(ApiSessions, "ask_as", lambda *_: 1 / 0)
        self.assertEqual(self.post({"text": "x"}).status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
