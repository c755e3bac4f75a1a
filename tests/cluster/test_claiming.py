"""Another relay comes to decide when the decider is gone."""

from __future__ import annotations

from clasp_relay.cluster.membership import Role
from clasp_relay.errors import CloseCode, ErrorCode
from clasp_relay.wire.messages import Bundle, Get, Hello, Message, Ping
from tests.cluster.world import Client, Member, ThreeRelays, put
from tests.core.world import codes, heard, revisions


class ClaimingTests(ThreeRelays):
    """Who decides next, and what it has."""

    def test_writes_go_on_without_the_decider(self) -> None:
        """They wait for the next one: none is lost, none doubled."""
        writer = self.first.join()
        self.assertEqual(revisions(writer.ask(put("/a", 1), 1)), [1])
        self.decider.kill()
        writer.send(put("/a", 2), 1)
        self.cluster.advance(4)
        self.assertEqual(revisions(writer.hear()), [2])
        self.assertIn(self.cluster.decider, (self.first, self.second))
        self.assertEqual(self.first.relay.params.image(), self.second.relay.params.image())

    def test_what_was_in_the_log_and_not_told_is_not_done_again(self) -> None:
        """The decider dies between the log's acknowledgement and its own journal's."""
        writer = self.first.join()
        writer.ask(Ping())
        self.decider.journal.is_slow = True
        writer.ask(put("/a", 1), 1)
        before = len(self.cluster.bus.log)
        self.decider.kill()
        self.cluster.advance(4)
        self.assertEqual(revisions(writer.hear()), [1])
        self.assertGreater(len(self.cluster.bus.log), before)
        self.assertEqual(revisions(writer.ask(put("/a", 2), 1)), [2])

    def test_a_relay_that_comes_back_with_more_keeps_nobody_from_deciding(self) -> None:
        """Whoever follows reads from the log what it lacks, and decides; the other one then joins."""
        writer = self.decider.join()
        self.first.engine.is_paused = True
        writer.ask(put("/a", 1), 1)
        self.decider.kill()
        self.second.kill()
        back = self.decider.again()
        self.first.engine.is_paused = False
        self.cluster.advance(10)
        self.assertIs(self.cluster.decider, self.first)
        self.assertIs(back.node.role, Role.FOLLOWER)
        self.assertEqual(revisions(back.join().ask(put("/a", 2), 1)), [2])

    def test_scheduled_bundles_run_once_at_the_next_decider(self) -> None:
        """Their time comes though the relay that took them is gone."""
        writer = self.first.join()
        due_us = self.first.now_us() + 6_000_000
        writer.ask(Bundle((put("/later", 1),), due_us), 1)
        self.decider.kill()
        self.cluster.advance(8)
        self.assertEqual(heard(writer.ask(Get("/later"))), [("/later", 1)])
        param = self.second.relay.params.get("/later")
        assert param is not None
        self.assertEqual(param.revision, 1)

    def test_standby_takes_no_clients_and_decides_when_nobody_else_can(self) -> None:
        """It is a warm spare."""
        spare = self.cluster.add("spare", is_standby=True)
        self.cluster.advance(3)
        self.assertFalse(spare.node.is_ready)
        self.assertEqual(codes(_refused(spare)), [ErrorCode.OVERLOADED])
        for member in (self.decider, self.first, self.second):
            member.kill()
        self.cluster.advance(6)
        self.assertIs(spare.node.role, Role.DECIDER)
        self.assertTrue(spare.node.is_ready)
        client = spare.join()
        self.assertEqual(revisions(client.ask(put("/a", 1), 1)), [1])
        client.hear()
        # Another standby does not take the clients over.
        other = self.cluster.add("other", is_standby=True)
        self.cluster.advance(4)
        self.assertIsNone(client.outbox.closed)
        self.assertEqual(codes(_refused(other)), [ErrorCode.OVERLOADED])

        back = self.first.again()
        self.cluster.advance(4)
        self.assertIs(back.node.role, Role.DECIDER)
        self.assertFalse(spare.node.is_ready)
        assert client.outbox.closed is not None
        self.assertEqual(client.outbox.closed[0], CloseCode.TRY_AGAIN_LATER)
        self.assertEqual(codes(_refused(spare)), [ErrorCode.OVERLOADED])
        self.assertEqual(revisions(back.join().ask(put("/a", 2), 1)), [2])


def _refused(member: Member) -> list[Message]:
    """Returns what a client hears that says HELLO."""
    client = Client(member)
    client.send(Hello(1, 0xE0, "test", ""))
    return client.hear()
