"""A cluster whose relays are killed, stopped, paused and emptied while people register: are all accounts the same?

Run: ``python -m tests.integration.cluster_accounts [--minutes 5] [--seed N]``

Ends with status 1 when somebody who was told that they have an account has none at some relay, or when the files of the
relays differ in anything.
"""

from __future__ import annotations

import argparse
import http.client
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from clasp_relay.access.names import name_keys
from clasp_relay.storage.users_rows import Row
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.integration.accounts import PASSWORD, Api
from tests.integration.cluster import Cluster
from tests.integration.process import wait_until
from tests.integration.test_cluster_accounts import Relay

CROWDS = 3
"""How many register at once."""

ADDRESSES = 250
"""Of how many addresses each crowd comes: one may make ten accounts in a quarter of an hour."""


class Crowd(threading.Thread):
    """People who register or come as guests, one after the other, each at some relay.

    Args:
        number: of the crowd.
        relays: of the cluster.
        seed: for which relay each goes to.
    """

    def __init__(self, number: int, relays: Sequence[Relay], seed: int) -> None:
        super().__init__(daemon=True)
        self._number = number
        self._relays = relays
        self._random = random.Random(seed * CROWDS + number)
        self.is_over = threading.Event()
        self.tokens: dict[str, str] = {}
        """Of those who were told that they have one, by name."""
        self.outcomes: Counter[str] = Counter()

    def run(self) -> None:
        """Sends them until it is over."""
        count = 0
        while not self.is_over.is_set():
            count += 1
            name = f"crowd {self._number} person {count}"
            relay = self._random.choice(self._relays)
            api = Api(relay.api.port, source=f"127.0.{self._number + 1}.{count % ADDRESSES + 1}")
            body = {"username": name, "password": PASSWORD} if count % 2 else {"name": name}
            try:
                answer = api.call("register" if count % 2 else "guest", body)
            except (OSError, http.client.HTTPException) as error:
                self.outcomes[type(error).__name__] += 1
                time.sleep(0.2)
                continue
            self.outcomes[str(answer.status)] += 1
            if answer.status == 200:
                self.tokens[name] = answer.body["token"]
            else:
                time.sleep(0.1)


def disturb(relays: Sequence[Relay], chance: random.Random) -> str:
    """Does something bad to one relay; two others go on. Returns what it was."""
    relay = chance.choice(relays)
    if not all(each.is_running for each in relays):
        chance.choice([each for each in relays if not each.is_running]).start()
        return "one starts again"
    what = chance.choice(("kill", "kill", "stop", "pause", "empty", "command"))
    if what == "kill":
        relay.kill()
    elif what == "stop":
        relay.stop()
    elif what == "pause":
        relay.pause()
        time.sleep(chance.uniform(0.5, 4.0))
        relay.resume()
    elif what == "empty":
        relay.kill()
        shutil.rmtree(relay.folder / "data")
    else:
        relay.command("token", "create", "--scopes", "read:/**")
    return f"{what} {relay.name}"


def rows_of(relay: Relay) -> set[Row]:
    """Returns all rows of the accounts of a relay that does not run."""
    with closing(SqliteUsers(relay.folder / "data" / "users.db", name_keys)) as store:
        return {row for piece in store.rows.dump() for row in piece}


def unlike(relays: Sequence[Relay], tokens: dict[str, str]) -> Iterator[str]:
    """Yields what is not as it has to be; it stops the relays."""
    for name, token in tokens.items():
        for relay in relays:
            answer = relay.api.call("me", None, token, method="GET")
            if answer.status != 200:
                yield f"{name} has no account at {relay.name}: {answer}"
    for relay in relays:
        relay.stop()
    first, *others = [rows_of(relay) for relay in relays]
    for relay, rows in zip(relays[1:], others, strict=True):
        for row in sorted(first ^ rows, key=lambda each: repr(tuple(each))):
            yield f"{relays[0].name} and {relay.name} differ: {tuple(row)}"


def main(arguments: Sequence[str]) -> int:
    """Runs it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp())
    cluster = Cluster(folder, relays=0, options=("--web-root", "none"))
    relays = [Relay(folder, name, cluster) for name in ("r1", "r2", "r3")]
    cluster.members += relays
    crowds = [Crowd(number, relays, asked.seed) for number in range(CROWDS)]
    chance = random.Random(asked.seed)
    try:
        cluster.start()
        for crowd in crowds:
            crowd.start()
        end_s = time.monotonic() + asked.minutes * 60
        while time.monotonic() < end_s:
            time.sleep(chance.uniform(1.0, 5.0))
            print(disturb(relays, chance), flush=True)
        for crowd in crowds:
            crowd.is_over.set()
            crowd.join()
        for relay in relays:
            if not relay.is_running:
                relay.start()
        cluster.wait()
        wait_until(lambda: len({relay.command("token", "list") for relay in relays}) == 1, "all is told")
        tokens = {name: token for crowd in crowds for name, token in crowd.tokens.items()}
        print(sum((crowd.outcomes for crowd in crowds), Counter()), f"{len(tokens)} accounts and guests")
        found = list(unlike(relays, tokens))
        print("\n".join(found) or "all relays have the same accounts, and nobody's is lost")
        return 1 if found or not tokens else 0
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
