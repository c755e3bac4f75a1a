"""A crowd of honest people in chat rooms while attackers of every kind are at work, drawn at random.

Run: ``python -m tests.integration.soak [--minutes 60] [--seed N]``

Nothing of the honest may be refused or lost, no turn of the event loop may take more than 10 ms of CPU time, and
afterwards the memory must be back. It prints from time to time how it goes and what the longest turn was doing, and
ends with status 1 when any of this does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import sys
import tempfile
import time
from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from clasp_relay.wire.codec import decode
from clasp_relay.wire.messages import Ack, Error, Message, Publish, Subscribe
from clasp_relay.wire.values import decode_value
from tests.integration.accounts import WATCHED, AccountsRelay, Api, event, put
from tests.integration.attacker import Ports
from tests.integration.attackers import attack
from tests.integration.process import wait_until
from tests.integration.swarm import StampedTransport, SwarmClient, in_flight, join_stamped, need_files
from tests.ports import free_port

ROOMS = 4
MEMBERS = 6
"""In each room."""

MESSAGE_S = 0.5
"""Between two messages of a member, about."""

MAX_TURN_MS = 10.0
"""Of CPU time of the thread, on a machine at rest: machines are shared. The wall clock measures others, too, and beside
others the same work takes more CPU time; how much more is measured behind each long turn (``watched_relay.Pace``)."""

TOLD = 8
"""How many kinds of long turns are told of."""

GROWTH_BYTES = 64 * 1024 * 1024
"""What may be more after the second half of the attacks than after the first: as much as the state may take."""

HONEST_P99_MS = 50.0
"""Judged by hand only. Attackers have machines of their own, and here they share this one: how long the relay's thread
had work and no processor does not count."""


@dataclass
class Crowd:
    """What the honest noticed."""

    refused: list[str] = field(default_factory=list)
    """ERRORs that they read, and ends of their connections."""
    sent: int = 0
    heard: int = 0
    """Messages of others in their rooms, each counted for every member who got it."""
    asked: int = 0
    acked: int = 0
    latencies: list[tuple[float, float]] = field(default_factory=list)
    """When a message was written and when it had arrived at a member's socket, in Unix seconds: what the members' own
    process is late does not count."""
    waits: list[tuple[float, float]] = field(default_factory=list)
    """Unix time in s, and for how many ms in all the relay's thread had waited for a processor then."""
    is_over: bool = False

    def p99_ms(self) -> float:
        """Returns how long 99 % of the messages took at most."""
        return _p99([(arrived_s - at_s) * 1e3 for at_s, arrived_s in self.latencies])

    def p99_of_relay_ms(self) -> float:
        """Returns the same without the time for which the relay's thread waited for a processor."""
        moments = [time_s for time_s, _ in self.waits]

        def waited_ms(time_s: float) -> float:
            place = bisect(moments, time_s)
            if not 0 < place < len(moments):
                return self.waits[min(place, len(moments) - 1)][1] if moments else 0.0
            (before_s, before_ms), (after_s, after_ms) = self.waits[place - 1 : place + 1]
            return before_ms + (after_ms - before_ms) * (time_s - before_s) / (after_s - before_s)

        return _p99(
            [(arrived_s - at_s) * 1e3 - waited_ms(arrived_s) + waited_ms(at_s) for at_s, arrived_s in self.latencies]
        )


def _p99(values: list[float]) -> float:
    values.sort()
    return values[int((len(values) - 1) * 0.99)] if values else 0.0


