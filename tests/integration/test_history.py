"""REPLAY over real sockets: a room's messages, page by page, also after the relay was killed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clasp_relay.core.history.reading import NEWEST
from clasp_relay.core.history.replays import END_MARK
from clasp_relay.wire.messages import Message, Ping, Pong, Publish, Replay
from clasp_relay.wire.values import PyValue, decode_value
from tests.integration.accounts import AccountsRelay, AccountsTestCase, Person, event, put

ROOM = "/chat/room/r"
MESSAGES = f"{ROOM}/messages"


def said(messages: Sequence[Message]) -> list[str]:
    """Returns the ids of messages."""
    found = [decode_value(each.value or b"\0") for each in messages if isinstance(each, Publish)]
    return [str(value["msgId"]) for value in found if isinstance(value, dict) and "msgId" in value]


class HistoryTests(AccountsTestCase):
    """The chat's policy, on a relay with a journal."""

    def begin(self) -> AccountsRelay:
        """Starts the relay on the files of the one before it."""
        return self.start_accounts("--app-config", "chat", "--rate-limit", "0", "--admin-token", "admin.token")

    def enter(self, relay: AccountsRelay, name: str, token: str) -> Person:
        """Signs somebody in who is in the room."""
        person = self.sign_in(relay, token)
        person.ask(put(f"{ROOM}/presence/{name}", {"name": name}), qos=1)
        return person

    def say(self, person: Person, *numbers: int, **more: PyValue) -> None:
        """Sends messages, and waits until they are recorded."""
        person.send(*(event(MESSAGES, {"msgId": f"m{number}", "text": "x", **more}) for number in numbers))
        person.settle()

    def page(
        self, person: Person, from_us: int, to_us: int | None = None, limit: int = 3
    ) -> tuple[list[str], dict[str, Any]]:
        """Asks for a page, and returns ids and end mark."""
        person.send(Replay(MESSAGES, from_us, to_us, limit))
        *entries, last = person.receive_until(lambda each: isinstance(each, Publish) and each.address == END_MARK)
        assert isinstance(last, Publish)
        mark = decode_value(last.value or b"\0")
        assert isinstance(mark, dict)
        self.assertEqual(mark["count"], len(said(entries)))
        return said(entries), mark

    def backwards(self, person: Person) -> list[list[str]]:
        """Returns all pages from the newest one on."""
        pages, to_us = [], None
        while True:
            ids, mark = self.page(person, NEWEST, to_us)
            pages.append(ids)
            if mark["complete"]:
                return pages
            to_us = int(mark["next"])

    def test_messages_of_a_room_survive_a_kill_and_go_with_the_room(self) -> None:
        """Page by page backwards, for members alone; a deleted message and a deleted room leave nothing."""
        relay = self.begin()
        tokens = {name: relay.api.guest(name) for name in ("ann", "bob", "eve")}
        ann = self.sign_in(relay, tokens["ann"])
        ann.ask(put(f"{ROOM}/meta", {"name": "r"}), qos=1)
        ann, bob = self.enter(relay, "ann", tokens["ann"]), self.enter(relay, "bob", tokens["bob"])
        self.say(ann, *range(1, 6))
        self.say(bob, 6, 7)
        relay.kill()
        relay = self.begin()
        ann, bob, eve = (self.enter(relay, name, tokens[name]) for name in ("ann", "bob", "eve"))
        self.assertEqual(self.backwards(ann), [["m5", "m6", "m7"], ["m2", "m3", "m4"], ["m1"]])
        ids, mark = self.page(bob, 0, limit=2)
        self.assertEqual((ids, mark["complete"]), (["m1", "m2"], False))
        self.assertEqual(self.page(bob, int(mark["next"]), limit=9)[0], ["m3", "m4", "m5", "m6", "m7"])
        # Everybody deletes what is theirs, the creator anything.
        self.say(bob, 8, type="delete", targetId="m5")
        self.say(bob, 9, type="delete", targetId="m6")
        self.say(ann, 10, type="delete", targetId="m7")
        kept = ["m1", "m2", "m3", "m4", "m5", "m8", "m9", "m10"]
        self.assertEqual(self.page(eve, NEWEST, limit=99)[0], kept)
        ann.ask(put(f"{ROOM}/bans/eve", {"by": "ann"}), qos=1)
        self.assertEqual(self.page(eve, NEWEST, limit=99)[0], [])
        # A PONG behind it comes behind it.
        bob.send(Replay(MESSAGES), Ping())
        self.assertEqual(said(bob.receive_until(lambda each: isinstance(each, Pong))), kept)
        ann.ask(put(f"{ROOM}/meta", {"name": "r", "history": False}), qos=1)
        self.say(ann, 11)
        self.assertEqual(self.page(bob, NEWEST)[0], [])
        ann.ask(put(f"{ROOM}/meta", {"name": "r"}), qos=1)
        self.say(ann, 12)
        relay.kill()
        relay = self.begin()
        ann, bob = (self.enter(relay, name, tokens[name]) for name in ("ann", "bob"))
        self.assertEqual(self.page(bob, NEWEST)[0], ["m12"])
        ann.ask(put(f"{ROOM}/meta", None), qos=1)
        ann.ask(put(f"{ROOM}/meta", {"name": "again"}), qos=1)
        self.assertEqual(self.page(ann, NEWEST)[0], [])
        self.assertEqual(relay.stop(), 0, relay.log)
        self.assertNotIn(b"m12", (relay.state_file.parent / "journal.db").read_bytes())
