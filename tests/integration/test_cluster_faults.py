"""A cluster under faults: whatever dies or is cut off, clients see what one relay would have shown them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.wire.messages import Ack, Set
from clasp_relay.wire.values import encode_value
from tests.integration.cluster import Cluster, Member
from tests.integration.cluster_checker import Outcome, violations
from tests.integration.cluster_faults import OPTIONS, run
from tests.integration.cluster_load import ROOT, Load, shown
from tests.integration.nats import set_back
from tests.integration.process import wait_until

SEED = int(os.environ.get("CLUSTER_SEED", "18"))


class FaultTests(SynchronousTestCase):
    """Every fault once, under load, with three nats-servers on hosts of their own."""

    def test_faults_break_no_promise(self) -> None:
        """Killed, stopped, cut off, with wrong clocks, and started anew: the checker finds nothing."""
        folder = Path(self.mktemp()).absolute()
        report = run(folder, [], SEED)
        self.assertEqual(report.wrong(), [], str(report))
        self.assertGreater(sum(each.outcome is Outcome.DONE for each in report.history.sent), 500)
        self.assertGreater(len({claim.epoch for claim in report.history.claims}), 3, "the decider has changed")
        print(report)


class StreamTests(SynchronousTestCase):
    """One nats-server, whose stream loses what it has acknowledged."""

    def setUp(self) -> None:
        """Starts two relays."""
        self.folder = Path(self.mktemp()).absolute()
        self.cluster = Cluster(self.folder, options=OPTIONS)
        self.addCleanup(self.cluster.close)
        self.cluster.start()

    def write(self, member: Member, count: int) -> None:
        """Has so many writes acknowledged."""
        client = member.admitted("writer")
        client.settle()
        for number in range(1, count + 1):
            client.send(Set(f"{ROOT}/number", encode_value(number)), qos=1)
            client.receive(Ack)
        client.close()

    def alarms(self) -> float:
        """Returns the alarms of all relays."""
        return sum(member.metric("clasp_cluster_alarms_total") for member in self.cluster.members)

    def test_tail_that_is_lost_is_appended_again(self) -> None:
        """With an alarm; relays that start later, and all of them after a restart, have every acknowledged write."""
        (server,) = self.cluster.nats.servers
        self.write(self.cluster.decider, 10)
        server.stop()
        copy = self.folder / "copy"
        shutil.copytree(server.store, copy)
        server.start()
        server.wait()
        self.cluster.wait()
        self.write(self.cluster.decider, 20)
        before = shown(self.cluster.decider)
        server.kill()
        set_back(server, copy)
        server.start()
        server.wait()
        self.cluster.wait()
        # What is appended next finds it: here that a session has begun.
        self.assertEqual(shown(self.cluster.decider), before)
        wait_until(lambda: self.alarms() > 0, f"an alarm: {self.cluster}")
        self.cluster.wait()
        for member in self.cluster.members:
            self.assertEqual(shown(member), before)
        self.write(self.cluster.followers[0], 5)
        after = shown(self.cluster.decider)
        newcomer = Member(self.folder / "r3", "r3", self.cluster.members[0].host, self.cluster.options)
        self.cluster.members.append(newcomer)
        newcomer.start()
        self.cluster.wait()
        self.assertEqual(shown(newcomer), after)
        for member in self.cluster.members:
            member.kill()
            member.start()
        self.cluster.wait()
        for member in self.cluster.members:
            self.assertEqual(shown(member), after)

    def test_messages_that_are_deleted_under_running_relays_are_noticed(self) -> None:
        """Whoever needs them gets them from a relay, or an image; the clients see no difference."""
        load = Load(self.cluster, SEED)
        load.start()
        client = self.cluster.nats.client()
        self.addCleanup(client.close)
        stream = self.cluster.stream()
        follower = self.cluster.followers[0]
        follower.kill()
        last = client.last_sequence(stream)
        for sequence in range(last - 5, last + 1):
            client.delete(stream, sequence)
        follower.start()
        self.cluster.wait()
        load.wait_for_writes()
        self.assertEqual([str(each) for each in violations(load.finish())], [])
