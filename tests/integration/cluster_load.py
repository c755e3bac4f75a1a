"""Clients of a cluster that write, publish and listen, go on at another relay, and record what they see.

The record is a :class:`~tests.integration.cluster_checker.History`. Each connection is a sender or a listener of its
own in it, since that is what order is promised to.
"""

from __future__ import annotations

import itertools
import math
import random
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from clasp_relay.errors import ErrorCode
from clasp_relay.wire.messages import (
    NULL,
    Ack,
    Bundle,
    Error,
    Get,
    Hello,
    Message,
    Ping,
    Pong,
    Publish,
    Set,
    Snapshot,
    Subscribe,
    Welcome,
)
from clasp_relay.wire.values import decode_value, encode_value
from tests.integration.cluster import Cluster, Member
from tests.integration.cluster_checker import Heard, History, Kind, Outcome, Sent
from tests.integration.process import PATIENCE_S, wait_until
from tests.integration.raw import Closed, RawClient

ROOT = "/load"
NOT_DONE = "not done"
"""What an ERROR 503 says where the write has surely not happened; any other one leaves that open."""

ANSWER_S = 15.0
"""How long a sender waits for an answer: three times as long as a relay keeps a write that waits."""


class Client(threading.Thread):
    """Connects to one relay after the other, until it is told to stop.

    Args:
        members: the relays, the first one first.
        name: of the client; each connection has a number behind it.
    """

    def __init__(self, members: Sequence[Member], name: str) -> None:
        super().__init__(daemon=True, name=name)
        self._members = itertools.cycle(members)
        self.session = ""
        self._connections = itertools.count(1)
        self._client: RawClient | None = None
        self._is_over = threading.Event()

    def run(self) -> None:
        """Connects, and connects again."""
        while not self._is_over.is_set():
            member = next(self._members)
            if not member.is_running:
                self._is_over.wait(0.05)
                continue
            self.session = f"{self.name}.{next(self._connections)}"
            try:
                self._client = member.connect(ANSWER_S)
                self._client.send(Hello(1, 0xF8, self.name))
                self._client.receive(Welcome)
                self.live(self._client)
            except (Closed, OSError, AssertionError):
                self._is_over.wait(0.1)
            finally:
                self.has_ended()
                if self._client is not None:
                    self._client.close()

    def live(self, client: RawClient) -> None:
        """Does what it does on a connection; returns when it is told to stop."""
        raise NotImplementedError

    def has_ended(self) -> None:
        """The connection has ended."""

    @property
    def is_over(self) -> bool:
        """Whether it was told to stop."""
        return self._is_over.is_set()

    def finish(self) -> None:
        """Tells it to stop after what it is doing."""
        self._is_over.set()

    def cut_off(self) -> None:
        """Ends the connection under it, and waits until it has stopped."""
        self._is_over.set()
        if self._client is not None:
            with suppress(OSError):
                self._client.socket.shutdown(socket.SHUT_RDWR)
        self.join(2 * PATIENCE_S)


