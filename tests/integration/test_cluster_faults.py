"""A cluster under faults: whatever dies or is cut off, clients see what one relay would have shown them."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.wire.messages import Ack, Bundle, Set
from clasp_relay.wire.values import encode_value
from tests.integration.cluster import Cluster, Member
from tests.integration.cluster_checker import Outcome, violations
from tests.integration.cluster_faults import FAIL_OVER_S, OPTIONS, SILENCE_S, run
from tests.integration.cluster_load import ROOT, Load, shown
from tests.integration.nats import set_back
from tests.integration.process import PATIENCE_S, wait_until
from tests.integration.raw import RawClient

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


class TwoRelays(SynchronousTestCase):
    """Tests with two relays and one nats-server."""

    def setUp(self) -> None:
        """Starts two relays."""
        self.folder = Path(self.mktemp()).absolute()
        self.cluster = Cluster(self.folder, options=OPTIONS)
        self.addCleanup(self.cluster.close)
        self.cluster.start()


class DeciderTests(TwoRelays):
    """The relay that decides stands still, or has more to do than it can."""

    def test_a_decider_that_stood_still_ends_nobodys_session(self) -> None:
        """The other one takes over in time, and its clients notice nothing but that, also when the first goes on."""
        decider, (follower,) = self.cluster.decider, self.cluster.followers
        client = follower.admitted("writer")
        client.settle()
        decider.pause()
        client.send(Set(f"{ROOT}/number", encode_value(1)), qos=1)
        began_s = time.monotonic()
        client.receive(Ack)
        self.assertLess(time.monotonic() - began_s, FAIL_OVER_S)
        # For longer than a relay may be silent.
        time.sleep(SILENCE_S)
        decider.resume()
        self.cluster.wait()
        client.send(Set(f"{ROOT}/number", encode_value(2)), qos=1)
        self.assertEqual(client.receive(Ack).revision, 2)
        self.assertEqual(self.cluster.decider, follower)
        self.assertNotIn("count this one as lost", follower.log)

    def test_floods_beside_long_bundles_are_decided(self) -> None:
        """Each bundle is one batch, and NATS takes none of any length."""
        decider = self.cluster.decider
        sender, *flooding = (decider.admitted(f"c{number}") for number in range(6))
        is_over = threading.Event()
        data = encode_value(os.urandom(60_000))

        def flood(client: RawClient) -> None:
            with contextlib.suppress(OSError):
                while not is_over.is_set():
                    client.send(*(Set(f"{ROOT}/{number}", data) for number in range(10)))

        threads = [threading.Thread(target=flood, args=(client,), daemon=True) for client in flooding]
        for thread in threads:
            thread.start()
        sender.settle()
        for number in range(3):
            sender.send(Bundle(tuple(Set(f"/b/{at}", encode_value(number)) for at in range(3_000))), qos=1)
            self.assertEqual(sender.receive(Ack).revision, number + 1)
        is_over.set()
        for client, thread in zip(flooding, threads, strict=True):
            client.close()
            thread.join(PATIENCE_S)
        self.assertNotIn("takes no batch", decider.log)


class StreamTests(TwoRelays):
    """One nats-server, whose stream loses what it has acknowledged."""

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
