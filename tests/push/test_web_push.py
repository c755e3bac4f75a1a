"""Web Push put together: what is opened, told, and closed again, with a real thread and real TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from clasp_relay.access.names import name_keys
from clasp_relay.access.tokens import EndOfToken
from clasp_relay.push.encryption import make_vapid_key
from clasp_relay.push.web_push import WebPush
from clasp_relay.settings import Settings
from clasp_relay.storage.users_sqlite import SqliteUsers
from clasp_relay.wire.constants import Signal
from clasp_relay.wire.messages import Publish, Set
from tests.access.stack import InlineWorkers
from tests.access.test_permissions import AuthWorld
from tests.core.world import value
from tests.push.push_service import PushService, check_vapid
from tests.push.test_chat import DM, POLICY
from tests.push.test_subscriptions import signed_in
from tests.rules.test_watcher import SEES_ALL

REACTOR: Any = reactor


class WebPushTests(TestCase):
    """A relay in memory, and a push service on the loopback."""

    def setUp(self) -> None:
        """Opens and starts it."""
        self.service = PushService()
        self.service.listen(REACTOR)
        self.addCleanup(self.service.port.stopListening)
        self.world = AuthWorld(POLICY)
        self.path = Path(self.mktemp())
        self.push = self.open()

    def open(self) -> WebPush:
        """Makes one on the same file as before."""
        users = SqliteUsers(self.path, name_keys)
        self.addCleanup(users.close)
        allowed = (self.service.origin.removeprefix("https://"),)
        settings = Settings(push_allow=allowed, push_contact="mailto:op@relay.example")
        push = WebPush(settings, REACTOR, self.world.relay, SEES_ALL, lambda *_: True, self.service.trust)
        push.open(users.push, InlineWorkers())
        push.acts(True)
        return push

    async def subscribe(self, name: str) -> None:
        """Adds a browser of the reader's."""
        given: Any = self.service.browser(name)
        keys = given["keys"]
        record = signed_in("reader", b"s")
        await self.push.subscriptions.add(record, given["endpoint"], keys["p256dh"], keys["auth"], "")

    async def say(self) -> None:
        """Says something in a direct-message room, and waits until all is sent."""
        owner, admin = self.world.join("owner"), self.world.join("admin")
        admin.send(Set(f"{DM}/meta", value({"dmUsers": ["owner", "reader"]})))
        admin.send(Set(f"{DM}/members/reader", value({"name": "R"})))
        owner.ask(Publish(f"{DM}/messages", Signal.EVENT, value=value({"text": "hi"})))
        while self.push.waiting:
            await deferLater(REACTOR, 0.01)

    async def test_message_reaches_the_browser(self) -> None:
        """Encrypted for it, by a key that stays."""
        self.push.start()
        await self.subscribe("a")
        await self.say()
        (received,) = self.service.received
        self.assertEqual(received.payload, {"room": "dm-1", "kind": "dm"})
        check_vapid(received.headers["authorization"], self.service.origin, self.push.public_key)
        self.assertEqual(dict(self.push.outcomes), {"sent": 1})
        self.push.stop()
        after = self.open()
        self.assertEqual((after.public_key, len(after.subscriptions)), (self.push.public_key, 1))

    async def test_dead_subscription_goes(self) -> None:
        """From the file, too."""
        self.push.start()
        self.service.status = 410
        await self.subscribe("a")
        await self.say()
        self.assertEqual(dict(self.push.outcomes), {"gone": 1})
        self.push.stop()
        self.assertEqual((len(self.push.subscriptions), len(self.open().subscriptions)), (0, 0))

    async def test_browser_that_was_signed_out_is_told_no_more(self) -> None:
        """A token that has only expired ends nothing: the browser refreshes it."""
        await self.subscribe("a")
        self.push.token_ended(signed_in("reader", b"s"), EndOfToken.EXPIRED)
        self.assertEqual(len(self.push.subscriptions), 1)
        self.push.token_ended(signed_in("reader", b"s"), EndOfToken.REVOKED)
        self.assertEqual(len(self.push.subscriptions), 0)

    async def test_nothing_is_told_before_the_start_and_after_the_end(self) -> None:
        """Nothing is counted either."""
        await self.subscribe("a")
        await self.say()
        self.push.start()
        self.push.stop()
        await self.say()
        self.assertEqual((self.service.received, dict(self.push.outcomes)), ([], {}))

    async def test_key_of_the_cluster_takes_the_place_of_its_own(self) -> None:
        """What is sent from then on proves that it comes from there."""
        await self.subscribe("a")
        before = self.push.public_key
        self.push.start()
        self.addCleanup(self.push.stop)
        self.push.take_key(make_vapid_key())
        self.assertNotEqual(self.push.public_key, before)
        await self.say()
        self.assertEqual(dict(self.push.outcomes), {"sent": 1})
        (request,) = self.service.received
        check_vapid(request.headers["authorization"], self.service.origin, self.push.public_key)

    async def test_all_is_taken_from_the_store(self) -> None:
        """Where it has come from another relay as a whole: the key and the browsers."""
        other = self.open()
        await self.subscribe("a")
        await other.reload()
        self.assertEqual(len(other.subscriptions), 1)
        self.assertEqual(other.public_key, self.push.public_key)

    async def test_relay_of_a_cluster_tells_only_while_it_decides(self) -> None:
        """So nobody is told twice."""
        self.push.acts(False)
        self.push.start()
        await self.subscribe("a")
        await self.say()
        self.assertEqual(self.service.received, [])
        self.push.acts(True)
        await self.say()
        self.assertEqual(len(self.service.received), 1)
        self.push.stop()