class Member:
    """One honest guest in a room.

    Args:
        crowd: where what happens is noted.
        relay: which.
        room: number of the room.
        number: which member; the first one makes the room.
    """

    def __init__(self, crowd: Crowd, relay: AccountsRelay, room: int, number: int) -> None:
        self._crowd = crowd
        self._relay = relay
        self._room = f"/chat/room/honest-{room}"
        self._number = number
        self._name = f"honest-{room}-{number}"
        self._random = random.Random(self._name)
        self._client: SwarmClient | None = None

    async def enter(self) -> None:
        """Signs in, enters the room, and listens."""
        source = f"127.7.{self._number}.{1 + int(self._room[-1])}"
        api = Api(self._relay.auth_port, source)
        token = await asyncio.to_thread(api.guest, self._name)
        self._client = await join_stamped(self._relay.port, self._hear, source=source, token=token)
        if not self._number:
            self._ask(put(f"{self._room}/meta", {"name": self._room, "isPublic": True}))
        self._ask(put(f"{self._room}/presence/{self._name}", {"name": self._name}))
        for number, place in enumerate(("messages", "presence/*", "typing/*", "reactions/**", "meta")):
            self._say(Subscribe(number, f"{self._room}/{place}"))

    async def live(self) -> None:
        """Talks until the crowd goes home."""
        beat_s = time.monotonic()
        while not self._crowd.is_over:
            await asyncio.sleep(self._random.uniform(0.5, 1.5) * MESSAGE_S)
            self._crowd.sent += 1
            self._say(event(f"{self._room}/messages", {"type": "text", "text": "hello " * 40, "at": time.time()}))
            match self._random.randrange(4):
                case 0:
                    self._ask(put(f"{self._room}/typing/{self._name}", {"at": time.time()}))
                case 1:
                    self._ask(put(f"{self._room}/reactions/m{self._random.randrange(50)}/x/{self._name}", True))
            if time.monotonic() - beat_s > 5:
                beat_s = time.monotonic()
                self._ask(put(f"{self._room}/presence/{self._name}", {"name": self._name}))

    def leave(self) -> None:
        """Ends the connection."""
        if self._client is not None:
            self._client.transport.close()

    def _ask(self, message: Message) -> None:
        self._crowd.asked += 1
        self._say(message, qos=1)

    def _say(self, message: Message, qos: int = 0) -> None:
        assert self._client is not None, "says something before it came in"
        if self._client.ended.done():
            self._crowd.refused.append(f"{self._name} was disconnected with {self._client.close_code}")
            self._crowd.is_over = True
        else:
            self._client.send(message, qos=qos)

    def _hear(self, payload: bytes) -> None:
        message = decode(payload)
        if isinstance(message, Error):
            self._crowd.refused.append(f"{self._name}: {message}")
        elif isinstance(message, Ack):
            self._crowd.acked += 1
        elif isinstance(message, Publish) and message.value is not None and message.address == f"{self._room}/messages":
            self._crowd.heard += 1
            said: Any = decode_value(message.value)
            assert self._client is not None, "hears something before it came in"
            assert isinstance(self._client.transport, StampedTransport), "a connection without times"
            self._crowd.latencies.append((said["at"], self._client.transport.arrived_s))


@dataclass
class Result:
    """What was measured while the attacks went on, and what is left of them."""

    crowd: Crowd
    longest_turns: list[Turn]
    """The longest first."""
    rss_bytes: list[int]
    """Before the attacks, after their first half, after their second half; each at rest."""

    def faults(self, max_turn_ms: float = MAX_TURN_MS) -> list[str]:
        """Returns what does not hold, in words.

        Args:
            max_turn_ms: how long a turn may take, in ms of CPU time of the thread on a machine at rest.
        """
        crowd = self.crowd
        found = crowd.refused[:10]
        expected = crowd.sent * (MEMBERS - 1)
        if crowd.heard != expected:
            found.append(f"{crowd.heard} messages were heard instead of {expected}")
        if crowd.acked != crowd.asked:
            found.append(f"{crowd.acked} writes were acknowledged instead of {crowd.asked}")
        if not crowd.sent:
            found.append("nobody said anything")
        for turn in self.longest_turns:
            if turn.at_rest_ms > max_turn_ms:
                found.append("\n  ".join([f"a turn took {turn}", *turn.doing]))
        _, half, whole = self.rss_bytes
        if whole - half > GROWTH_BYTES:
            found.append(f"the memory grew by {(whole - half) >> 20} MiB in the second half")
        return found

    def __str__(self) -> str:
        crowd = self.crowd
        sizes = ", ".join(f"{size / 2**20:.0f}" for size in self.rss_bytes)
        return (
            f"{crowd.sent} messages, {crowd.heard} heard, {crowd.acked} writes acknowledged, "
            f"{len(crowd.refused)} refusals; p99 {crowd.p99_ms():.1f} ms, "
            f"{crowd.p99_of_relay_ms():.1f} ms of them the relay's; "
            f"longest turn {_longest(self.longest_turns)}; memory {sizes} MiB"
        )


def turns(relay: AccountsRelay) -> dict[str, Any]:
    """Returns what the relay measured of its event loop since the last time."""
    before = len(relay.lines)
    relay.say("turns")
    wait_until(lambda: any(line.startswith("turns ") for line in relay.lines[before:]), "the relay tells its turns")
    line = next(line for line in relay.lines[before:] if line.startswith("turns "))
    report: dict[str, Any] = json.loads(line.removeprefix("turns "))
    return report


def longest_turns(relay: AccountsRelay, crowd: Crowd) -> list[Turn]:
    """Returns the longest turns since the last time, and notes how long the relay's thread waited for a processor."""
    report = turns(relay)
    crowd.waits += map(tuple, report["waits"])
    return [Turn(*each) for each in report["longest"]]