class Sender(Client):
    """Sends one thing after the other, each once the one before was answered.

    Args:
        members: the relays.
        name: of the client.
        seed: what it draws follows from it.
    """

    def __init__(self, members: Sequence[Member], name: str, seed: int) -> None:
        super().__init__(members, name)
        self.sent: list[Sent] = []
        self.heard: dict[str, list[Heard]] = {}
        self.strays: list[str] = []
        """Answers that it has not asked for."""
        self.acked_s: list[float] = []
        """When its writes were acknowledged."""
        self._random = random.Random(f"{name} {seed}")
        self._number = 0
        self._published: list[int] = []
        """Where in ``sent`` the PUBLISHes are that nothing was answered behind yet."""
        self._unsure = 0
        """How many PUBLISHes before them an ERROR may be about, of which another one was."""
        self._waiting: list[int] = []
        """Where in ``sent`` the writes are whose answer it waits for."""
        self._current = 0
        """The revision that it believes is the current one of its compare-and-sets."""

    def live(self, client: RawClient) -> None:
        """Sends, and after a while goes to the next relay."""
        client.receive(Snapshot)
        last = self._number + self._random.randrange(50, 150)
        while not self.is_over and self._number < last:
            match self._random.randrange(5):
                case 0:
                    self._publish(client)
                case 1:
                    self._bundle(client)
                case 2:
                    self._compare_and_set(client)
                case 3:
                    self._get(client, f"{ROOT}/plain/{self._random.randrange(3)}")
                case 4:
                    self._set(client, f"{ROOT}/plain/{self._random.randrange(3)}")
            time.sleep(self._random.uniform(0, 0.02))

    def has_ended(self) -> None:
        """Nobody knows what became of what has no answer: it stands in the record as unknown."""
        self._published.clear()
        self._unsure = 0
        self._waiting.clear()

    def _note(self, address: str, kind: Kind = Kind.SET, expected: int | None = None, bundle: str = "") -> Sent:
        self._number += 1
        sent = Sent(
            sender=self.session,
            number=self._number,
            address=address,
            value=f"{self.session}:{self._number}",
            outcome=Outcome.UNKNOWN,
            began_s=time.monotonic(),
            kind=kind,
            expected=expected,
            bundle=bundle,
        )
        (self._published if kind is Kind.PUBLISH else self._waiting).append(len(self.sent))
        self.sent.append(sent)
        return sent

    def _publish(self, client: RawClient) -> None:
        sent = self._note(f"{ROOT}/events", Kind.PUBLISH)
        client.send(Publish(sent.address, value=encode_value(sent.value)))

    def _set(self, client: RawClient, address: str, expected: int | None = None) -> Message:
        sent = self._note(address, expected=expected)
        client.send(Set(address, encode_value(sent.value), expected), qos=1)
        return self._answer(client)

    def _bundle(self, client: RawClient) -> None:
        name = f"bundle {self.session}:{self._number}"
        members = [self._note(f"{ROOT}/bundle/{each}", bundle=name) for each in "abc"]
        client.send(Bundle(tuple(Set(each.address, encode_value(each.value)) for each in members)), qos=1)
        self._answer(client)

    def _compare_and_set(self, client: RawClient) -> None:
        address = f"{ROOT}/compared"
        answer = self._set(client, address, self._current)
        if isinstance(answer, Ack):
            self._current = answer.revision or 0
        else:
            self._current = self._get(client, address)

    def _get(self, client: RawClient, address: str) -> int:
        asked_s = time.monotonic()
        client.send(Get(address))
        while not isinstance(message := client.receive_any(), Snapshot):
            self._settle(message)
        (param,) = message.params
        self.heard.setdefault(self.session, []).append(
            Heard(
                kind=Kind.SNAPSHOT,
                address=address,
                value="" if param.value == NULL else str(decode_value(param.value)),
                revision=param.revision,
                asked_s=asked_s,
            )
        )
        return param.revision

    def _answer(self, client: RawClient) -> Message:
        """Returns the answer to the last write."""
        while True:
            message = client.receive_any()
            self._settle(message)
            if not self._waiting:
                return message

    def _settle(self, message: Message) -> None:
        """Records what an answer says of what was sent."""
        now_s = time.monotonic()
        if isinstance(message, Ack) and message.address not in self._expected():
            self.strays.append(f"{self.session} hears {message}, and waits for {self._expected()}")
        elif isinstance(message, Ack):
            # Behind the PUBLISHes before it, since the order of a sender is kept.
            for at in self._published:
                self._end(at, Outcome.DONE, now_s)
            for at in self._waiting:
                is_last = at == self._waiting[-1]
                self._end(at, Outcome.DONE, now_s, message.revision if is_last else None)
            self.acked_s.append(now_s)
            self._published.clear()
            self._unsure = 0
            self._waiting.clear()
        elif isinstance(message, Error):
            outcome = outcome_of(message)
            if message.address == f"{ROOT}/events" and (self._published or self._unsure):
                # It says of one of them, nobody knows which, that it may not be done.
                for at in self._published:
                    self._end(at, Outcome.UNKNOWN, now_s)
                self._unsure += len(self._published) - 1
                self._published.clear()
            elif message.address in {None, *(self.sent[at].address for at in self._waiting)}:
                for at in self._waiting:
                    self._end(at, outcome, now_s)
                self._waiting.clear()
            else:
                self.strays.append(f"{self.session} hears {message}, and waits for {self._expected()}")

    def _expected(self) -> list[str | None]:
        """Returns the addresses that the next ACK may name: a bundle's has none, or that of its last member."""
        waiting = [self.sent[at] for at in self._waiting]
        return [waiting[-1].address, *([None] if len(waiting) > 1 else [])] if waiting else []

    def _end(self, at: int, outcome: Outcome, now_s: float, revision: int | None = None) -> None:
        ended_s = math.inf if outcome is Outcome.UNKNOWN else now_s
        self.sent[at] = replace(self.sent[at], outcome=outcome, ended_s=ended_s, revision=revision)


