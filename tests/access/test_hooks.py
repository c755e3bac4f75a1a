"""What a post to a webhook becomes, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access import hooks
from clasp_relay.access.hooks import MAX_HOOK_NAME, MAX_HOOK_TEXT, Hooks, check_hook_address
from clasp_relay.access.names import name_keys
from clasp_relay.access.refusals import BadInput, Limited, Missing, Refusal, Taken
from clasp_relay.access.tokens import digest_of
from clasp_relay.storage.hooks import Hook
from clasp_relay.storage.users_sqlite import SqliteUsers
from clasp_relay.wire.messages import Publish, Set
from clasp_relay.wire.values import decode_value
from tests.access.stack import InlineWorkers
from tests.core.world import START_US, World, value

ADDRESS = "/chat/room/r1/messages"


class HooksTests(SynchronousTestCase):
    """A relay with a room, and a webhook for it."""

    def setUp(self) -> None:
        """The room is open."""
        self.world = World()
        self.client = self.world.join()
        self.client.send(Set("/chat/room/r1/meta", value({"name": "Room", "encrypted": False})))
        self.users = SqliteUsers(None, name_keys)
        self.addCleanup(self.users.close)
        self.hook = Hook(digest_of("secret"), ADDRESS, "chat", "Build", 1)
        self.users.hooks.add(self.hook)
        numbers = itertools.count()
        self.hooks = Hooks(
            self.users.hooks,
            InlineWorkers(),
            self.world.relay.params,
            self.world.clock.now_us,
            lambda size: f"{next(numbers):0{2 * size}x}",
        )

    def post(self, text: str = "hello", name: str | None = None, hook_id: str = "secret") -> Deferred[Any]:
        """Posts to a webhook."""
        return Deferred.fromCoroutine(self.hooks.message(hook_id, text, name))

    def refusal(self, *post: Any) -> type[Refusal]:
        """Returns how a post is refused."""
        failure = self.failureResultOf(self.post(*post))
        assert isinstance(failure.value, Refusal), failure
        return type(failure.value)

    def test_message_is_one_of_the_chats_marked_as_a_bots(self) -> None:
        """Its subject may write there only."""
        who, bundle = self.successResultOf(self.post("Built.", "CI"))
        (message,) = bundle.messages
        assert isinstance(message, Publish)
        assert message.value is not None
        subject = f"clasp.hook.{self.hook.id}"
        self.assertEqual((who.subject, message.address), (subject, ADDRESS))
        self.assertEqual(
            decode_value(message.value),
            {
                "type": "text",
                "from": "CI (bot)",
                "fromId": subject,
                "userId": subject,
                "msgId": "hook-" + "0" * 32,
                "text": "Built.",
                "timestamp": START_US // 1000,
                "avatarColor": "#6b7280",
            },
        )
        self.assertEqual([who.scopes.can_write(each) for each in (ADDRESS, "/chat/room/r2/messages")], [True, False])
        _, bundle = self.successResultOf(self.post())
        self.assertEqual(decode_value(bundle.messages[0].value)["from"], "Build (bot)")

    def test_what_is_wrong_is_refused(self) -> None:
        """Texts, names, webhooks and rooms."""
        for text in ("", " ", "x" * (MAX_HOOK_TEXT + 1)):
            self.assertIs(self.refusal(text), BadInput)
        for name in ("", " ", "a\nb", "x" * (MAX_HOOK_NAME + 1)):
            self.assertIs(self.refusal("text", name, f"other {name}"), BadInput)
        self.assertIs(self.refusal("text", None, "nonsense"), Missing)
        self.client.send(Set("/chat/room/r1/meta", value({"encrypted": True})))
        self.assertIs(self.refusal(), Taken)
        self.client.send(Set("/chat/room/r1/meta", value(7)))
        self.assertIs(self.refusal(), Missing)

    def test_messages_of_a_webhook_are_limited(self) -> None:
        """One a second, ten at once; another one's are not counted with them, and few are remembered."""
        for _ in range(10):
            self.successResultOf(self.post())
        self.assertIs(self.refusal(), Limited)
        self.assertIs(self.refusal("text", None, "another"), Missing)
        self.world.advance(2.5)
        self.successResultOf(self.post())
        self.patch(hooks, "MAX_KNOWN", 1)
        self.refusal("text", None, "a third")
        self.successResultOf(self.post())

    def test_address_must_be_a_rooms_messages(self) -> None:
        """For the chat's template."""
        check_hook_address("chat", ADDRESS)
        for address in ("/chat/room/r1", "/chat/room/r1/typing/x", "/a"):
            self.assertRaises(ValueError, check_hook_address, "chat", address)