class Turn(NamedTuple):
    """A turn of the relay's event loop, as ``watched_relay`` tells of it."""

    cpu_ms: float
    """CPU time of the thread."""
    pace: float
    """How many times as long as at rest the same work took at that moment, other than the turn's."""
    doing: list[str]
    """What it was seen doing."""

    @property
    def at_rest_ms(self) -> float:
        """How long it would have been on a machine at rest, about."""
        return self.cpu_ms / self.pace

    def __str__(self) -> str:
        return f"{self.cpu_ms:.1f} ms of CPU time, which is about {self.at_rest_ms:.1f} ms at rest"


def _longest(turns: Sequence[Turn]) -> Turn:
    return max(turns, key=lambda turn: turn.at_rest_ms, default=Turn(0.0, 1.0, []))


def _longest_of(reports: Iterable[Turn]) -> list[Turn]:
    """Returns the longest turns, each once for what it did mostly."""
    by_kind: dict[str, Turn] = {}
    for turn in sorted(reports, key=lambda report: -report.at_rest_ms):
        by_kind.setdefault(turn.doing[0].partition(" x ")[2] if turn.doing else "", turn)
    return list(by_kind.values())[:TOLD]


async def soak(relay: AccountsRelay, doors: Ports, seconds: float, seed: int) -> Result:
    """Has the honest talk and the attackers attack.

    Args:
        relay: a relay with the :func:`options` for these doors.
        doors: their ports.
        seconds: how long it is attacked.
        seed: what the attackers draw follows from it.
    """
    crowd = Crowd()
    members = [Member(crowd, relay, room, number) for number in range(MEMBERS) for room in range(ROOMS)]
    await in_flight(len(members), ROOMS, lambda number: members[number].enter())
    await asyncio.sleep(1)
    sizes = [relay.rss_bytes]
    longest: list[Turn] = []
    turns(relay)
    relay.say("sample")
    ports = doors._replace(relay=relay.port, auth=relay.auth_port)
    talks = asyncio.gather(*(member.live() for member in members))
    for half in range(2):
        attackers = multiprocessing.get_context("spawn").Process(
            target=attack,
            args=(ports, seed + half * 1000, seconds / 2),
        )
        attackers.start()
        while attackers.is_alive() and not crowd.is_over:
            await asyncio.sleep(min(10.0, seconds / 8))
            seen = await asyncio.to_thread(longest_turns, relay, crowd)
            longest = _longest_of([*longest, *seen])
            text = f"{crowd.sent} messages, {len(crowd.refused)} refusals, longest turn {_longest(seen)}"
            print("\n    ".join([f"  {text}", *_longest(seen).doing]), flush=True)
        attackers.join()
        await asyncio.sleep(3)
        sizes.append(relay.rss_bytes)
    crowd.is_over = True
    await talks
    # What is on its way arrives.
    await asyncio.sleep(2)
    longest = _longest_of([*longest, *await asyncio.to_thread(longest_turns, relay, crowd)])
    result = Result(crowd, longest, sizes)
    for member in members:
        member.leave()
    return result


def free_doors() -> Ports:
    """Returns ports that are free, for all doors."""
    return Ports(0, 0, free_port(), free_port(), free_port(), free_port())


def options(doors: Ports, folder: Path) -> list[str]:
    """Returns what the relay is run with: defaults, a state that the attackers can fill, and all doors.

    OSC has no tokens: its clients are let in below an address of theirs, so that what they send is more than refused.

    Args:
        doors: the ports of the doors.
        folder: where the policy is written.
    """
    policy = json.loads((files("clasp_relay.access") / "policies" / "chat.json").read_text("utf-8"))
    policy["anonymous"] = {"scopes": ["read:/osc/**", "write:/osc/**"]}
    config = folder / "soak.json"
    config.write_text(json.dumps(policy), "utf-8")
    words = ["--app-config", str(config), "--log-level", "warn", "--max-state-bytes", str(64 * 1024 * 1024)]
    for door in ("mqtt", "osc", "osc_tcp", "tcp"):
        words += [f"--{door.replace('_', '-')}-port", str(getattr(doors, door))]
    return [*words, "--mqtt-namespace", "/"]


def main() -> int:
    """Runs for the given number of minutes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    asked = parser.parse_args()
    doors = free_doors()
    need_files(4096)
    print(f"seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        relay = AccountsRelay(Path(folder), *options(doors, Path(folder)), command=WATCHED)
        try:
            result = asyncio.run(soak(relay, doors, asked.minutes * 60, asked.seed))
        finally:
            status = relay.stop()
    print(result)
    faults = result.faults()
    if status:
        faults.append(f"the relay ended with status {status}")
    if "Traceback (most recent call last)" in relay.log:
        faults.append("the log has a traceback:\n" + relay.log)
    p99_ms = result.crowd.p99_of_relay_ms()
    if p99_ms > HONEST_P99_MS:
        faults.append(f"99 % of the messages took up to {p99_ms:.0f} ms of the relay instead of {HONEST_P99_MS:.0f}")
    print("\n".join(faults) or "all held")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
