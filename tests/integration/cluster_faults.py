"""What can go wrong with a cluster: each fault is made, lasts until it is noticed, and is over when all write again.

Run: ``python -m tests.integration.cluster_faults [--minutes 30] [--seed N]``

Draws faults at random while clients write and listen, checks after each round what the clients saw, and ends with
status 1 when anything that the cluster promises does not hold. Root is needed: the network between the hosts is cut.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from clasp_relay.errors import CloseCode
from tests.integration.cluster import WATCHED, Cluster, Member
from tests.integration.cluster_checker import History, violations
from tests.integration.cluster_load import Load
from tests.integration.namespaces import Host
from tests.integration.nats import NatsServer
from tests.integration.process import wait_until

OPTIONS = ("--rate-limit", "0", "--log-level", "info", "--max-sessions-per-address", "0")
"""Of the relays: the clients are faster than people."""

LET_GO_S = 6.5
"""How long a relay is cut off: by then it has closed its sessions."""

FAIL_OVER_S = 4.0
"""When the decider is killed or stands still somebody writes again within this time."""

SILENCE_S = 4.0
"""How long a relay that does not decide stands still: by then it counts as ended."""


class Faults:
    """The faults of one cluster with a network and three nats-servers.

    Args:
        cluster: which.
        load: its clients.
    """

    def __init__(self, cluster: Cluster, load: Load) -> None:
        self._cluster = cluster
        self._load = load
        self.waits_s: list[tuple[str, float]] = []
        """Each fault, and the longest time in which no write at all was acknowledged."""

    def all(self) -> dict[str, Callable[[], None]]:
        """Returns what there is, in an order that a short run has."""
        return {
            "a follower is killed": lambda: self._kill(self._follower),
            "the decider is killed": lambda: self._kill(self._cluster.decider),
            "a follower stands still": self._pause_follower,
            "the decider stands still": lambda: self._pause_decider(self._cluster.decider),
            "the decider stands still while a follower joins": self._pause_decider_of_one_that_joins,
            "the decider hands over": self._hand_over,
            "the server that leads the stream is killed": lambda: self._kill_server(self._leader),
            "another server is killed": lambda: self._kill_server(self._other_server),
            "the server that leads the stream stands still": self._pause_server,
            "a follower is cut off": self._cut_follower,
            "the decider is cut off": lambda: self._cut_decider(to=True, back=True),
            "the decider hears nothing": lambda: self._cut_decider(to=False, back=True),
            "nobody hears the decider": lambda: self._cut_decider(to=True, back=False),
            "a follower hears nothing": lambda: self._cut_one_side(to=False),
            "nobody hears a follower": lambda: self._cut_one_side(to=True),
            "the server that leads the stream is cut off": self._cut_server,
            "the decider's clock jumps ahead": lambda: self._move_clock(self._cluster.decider, 3_600),
            "the decider's clock jumps back": lambda: self._move_clock(self._cluster.decider, -3_600),
            "a follower's clock jumps ahead": lambda: self._move_clock(self._follower, 3_600),
            "a follower's clock jumps back": lambda: self._move_clock(self._follower, -3_600),
            "all relays are started anew, one after the other": self._roll,
        }

    def make(self, name: str) -> None:
        """Makes a fault, and waits until all is well again.

        Raises:
            AssertionError: that does not happen.
        """
        since_s = time.monotonic()
        try:
            self.all()[name]()
            self._cluster.wait()
            self._load.wait_for_writes()
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
        self.waits_s.append((name, self._load.longest_wait_s(since_s)))

    # Who is hit

    @property
    def _follower(self) -> Member:
        wait_until(lambda: bool(self._cluster.followers), f"somebody follows: {self._cluster}")
        return self._cluster.followers[0]

    @property
    def _leader(self) -> NatsServer:
        wait_until(lambda: self._cluster.leader() is not None, "somebody leads the stream")
        leader = self._cluster.leader()
        assert leader is not None, "waited for above"
        return leader

    @property
    def _other_server(self) -> NatsServer:
        leader = self._leader
        return next(each for each in self._cluster.nats.servers if each is not leader)

    @property
    def _engine(self) -> list[Host]:
        return [server.host for server in self._cluster.nats.servers]

    # What happens

    def _kill(self, member: Member) -> None:
        member.kill()
        self._until_another_decides(member)
        self._until_somebody_writes()
        member.start()

    def _pause_follower(self) -> None:
        member = self._follower
        member.pause()
        time.sleep(SILENCE_S)
        member.resume()

    def _pause_decider(self, member: Member) -> None:
        member.pause()
        try:
            self._until_another_decides(member)
            self._until_somebody_writes()
        finally:
            member.resume()

    def _pause_decider_of_one_that_joins(self) -> None:
        decider, member = self._cluster.decider, self._follower
        member.kill()
        member.start()
        self._pause_decider(decider)

    def _hand_over(self) -> None:
        """Another one decides then; where the stream has no leader for as long as a silence, perhaps the same."""
        member = self._cluster.decider
        epoch = member.readiness()["epoch"]
        member.process.signal(signal.SIGUSR2)

        def is_handed_over() -> bool:
            said = [each.readiness() for each in self._cluster.members]
            return any(each.get("role") == "decider" and each["epoch"] > epoch for each in said)

        wait_until(is_handed_over, f"somebody decides in a later epoch: {self._cluster}")

    def _kill_server(self, server: NatsServer) -> None:
        server.kill()
        self._until_somebody_writes()
        server.start()
        server.wait()

    def _pause_server(self) -> None:
        server = self._leader
        server.pause()
        try:
            self._until_somebody_writes()
        finally:
            server.resume()

    def _cut_follower(self) -> None:
        member = self._follower
        client = member.admitted("witness")
        self._cut([member.host], self._engine, to=True, back=True)
        try:
            time.sleep(LET_GO_S)
            _, closed = client.end()
            assert closed.code == CloseCode.TRY_AGAIN_LATER, f"{member.name} ends a session with {closed.code}"
            self._until_somebody_writes()
        finally:
            client.close()
            self._mend()

    def _cut_decider(self, *, to: bool, back: bool) -> None:
        member = self._cluster.decider
        self._cut([member.host], self._engine, to=to, back=back)
        try:
            self._until_another_decides(member)
            self._until_somebody_writes()
        finally:
            self._mend()

    def _cut_one_side(self, *, to: bool) -> None:
        self._cut([self._follower.host], self._engine, to=to, back=not to)
        time.sleep(LET_GO_S)
        self._mend()

    def _cut_server(self) -> None:
        """The others of its quorum go on without it; whoever was connected to it connects to them."""
        server = self._leader
        others = [host for host in self._cluster.hosts if host is not server.host]
        self._cut([server.host], others, to=True, back=True)
        try:
            self._until_somebody_writes()
        finally:
            self._mend()

    def _move_clock(self, member: Member, seconds: float) -> None:
        member.move_clock(seconds)
        self._load.wait_for_writes()

    def _roll(self) -> None:
        """The followers first, the decider last."""
        decider = self._cluster.decider
        for member in (*self._cluster.followers, decider):
            status = member.stop()
            assert status == 0, f"{member.name} ends with {status}: {member.log}"
            member.start()
            self._cluster.wait()

    # Helpers

    def _until_another_decides(self, member: Member) -> None:
        others = [each for each in self._cluster.members if each is not member]
        wait_until(lambda: any(each.role == "decider" for each in others), f"another decides: {self._cluster}")

    def _until_somebody_writes(self) -> None:
        since_s = time.monotonic()
        wait_until(
            lambda: any(each.acked_s and each.acked_s[-1] > since_s for each in self._load.senders),
            f"a write is acknowledged: {self._cluster}",
        )

    def _cut(self, some: Iterable[Host], others: Sequence[Host], *, to: bool, back: bool) -> None:
        network = self._cluster.network
        assert network is not None, "the cluster has no network"
        for one in some:
            for other in others:
                if to:
                    network.cut(one, other)
                if back:
                    network.cut(other, one)

    def _mend(self) -> None:
        assert self._cluster.network is not None, "the cluster has no network"
        self._cluster.network.mend()


def run(
    folder: Path, names: Sequence[str], seed: int, on_fault: Callable[[str], object] = lambda _name: None
) -> Report:
    """Makes faults one after the other under load; returns what the clients saw.

    Args:
        folder: for the files of the cluster.
        names: of the faults; an empty list makes all.
        seed: what the clients send follows from it.
        on_fault: called with the name of each before it is made.
    """
    cluster = Cluster(folder, servers=3, relays=2, has_network=True, options=OPTIONS, command=WATCHED)
    try:
        cluster.start()
        load = Load(cluster, seed)
        load.start()
        faults = Faults(cluster, load)
        for name in names or faults.all():
            on_fault(name)
            faults.make(name)
        return Report(load.finish(), faults.waits_s, {member.name: member.log for member in cluster.members})
    finally:
        for member in cluster.members:
            (folder / f"{member.name}.log").write_text(member.log, encoding="utf-8")
        cluster.close()


class Report:
    """What a run has found.

    Args:
        history: what the clients saw.
        waits_s: each fault, and the longest time without an acknowledged write.
        logs: by relay.
    """

    def __init__(self, history: History, waits_s: Sequence[tuple[str, float]], logs: dict[str, str]) -> None:
        self.history = history
        self.waits_s = waits_s
        self.logs = logs

    def wrong(self) -> list[str]:
        """Returns what does not hold, in words."""
        found = [str(each) for each in violations(self.history)]
        for fault, wait_s in self.waits_s:
            if fault.startswith(("the decider is killed", "the decider stands still")) and wait_s > FAIL_OVER_S:
                found.append(f"{fault}: nobody wrote for {wait_s:.1f} s")
        for name, log in self.logs.items():
            if "Traceback (most recent call last)" in log:
                found.append(f"the log of {name} has a traceback: {log[log.index('Traceback') :][:3_000]}")
        return found

    def __str__(self) -> str:
        done = sum(each.outcome.value == "done" for each in self.history.sent)
        heard = sum(len(each) for each in self.history.heard.values())
        epochs = max((claim.epoch for claim in self.history.claims), default=0)
        waits = "\n".join(f"  {name}: {wait_s:.1f} s" for name, wait_s in self.waits_s)
        return (
            f"{len(self.history.sent)} messages, {done} of them done for sure; {heard} heard by "
            f"{len(self.history.heard)} sessions; {epochs} epochs; longest time without a write:\n{waits}"
        )


def _say(name: str) -> None:
    print(f"  {name}", flush=True)


def main() -> int:
    """Draws faults for some minutes."""
    parser = argparse.ArgumentParser(prog="python -m tests.integration.cluster_faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--only", action="append", default=[], help="a fault; may be given again")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    chance = random.Random(options.seed)
    names = options.only or list(Faults.all(Faults.__new__(Faults)))
    end_s = time.monotonic() + options.minutes * 60
    while time.monotonic() < end_s:
        drawn = options.only or chance.choices(names, k=8)
        folder = Path(tempfile.mkdtemp(prefix="clasp-cluster-"))
        print(f"files and logs are in {folder}; they are removed if all holds", flush=True)
        report = run(folder / "cluster", drawn, chance.randrange(1 << 32), _say)
        print(report, flush=True)
        wrong = report.wrong()
        if wrong:
            print("\n".join(wrong))
            return 1
        shutil.rmtree(folder)
    print("all held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