def outcome_of(error: Error) -> Outcome:
    """Returns what an ERROR says of the write that it answers.

    Raises:
        AssertionError: it is one that these clients give no reason for.
    """
    if error.error == ErrorCode.CONFLICT:
        return Outcome.CONFLICT
    if error.error == ErrorCode.OVERLOADED:
        return Outcome.REFUSED if NOT_DONE in error.message else Outcome.UNKNOWN
    raise AssertionError(error)


class Listener(Client):
    """Subscribes to everything and records what comes."""

    def __init__(self, members: Sequence[Member], name: str) -> None:
        super().__init__(members, name)
        self.heard: dict[str, list[Heard]] = {}

    def live(self, client: RawClient) -> None:
        """Listens until the connection ends."""
        items = self.heard.setdefault(self.session, [])
        client.send(Subscribe(1, f"{ROOT}/**"), Ping())
        while True:
            message = client.receive_any()
            if isinstance(message, Pong) and items:
                items[-1] = replace(items[-1], is_settled=True)
            items += told(message)


def told(message: Message) -> list[Heard]:
    """Returns what a message tells a listener."""
    if isinstance(message, Snapshot):
        return [
            Heard(
                kind=Kind.SNAPSHOT,
                address=param.address,
                value=str(decode_value(param.value)),
                revision=param.revision,
            )
            for param in message.params
            if param.address.startswith(ROOT) and param.value != NULL
        ]
    if isinstance(message, Set | Publish) and message.value is not None:
        kind = Kind.SET if isinstance(message, Set) else Kind.PUBLISH
        revision = (message.revision or 0) if isinstance(message, Set) else 0
        return [Heard(kind=kind, address=message.address, value=str(decode_value(message.value)), revision=revision)]
    return []


class Load:
    """Senders and listeners at every relay.

    One sender of each relay goes to no other one. So whichever relay stands still, somebody writes through another, and
    the time without a write is how long that relay had to wait, and not how long a client waits for an answer.

    Args:
        cluster: which.
        seed: what the senders draw follows from it.
        senders: how many begin at each relay.
    """

    def __init__(self, cluster: Cluster, seed: int, senders: int = 2) -> None:
        self._cluster = cluster
        members = cluster.members
        turned = [[*members[at:], *members[:at]] for at in range(len(members))]
        self.senders = [
            Sender(order if number else order[:1], f"s{number}{order[0].name}", seed)
            for order in turned
            for number in range(senders)
        ]
        self.listeners = [Listener(order, f"l{order[0].name}") for order in turned]

    def start(self) -> None:
        """Starts all, and waits until each has heard or sent something."""
        for each in (*self.listeners, *self.senders):
            each.start()
        self.wait_for_writes()

    def wait_for_writes(self) -> None:
        """Waits until every sender's writes are acknowledged, from now on."""
        since_s = time.monotonic()
        wait_until(
            lambda: all(each.acked_s and each.acked_s[-1] > since_s for each in self.senders),
            f"every sender is acknowledged: {self._cluster}",
        )

    def longest_wait_s(self, since_s: float) -> float:
        """Returns the longest time without an acknowledged write of any sender since a moment."""
        times = sorted(time_s for each in self.senders for time_s in each.acked_s if time_s >= since_s)
        return max((later - earlier for earlier, later in itertools.pairwise([since_s, *times])), default=0.0)

    def finish(self) -> History:
        """Stops the senders, waits until all relays show the same, and returns what was recorded."""
        for sender in self.senders:
            sender.finish()
        for sender in self.senders:
            sender.join(2 * ANSWER_S + PATIENCE_S)
        self._cluster.wait()
        finals: dict[str, dict[str, tuple[int, str]]] = {}

        def is_settled() -> bool:
            finals.update({member.name: shown(member) for member in self._cluster.members if member.is_running})
            first, *others = finals.values()
            return all(other == first for other in others)

        with suppress(AssertionError):  # the checker says what differs
            wait_until(is_settled, "all relays show the same", ANSWER_S)
        for listener in self.listeners:
            listener.cut_off()
        history = History(finals=finals, claims=list(self._cluster.watch.claims))
        for sender in self.senders:
            history.sent += sender.sent
            history.heard |= sender.heard
            history.strays += sender.strays
        for listener in self.listeners:
            history.heard |= listener.heard
        return history


def shown(member: Member) -> dict[str, tuple[int, str]]:
    """Returns what a relay shows a newcomer: revision and value by address."""
    client = member.admitted("newcomer")
    client.send(Subscribe(1, f"{ROOT}/**"))
    messages = client.settle()
    client.close()
    items = [item for message in messages for item in told(message)]
    return {item.address: (item.revision, item.value) for item in items}
