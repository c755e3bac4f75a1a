"""Which requests are decided in a turn, and which wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clasp_relay.cluster.deciding.batch_log import CHANGE_BYTES, MAX_BATCH_BYTES
from clasp_relay.cluster.deciding.request_turns import TURN_US
from clasp_relay.cluster.exchange.batches import LinkEnded
from clasp_relay.cluster.exchange.packets import Asked, Entry
from clasp_relay.core.session.sessions import Session
from clasp_relay.wire.messages import Ack, Bundle, Message, Set
from tests.cluster.deciding_world import LINK, DecidingCase, said
from tests.core.world import START_US, value


class RequestTurnsTests(DecidingCase):
    """Requests of one relay's sessions."""

    def ask_too_late(self, *entries: Entry) -> None:
        """Sends a packet in a turn that has no time for it: it waits for a later one."""
        now_us = START_US

        def long_since() -> int:
            nonlocal now_us
            now_us += TURN_US
            return now_us

        clock = self.patch(self.deciding.relay.clock, "now_us", long_since)
        self.ask(*entries)
        clock.restore()

    def test_one_sessions_flood_leaves_others_their_turn(self) -> None:
        """What takes longer than a turn may is decided in later ones, one message of each session in turn."""
        self.begin()
        self.ask(Entry(1, "t", int(Asked.BEGIN)))
        self.sealed()
        decided: list[str] = []
        accept = self.deciding.relay.accept

        def slowly(session: Session, message: Message, *more: Any) -> None:
            self.clock.rightNow += 0.001
            decided.append(session.id)
            accept(session, message, *more)

        self.patch(self.deciding.relay, "accept", slowly)
        flood = [said(number, Set("/a", value(number)), 1) for number in range(2, 402)]
        self.ask(*flood, said(2, Set("/b", value(1)), 1)._replace(session_id="t"))
        self.assertLessEqual(len(decided), TURN_US // 1_000 + 1)
        self.assertIn("t", decided)
        self.ask(said(3, Set("/b", value(2)), 1)._replace(session_id="t"))
        items = self.sealed()
        self.assertLess(decided.index("t", decided.index("t") + 1), 8)
        answers = self.answers(items)
        while len(answers) < 402:
            answers += self.answers(self.sealed())
        self.assertEqual([ack.revision for ack in answers if isinstance(ack, Ack) and ack.address == "/a"][-1], 400)

    def test_what_waits_for_its_turn_goes_with_its_session(self) -> None:
        """It is not decided in a later turn."""
        self.begin()
        self.ask_too_late(said(2, Set("/a", value(1)), 1))
        self.deciding.end_link(LINK)
        self.assertEqual([type(item) for item in self.sealed()], [LinkEnded])

    def test_what_waits_for_its_turn_goes_with_the_decider(self) -> None:
        """The next one decides it."""
        self.begin()
        self.ask_too_late(said(2, Set("/a", value(1)), 1))
        self.deciding.stop()
        self.assertEqual(self.sealed(), [])

    def test_what_waits_for_its_turn_is_decided_in_a_later_one(self) -> None:
        """If nothing ends meanwhile."""
        self.begin()
        self.ask_too_late(said(2, Set("/a", value(1)), 1))
        self.assertIsNone(self.deciding.relay.params.get("/a"))
        self.assertEqual(self.answers(self.sealed()), [Ack("/a", 1)])

    def test_a_full_batch_grows_no_more_while_it_waits_for_a_bundle(self) -> None:
        """What others ask waits, too, and is decided behind it: the engine takes no batch of any length."""
        self.ask(*(Entry(1, name, int(Asked.BEGIN)) for name in "st"))
        self.sealed()
        sizes_bytes: list[int] = []

        def close() -> None:
            sizes_bytes.extend(sealed.size_bytes for sealed in self.deciding.seal())

        self.log.when_full = close
        turns: list[Callable[[], None]] = []
        for owner in (self.deciding.relay.clock, self):
            self.patch(owner, "call_later", lambda _delay_s, call: turns.append(call))
        self.ask(said(2, Bundle(tuple(Set(f"/b/{n}", value(n)) for n in range(2_000))), 1))
        flood = [Set(f"/big/{n}", value("x" * 60_000)) for n in range(20)]
        number = 1
        while turns:
            begun = turns[:]
            turns.clear()
            for call in begun:
                call()
            if self.log.size_bytes > MAX_BATCH_BYTES and flood:
                number += 1
                self.ask(said(number, flood.pop(), 1)._replace(session_id="t"))
        self.assertEqual(flood, [])
        close()
        *others_bytes, bundle_bytes = sorted(sizes_bytes)
        self.assertLess(bundle_bytes, 2_000 * (CHANGE_BYTES + 100) + MAX_BATCH_BYTES)
        self.assertLess(max(others_bytes), 3 * MAX_BATCH_BYTES)
        self.assertIsNotNone(self.deciding.relay.params.get("/big/0"), "the last one is decided, too")
