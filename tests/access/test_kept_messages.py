"""Tests of clasp_relay.access.kept_messages: what history holds of a message that was reported."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.kept_messages import MAX_EDITS, MAX_TEXT, KeptMessage, compared, find_kept, pages_of
from clasp_relay.core.history.memory import MemoryHistory
from clasp_relay.core.history.reading import Asked, Page
from clasp_relay.core.history.replays import Replays
from clasp_relay.errors import RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.messages import Publish, Set
from tests.access.console_world import ConsoleWorld
from tests.core.world import START_US, Client, value

START_S = START_US // 1_000_000
ROOM = "/chat/room/r1"


class KeptMessageTests(SynchronousTestCase):
    """The room r1 of Alice (a1), with Bob (b1) inside."""

    def setUp(self) -> None:
        """Makes it."""
        self.world = ConsoleWorld("chat")
        self.addCleanup(self.world.close)
        self.alice = self.world.world.join(self.world.register("Alice", "a1"))
        self.bob = self.world.world.join(self.world.register("Bob", "b1"))
        self.alice.send(Set(f"{ROOM}/meta", value({"name": "Room"})))
        for client, user_id in ((self.alice, "a1"), (self.bob, "b1")):
            client.send(Set(f"{ROOM}/presence/{user_id}", value({"name": user_id})))

    @property
    def replays(self) -> Replays:
        """Reads history."""
        replays = self.world.relay.replays
        assert replays is not None
        return replays

    def say(self, client: Client, **fields: Any) -> None:
        """Sends a message, a second after what was sent before."""
        self.world.world.clock.clock.advance(1)
        client.send(Publish(f"{ROOM}/messages", value=value(fields)))

    def find(self, msg_id: str = "m1", most: int = 10) -> list[KeptMessage]:
        """Returns what is kept of a message."""
        return self.world.do(find_kept(self.replays, "r1", msg_id, most))

    def test_message_is_found_with_its_authors_edits(self) -> None:
        """As they were sent, with whom the relay has proven to be the author; others' edits of it count for nothing."""
        self.say(self.bob, msgId="m0", text="before", type="text")
        self.say(self.alice, msgId="m1", text="bad", type="text", kind="message", image="data:x")
        self.say(self.bob, msgId="e1", targetId="m1", text="forged", type="edit")
        self.say(self.alice, msgId="e2", targetId="m1", text="good", type="edit", kind="edit")
        self.say(self.bob, msgId="m2", text="answer", type="text", replyTo={"msgId": "m1"})
        self.assertEqual(
            self.find(), [KeptMessage("a1", START_S + 2, "bad", True), KeptMessage("a1", START_S + 4, "good", False)]
        )
        self.assertEqual(self.find("m2"), [KeptMessage("b1", START_S + 5, "answer", False)])

    def test_what_is_not_kept_is_not_found(self) -> None:
        """It was never said, or it was deleted; an edit and a delete are no messages."""
        self.say(self.alice, msgId="m1", text="bad", type="text")
        self.say(self.alice, msgId="e1", targetId="m1", text="x", type="edit")
        self.say(self.alice, msgId="d1", targetId="m1", type="delete")
        for msg_id in ("m1", "e1", "d1", "never"):
            with self.subTest(msg_id=msg_id):
                self.assertEqual(self.find(msg_id), [])

    def test_encrypted_text_is_none(self) -> None:
        """Neither is a file's name told."""
        self.say(self.alice, msgId="m1", text="Q2lwaGVy", iv="aXY=", encrypted=True, type="text", encryptedFile="x")
        self.assertEqual(self.find(), [KeptMessage("a1", START_S + 1, None, True)])

    def test_what_is_shown_is_bounded(self) -> None:
        """Long texts, and many edits, of which the latest are shown; no more pages are read than are asked for."""
        self.say(self.alice, msgId="m1", text="x" * (MAX_TEXT + 1))
        for number in range(MAX_EDITS + 2):
            self.say(self.alice, msgId=f"e{number}", targetId="m1", text=str(number), type="edit")
        found = self.find()
        self.assertEqual((len(found[0].text or ""), len(found)), (MAX_TEXT, MAX_EDITS + 1))
        self.assertEqual([each.text for each in found[1:]], [str(number) for number in range(2, MAX_EDITS + 2)])
        for number in range(300):
            self.say(self.bob, msgId=f"n{number}", text="y")
        self.assertEqual([each.text for each in self.find("n299")], ["y"])
        self.assertEqual(self.find("n299", 1), [])

    def test_pages_are_read_backwards_too(self) -> None:
        """Each entry once."""
        for number in range(300):
            self.say(self.bob, msgId=f"n{number}", text="y")

        async def read(is_backwards: bool) -> list[int]:
            asked = Asked(Pattern.parse(f"{ROOM}/messages"), is_backwards=is_backwards)
            return [entry.seq async for page in pages_of(self.replays, asked, 10) for entry in page.entries]

        forwards = self.world.do(read(False))
        self.assertEqual((len(forwards), forwards), (300, self.world.do(read(True))[::-1]))

    def test_history_that_cannot_be_read_is_an_error(self) -> None:
        """It can be tried again."""

        def fail(_history: MemoryHistory, _asked: Asked, done: Any) -> Page | None:
            done(None)
            return None

        self.patch(MemoryHistory, "read", fail)
        self.assertRaises(RequestError, self.find)


class ComparedTests(SynchronousTestCase):
    """What a report says, and what is kept."""

    def test_report_is_compared_with_what_is_kept(self) -> None:
        """Author and text, each alone; nothing is said where there is nothing to compare."""
        kept = [KeptMessage("a1", 1, "bad", False), KeptMessage("a1", 2, "good", False)]
        secret = [KeptMessage("a1", 1, None, False)]
        for message, messages, author, text in (
            ({"userId": "a1", "text": "bad"}, kept, True, True),
            ({"userId": "a1", "text": "good"}, kept, True, True),
            ({"userId": "b1", "text": "worse"}, kept, False, False),
            ({"userId": 7, "text": ["bad"]}, kept, None, None),
            ({}, kept, None, None),
            ("bad", kept, None, None),
            ({"userId": "a1", "text": "bad"}, secret, True, None),
        ):
            with self.subTest(message=message):
                self.assertEqual(compared(message, messages), {"same_author": author, "same_text": text})
