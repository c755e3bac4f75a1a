"""Messages on their way to a push service, over real TLS."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import succeed
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.server import NOT_DONE_YET

from clasp_relay.push import sender
from clasp_relay.push.destinations import Places, make_agent
from clasp_relay.push.encryption import Vapid, make_vapid_key
from clasp_relay.push.sender import AT_ONCE_PER_LANE, FIRST_REST_S, LONGEST_REST_S, Notice, Sender
from clasp_relay.storage.push_subscriptions import Subscription
from tests.access.stack import InlineWorkers
from tests.push.push_service import AUTH, Browser, PushService, check_vapid

REACTOR: Any = reactor
NOTICE = Notice("r1", "dm", 60)


class SenderTests(TestCase):
    """One push service with a few browsers."""

    def setUp(self) -> None:
        """Listens on the loopback."""
        self.service = PushService()
        self.service.listen(REACTOR)
        self.addCleanup(self.service.port.stopListening)
        self.gone: list[str] = []
        self.vapid = Vapid(make_vapid_key(), "mailto:op@relay.example", time.time)
        self.sender = self.make(self.service.origin.removeprefix("https://"))

    def make(self, *allowed: str) -> Sender:
        """Returns a sender that may send there."""
        agent = make_agent(REACTOR, Places(lambda *_: succeed(["127.0.0.1"]), allowed), self.service.trust)
        made = Sender(
            REACTOR,
            agent,
            self.vapid,
            InlineWorkers(),
            lambda each: self.gone.append(each.endpoint),
            lambda each: each.subject.partition("@")[2] or each.subject,
        )
        self.addCleanup(made.close)
        return made

    def subscription(self, name: str) -> Subscription:
        """Returns a new browser's."""
        self.service.browsers[name] = browser = Browser()
        return Subscription(f"{self.service.origin}/{name}", "ann", browser.public, AUTH, b"", 0)

    async def sent(self, made: Sender | None = None) -> dict[str, int]:
        """Waits until nothing is on its way; returns what became of all."""
        made = made or self.sender
        while made.waiting:
            await deferLater(REACTOR, 0.01)
        return dict(made.outcomes)

    async def test_browser_reads_what_was_sent_and_knows_who_sent_it(self) -> None:
        """The push service learns neither; a newer message about the room takes the place of one that waits."""
        self.sender.send(self.subscription("a"), NOTICE)
        self.assertEqual(await self.sent(), {"sent": 1})
        (received,) = self.service.received
        self.assertEqual((received.path, received.payload), ("a", {"room": "r1", "kind": "dm"}))
        headers = received.headers
        self.assertEqual((headers["content-encoding"], headers["ttl"], headers["urgency"]), ("aes128gcm", "60", "high"))
        self.assertEqual((len(headers["topic"]), headers["topic"]), (32, NOTICE.topic))
        claims = check_vapid(headers["authorization"], self.service.origin, self.vapid.public_key)
        self.assertEqual(claims["sub"], "mailto:op@relay.example")

    async def test_browsers_that_are_gone_are_told_of(self) -> None:
        """By 404 and 410 alone; whatever else happens they may come back."""
        for status, outcome, gone in ((404, "gone", 1), (410, "gone", 1), (429, "refused", 0), (500, "refused", 0)):
            with self.subTest(status=status):
                self.gone.clear()
                self.sender.outcomes.clear()
                self.service.status = status
                self.sender.send(self.subscription("a"), NOTICE)
                self.assertEqual((await self.sent(), len(self.gone)), ({outcome: 1}, gone))

    async def test_nothing_is_sent_to_private_addresses(self) -> None:
        """Whatever was looked up when the browser subscribed."""
        made = self.make()
        made.send(self.subscription("a"), NOTICE)
        self.assertEqual((await self.sent(made), self.service.received), ({"forbidden": 1}, []))

    async def test_push_service_that_does_not_answer_holds_nobody_up(self) -> None:
        """For long: of one person a few are asked at once, and a bounded number waits; then the host has a rest."""
        self.patch(sender, "MAX_WAITING_PER_SUBJECT", 3)
        self.patch(sender, "REQUEST_S", 0.2)
        take = self.service.render_POST
        self.patch(self.service, "render_POST", lambda _request: NOT_DONE_YET)
        for _ in range(AT_ONCE_PER_LANE + 5):
            self.sender.send(self.subscription("a"), NOTICE)
        self.assertEqual(self.sender.outcomes["left_out"], 2)
        self.assertEqual(await self.sent(), {"left_out": 2, "unreachable": AT_ONCE_PER_LANE + 3})
        self.sender.send(self.subscription("a"), NOTICE)
        self.assertEqual(self.sender.outcomes["left_out"], 3)
        self.sender._rests.clear()
        self.patch(self.service, "render_POST", take)
        self.sender.send(self.subscription("a"), NOTICE)
        self.assertEqual((await self.sent())["sent"], 1)

    async def test_people_take_turns(self) -> None:
        """Who has much to be told does not keep others waiting; in all a bounded number waits."""
        self.patch(sender, "MAX_WAITING", 3)
        order: list[str] = []
        self.patch(self.sender, "_post", self._post(order))
        first = self.subscription("a")
        for _ in range(4):
            self.sender.send(first, NOTICE)
        for _ in range(5):
            self.sender.send(self.subscription("b")._replace(subject="bob"), NOTICE)
        self.assertEqual(await self.sent(), {"left_out": 2, "sent": 7})
        self.assertEqual(order[:4], ["ann", "ann", "bob", "bob"])

    async def test_who_has_much_to_be_told_makes_room_for_others(self) -> None:
        """Where no more can wait, the newest of whoever has most are left out."""
        self.patch(sender, "MAX_WAITING", 6)
        order: list[str] = []
        self.patch(self.sender, "_post", self._post(order))
        browser = self.subscription("a")
        for subject in ("eve", "mal", "ann", "bob"):
            for _ in range(5 if subject in ("eve", "mal") else 3):
                self.sender.send(browser._replace(subject=subject), NOTICE)
        self.patch(sender, "AT_ONCE", 0)
        self.sender.send(browser._replace(subject="zoe"), NOTICE)
        self.assertEqual(len(self.sender._waiting["zoe"]["zoe"]), 1)
        waiting = [queue for subjects in self.sender._waiting.values() for queue in subjects.values()]
        self.assertEqual(self.sender._queued, sum(map(len, waiting)))
        self.patch(sender, "AT_ONCE", 8)
        told = await self.sent()
        self.assertEqual(told["left_out"] + told["sent"], 17)
        self.assertEqual((order.count("ann"), order.count("bob"), order.count("zoe")), (3, 3, 1))

    async def test_guests_of_one_address_take_one_turn_together(self) -> None:
        """However many there are, with slow push services: another's message is among the next ones."""
        self.patch(sender, "AT_ONCE", 2)
        order: list[str] = []
        self.patch(self.sender, "_post", self._post(order))
        browser = self.subscription("a")
        for number in range(30):
            self.sender.send(browser._replace(subject=f"guest{number}@192.0.2.1"), NOTICE)
        self.sender.send(browser._replace(subject="ann"), NOTICE)
        self.assertEqual((await self.sent())["sent"], 31)
        self.assertLess(order.index("ann"), 5)
        self.assertEqual(len({*order[:10]}), 10, "in an address they take turns, too")
        self.assertEqual((self.sender._waiting, self.sender._in_lane), ({}, {}))

    async def test_guests_of_one_address_make_room_for_others(self) -> None:
        """Each of them has one message that waits, and all together have most."""
        self.patch(sender, "MAX_WAITING", 20)
        self.patch(sender, "AT_ONCE", 0)
        browser = self.subscription("a")
        for number in range(20):
            self.sender.send(browser._replace(subject=f"guest{number}@192.0.2.1"), NOTICE)
        for subject in ("ann", "bob", "bob", "late@192.0.2.1"):
            self.sender.send(browser._replace(subject=subject), NOTICE)
        self.assertEqual(self.sender._in_lane, {"192.0.2.1": 17, "ann": 1, "bob": 2})
        self.assertEqual(self.sender.outcomes["left_out"], 4)

    def _post(self, order: list[str]) -> Any:
        async def post(subscription: Subscription, _notice: Notice) -> int:
            order.append(subscription.subject)
            await deferLater(REACTOR, 0.01)
            return 201

        return post

    async def test_push_service_that_is_not_there(self) -> None:
        """Costs nothing but a line in the log; the next tries come later and later."""
        subscription = self.subscription("a")
        await self.service.port.stopListening()
        self.sender.send(subscription, NOTICE)
        self.assertEqual(await self.sent(), {"unreachable": 1})
        host = "localhost"
        rests = [self.sender._rests[host][1]]
        for _ in range(9):
            self.sender._rest(host)
            rests.append(self.sender._rests[host][1])
        self.assertEqual(rests[:3], [FIRST_REST_S, 2 * FIRST_REST_S, 4 * FIRST_REST_S])
        self.assertEqual(rests[-1], LONGEST_REST_S)

    async def test_end_ends_requests(self) -> None:
        """And no more are made."""
        self.patch(self.service, "render_POST", lambda _request: NOT_DONE_YET)
        subscription = self.subscription("a")
        self.sender.send(subscription, NOTICE)
        await deferLater(REACTOR, 0.05)
        self.sender.close()
        self.sender.send(subscription, NOTICE)
        self.assertEqual(await self.sent(), {"left_out": 1})
