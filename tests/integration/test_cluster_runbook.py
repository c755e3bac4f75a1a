"""What docs/cluster.md tells operators to do, done."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.wire.messages import Ack, Set
from clasp_relay.wire.values import encode_value
from tests.integration.cluster import Cluster, Member
from tests.integration.cluster_faults import OPTIONS
from tests.integration.cluster_load import ROOT, shown
from tests.integration.process import ROOT as PROJECT
from tests.integration.process import wait_until

BACKUP = PROJECT / "deploy" / "droplet" / "backup.sh"
RESTORE = PROJECT / "deploy" / "droplet" / "restore.sh"


def newer_build(folder: Path) -> dict[str, str]:
    """Makes a build of the relay whose batches are of the next version; returns the environment that runs it."""
    source = folder / "newer"
    shutil.copytree(
        PROJECT / "src" / "clasp_relay", source / "clasp_relay", ignore=shutil.ignore_patterns("__pycache__")
    )
    path = source / "clasp_relay" / "cluster" / "exchange" / "batches.py"
    text = path.read_text("utf-8")
    assert text.count("\nVERSION = 1\n") == 1, "the version is somewhere else"
    path.write_text(text.replace("\nVERSION = 1\n", "\nVERSION = 2\n"), "utf-8")
    return {"PYTHONPATH": os.pathsep.join((str(source), str(PROJECT)))}


class RunbookTests(SynchronousTestCase):
    """Two relays on one nats-server."""

    def setUp(self) -> None:
        """Starts them, writes something, and looks what the health port says."""
        self.folder = Path(self.mktemp()).absolute()
        self.cluster = Cluster(self.folder, options=OPTIONS)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.write(1, 20)
        self.before = shown(self.cluster.decider)
        said = self.cluster.decider.readiness()
        self.assertEqual((said["ready"], said["role"], said["behind_records"]), (True, "decider", 0))
        self.assertGreaterEqual(said["epoch"], 1)

    def write(self, first: int, last: int) -> None:
        """Has numbers acknowledged, the first half of them by the decider, the others by a follower."""
        for member in (self.cluster.decider, *self.cluster.followers):
            client = member.admitted("writer")
            client.settle()
            for number in range(first, last + 1):
                client.send(Set(f"{ROOT}/{member.name}/{number % 7}", encode_value(number)), qos=1)
                client.receive(Ack)
            client.close()

    def all_show(self, expected: dict[str, tuple[int, str]]) -> None:
        """Checks what all relays show."""
        self.cluster.wait()
        for member in self.cluster.members:
            wait_until(lambda member=member: shown(member) == expected, f"{member.name} shows all: {member.log}")  # type: ignore[misc]

    def is_alarmed(self) -> bool:
        """Tells whether somebody has noticed that the stream is not what it was; a newcomer makes them look."""
        self.cluster.decider.admitted("newcomer").close()
        return any(member.metric("clasp_cluster_alarms_total") for member in self.cluster.members)

    def stop_relays(self) -> None:
        """Stops all relays in order, the decider last."""
        for member in (*self.cluster.followers, self.cluster.decider):
            self.assertEqual(member.stop(), 0, member.log)

    def empty_engine(self) -> None:
        """Gives nats-server an empty disk."""
        (server,) = self.cluster.nats.servers
        server.kill()
        shutil.rmtree(server.store)
        server.start()
        server.wait()

    def test_engine_and_relays_lose_their_disks(self) -> None:
        """The engine is filled again, under running relays and before they start; a relay comes back under its name."""
        self.empty_engine()
        wait_until(self.is_alarmed, f"an alarm: {self.cluster}")
        self.all_show(self.before)
        self.write(21, 30)
        after = shown(self.cluster.decider)
        self.stop_relays()
        self.empty_engine()
        for member in self.cluster.members:
            member.start()
        self.all_show(after)
        for member in (self.cluster.followers[0], self.cluster.decider):
            member.kill()
            shutil.rmtree(member.folder / "data")
            self.cluster.wait()
            member.start()
            self.all_show(after)

    def test_relay_is_added_and_removed_and_all_lose_their_power(self) -> None:
        """A new relay shows all once it is ready, and the others go on without it; all are started in any order."""
        newcomer = Member(self.folder / "r3", "r3", self.cluster.members[0].host, self.cluster.options)
        self.cluster.members.append(newcomer)
        newcomer.start()
        self.all_show(self.before)
        self.assertEqual(newcomer.stop(), 0, newcomer.log)
        self.cluster.members.remove(newcomer)
        self.write(21, 30)
        after = shown(self.cluster.decider)
        (server,) = self.cluster.nats.servers
        server.kill()
        for member in self.cluster.members:
            member.kill()
        for member in reversed(self.cluster.members):
            member.start()
        server.start()
        self.all_show(after)

    def test_relays_are_upgraded_one_after_the_other(self) -> None:
        """The follower first, the decider last: all goes on meanwhile; an old relay stops that meets what is newer."""
        newer = newer_build(self.folder)
        follower, decider = self.cluster.followers[0], self.cluster.decider
        expected = self.before
        for first, member in ((21, follower), (31, decider)):
            self.assertEqual(member.stop(), 0, member.log)
            member.variables = newer
            member.start()
            self.all_show(expected)
            self.write(first, first + 9)
            expected = shown(self.cluster.decider)
        self.assertIs(self.cluster.decider, follower)
        self.all_show(expected)
        late = Member(self.folder / "late", "late", decider.host, self.cluster.options)
        late.start()
        wait_until(lambda: not late.is_running, f"the old relay stops: {late.log}")
        self.assertRegex(late.log, "is of version 2, this relay reads version 1; update this relay")
        self.assertEqual(late.process.wait(), 1)
        self.write(41, 50)

    def test_backup_of_one_relay_is_restored_to_all(self) -> None:
        """The archive goes to one relay; the engine and the other relays begin with nothing."""
        first, second = self.cluster.members
        data = first.folder / "data"
        made = subprocess.run(
            [BACKUP, "--data-dir", data, "--to", self.folder / "backups", "--users", "none", "--files", "none"],
            capture_output=True,
            text=True,
            check=True,
        )
        archive = Path(made.stdout.strip())
        self.write(21, 30)
        self.stop_relays()
        restored: list[str | Path] = [RESTORE, archive, "--data-dir", data, "--with", "nothing", "--yes"]
        subprocess.run(restored, capture_output=True, text=True, check=True)
        shutil.rmtree(second.folder / "data")
        self.empty_engine()
        first.start()
        wait_until(lambda: first.role == "decider", f"the restored relay decides: {first.log}")
        second.start()
        self.all_show(self.before)
        self.write(31, 40)
