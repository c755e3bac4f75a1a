"""The engine of a cluster: NATS with JetStream, used through ``nats-py`` in the event loop (``hosted_loop``).

Requests are written at once; callbacks are made after the turn of nats-py's loop that has read the answer.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError

from clasp_relay.cluster.exchange.ports import Appended, Bounds, Outcome
from clasp_relay.cluster.nats.hosted_loop import HostedLoop
from clasp_relay.cluster.nats.jetstream import CUT_OFF, WRONG_SEQUENCE, error_code
from clasp_relay.cluster.nats.log_stream import NO_ANSWER, LogStream
from clasp_relay.cluster.nats.nats_client import (
    ANSWER_S,
    RETRY_S,
    NatsClient,
    NoTlsError,
    Unusable,
    login_of,
    without_secret,
)
from clasp_relay.cluster.nats.other_servers import OtherServers
from clasp_relay.errors import cause_text
from clasp_relay.logs import events

__all__ = ["NatsEngine"]

MIN_PAYLOAD_BYTES = 1024 * 1024
"""The smallest ``max_payload`` of NATS: a message is a batch with the longest bundle, or a piece of an image."""

STOPS_S = 1.0
"""How long a stop waits until the server has taken the messages that were sent before."""

FIRST_LINE_S = 1.0
"""How long the first attempts may fail before that is logged."""


class NatsEngine:
    """Implements ``ports.Engine``.

    Args:
        reactor: the event loop.
        urls: the servers.
        name: the name of the cluster: the stream's name, and the prefix of its subjects.
        creds: the file with the credentials; None for none.
        relay: the relay's name, for the servers' list of connections.
    """

    def __init__(self, reactor: Any, urls: Sequence[str], name: str, creds: Path | None, relay: str) -> None:
        self.is_connected = False
        self._reactor = reactor
        self._urls = tuple(urls)
        self._creds = creds
        self._title = f"clasp-relay {relay}"
        """The name of the connection, for the servers' list of connections."""
        self._when_connected: Callable[[bool], None] = _ignore
        self._when_fatal: Callable[[str], None] = _ignore
        self._subscriptions: dict[str, Callable[[bytes], None]] = {}
        self._unheard: set[str] = set()
        """Subjects that are not subscribed to now; see ``hear``."""
        self._loop: HostedLoop | None = None
        self._life: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._client: NatsClient | None = None
        self._calls: deque[Callable[[], Awaitable[None] | None]] = deque()
        self._waits_for: Awaitable[None] | None = None
        """An awaitable before whose end no further call is made."""
        self._is_gathering = False
        """Whether messages wait to be written together (``in_one_write``)."""
        self._fault: Exception | None = None
        self._has_subscribed = False
        self._came: deque[Callable[[], None]] = deque()
        self._has_turn = False
        self._appends: dict[int, tuple[Callable[[Appended], None], float]] = {}
        """Appends without an answer by number: the callback, and when the timeout ends."""
        self._asked = 0
        """The number of the last append."""
        self._inbox = ""
        """The subject of answers to appends, without the append's number at its end."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._was_connected = False
        self._is_stopping = False
        self._has_ended = False
        self._when_ended: Callable[[], None] = _nobody
        self._failure = ""
        """Why the last attempt to connect failed."""
        self._login: dict[str, Any] = {}
        """The arguments of a connection for the credentials."""
        self._stream = LogStream(name, self.places, self._request)
        self._others = OtherServers(self._stream, self._title, self._left)

    @property
    def places(self) -> str:
        """The servers without user and password, for people."""
        return ", ".join(without_secret(url) for url in self._urls)

    # Requests

    def start(self, when_connected: Callable[[bool], None], when_fatal: Callable[[str], None]) -> None:
        """See ``Engine``."""
        self._when_connected, self._when_fatal = when_connected, when_fatal
        self._loop = HostedLoop(self._reactor, self._take)
        self._life = self._loop.create_task(self._live())
        self._life.add_done_callback(lambda _: self._tell(self._ended))

    def stop(self, done: Callable[[], None]) -> None:
        """See ``Engine``."""
        self._is_stopping = True
        if self._loop is None or self._has_ended:
            done()
            return
        # It may be ending by itself; ``_ended`` is called in either case.
        self._when_ended = done

        async def close() -> None:
            try:
                if self._client is not None:
                    await self._client.flush()
            except (NatsError, TimeoutError, OSError):
                """Waiting messages are lost; other relays read their contents from the log."""
            raise asyncio.CancelledError

        self._do(close)
        self._loop.call_later(STOPS_S, self._end_at_once)

    def subscribe(self, subject: str, call: Callable[[bytes], None]) -> None:
        """See ``Engine``; only called before ``start``."""
        self._subscriptions[subject] = call

    def hear(self, subject: str, is_heard: bool) -> None:
        """See ``Engine``."""

        async def change() -> None:
            (self._unheard.discard if is_heard else self._unheard.add)(subject)
            if self._client is not None and self._has_subscribed:
                await self._listen(self._client, subject)

        self._do(change)

    def publish(self, subject: str, payload: bytes) -> None:
        """See ``Engine``."""

        def publish() -> Awaitable[None] | None:
            client = self._client
            if client is None or not client.is_connected:
                return None
            try:
                return client.put(subject, payload)
            except NatsError as error:
                cause = cause_text(error)
                self._tell(lambda: events.CLUSTER_MESSAGE_BAD.log(error=cause))
                return None

        self._do(publish)

    @contextmanager
    def in_one_write(self) -> Iterator[None]:
        """See ``Engine``."""
        self._is_gathering = True
        try:
            yield
        finally:
            self._is_gathering = False
            self._make_calls()

    def append(self, payload: bytes, expected: int, done: Callable[[Appended], None]) -> None:
        """See ``Engine``."""

        def append() -> Awaitable[None] | None:
            # Without a task and a timer of its own, which a request of nats-py has: there is one append for each batch.
            client = self._client
            if client is None or not client.is_connected:
                self._tell(partial(done, Appended(Outcome.FAILED, text="no connection")))
                return None
            number = self._asked = self._asked + 1
            self._appends[number] = done, time.monotonic() + ANSWER_S
            header = b"NATS/1.0\r\nNats-Expected-Last-Sequence: %d\r\n\r\n" % expected
            try:
                return client.put(self._stream.subject, payload, f"{self._inbox}.{number}", header)
            except NatsError as error:
                outcome = Outcome.TOO_LONG if isinstance(error, MaxPayloadError) else Outcome.FAILED
                self._end_append(number, Appended(outcome, text=cause_text(error)))
                return None

        self._do(append)

    def read(self, seq: int, at_most: int, done: Callable[[Sequence[bytes] | None], None]) -> None:
        """See ``Engine``."""

        async def read() -> None:
            try:
                found = await asyncio.gather(*(self._stream.message(each) for each in range(seq, seq + at_most)))
            except (*NO_ANSWER, KeyError):
                self._tell(partial(done, None))
                return
            end = next((place for place, payload in enumerate(found) if payload is None), len(found))
            self._tell(partial(done, [payload for payload in found[:end] if payload is not None]))

        self._do_beside(read)

    def bounds(self, done: Callable[[Bounds | None], None]) -> None:
        """See ``Engine``."""

        async def bounds() -> None:
            try:
                found = await self._stream.bounds()
            except (*NO_ANSWER, KeyError):
                self._tell(partial(done, None))
                return
            self._tell(partial(done, found))

        self._do_beside(bounds)

    @property
    def replicas(self) -> int:
        """The number of servers that are to keep a stream."""
        return 1 if self._client is None else self._client.replicas

    def request(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None,
        done: Callable[[dict[str, Any] | None], None],
    ) -> None:
        """Makes a request whose answer is JSON, and calls with it; with None if there is none.

        It is not about the log, so a missing answer does not count as silence of the log: another stream may have no
        leader, or be slow.

        Args:
            subject: its subject.
            payload: its payload.
            headers: its headers; None for none.
            done: called with the answer.
        """

        async def request() -> None:
            try:
                answer = await self._request(subject, payload, headers)
            except (NatsError, TimeoutError, OSError, ValueError):
                self._tell(partial(done, None))
                return
            self._tell(partial(done, answer))

        self._do_beside(request)

    def _do(self, call: Callable[[], Awaitable[None] | None]) -> None:
        """Queues a call behind all earlier ones; later ones wait for the awaitable that it returns."""
        if not self._has_ended:
            self._calls.append(call)
            self._make_calls()

    def _do_beside(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs a coroutine in a task of its own, for which no call waits."""

        def begin() -> None:
            assert self._loop is not None, "asked before the start"
            task = self._loop.create_task(call())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._do(begin)

    def _take(self) -> None:
        """Makes the callbacks that are due."""
        self._has_turn = False
        came, self._came = self._came, deque()
        for call in came:
            try:
                call()
            except Exception:
                # Logged, so that the callbacks after it are made.
                events.CLUSTER_FAULT.failure()

    def _set_connected(self, is_connected: bool) -> None:
        if self.is_connected != is_connected and not self._is_stopping:
            self.is_connected = is_connected
            self._when_connected(is_connected)

    def _ended(self) -> None:
        self._has_ended = True
        if self._loop is not None:
            self._loop.close()
        self._when_ended()

    # In nats-py's loop

    def _tell(self, call: Callable[[], None]) -> None:
        """Schedules a callback after this turn."""
        self._came.append(call)
        if not self._has_turn and (self._loop is None or not self._loop.is_running()):
            self._has_turn = True
            self._reactor.callLater(0, self._take)

    def _end_at_once(self) -> None:
        """Ends at once, without sending waiting messages, which the server does not take."""
        assert self._life is not None, "stopped before the start"
        self._calls.clear()
        # nats-py continues if it is cancelled while it sends.
        self._calls.append(_end)
        self._life.cancel()

    async def _live(self) -> None:
        try:
            await self._main()
        except asyncio.CancelledError:
            """It was stopped."""
        except Unusable as error:
            self._tell(partial(self._when_fatal, str(error)))
        except Exception as error:
            events.CLUSTER_FAULT.failure()
            self._tell(partial(self._when_fatal, f"the engine has ended: {cause_text(error)}"))
        finally:
            others = asyncio.all_tasks() - {self._life}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    async def _main(self) -> None:
        self._end_old_appends()
        connecting = asyncio.ensure_future(self._connect())
        connecting.add_done_callback(lambda _: self._wake.set())
        self._make_calls()  # those from before the start
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if connecting.done():
                    connecting.result()
                if self._fault is not None:
                    raise self._fault
                while self._waits_for is not None:
                    await self._waits_for
                    self._waits_for = None
                    self._make_calls()
        finally:
            connecting.cancel()
            if self._client is not None:
                await self._client.close_at_once()

    def _make_calls(self) -> None:
        """Makes queued calls, up to one with an awaitable, for which ``_main`` waits."""
        if self._loop is None:
            return
        try:
            while self._calls and self._waits_for is None:
                self._waits_for = self._calls.popleft()()
            if self._client is not None and not self._is_gathering:
                self._client.write()
        except Exception as error:
            self._fault = error
        if self._waits_for is not None or self._fault is not None:
            self._wake.set()

    async def _connect(self) -> None:
        """Connects, finds or makes the stream, and subscribes; repeats failed attempts."""
        asyncio.get_running_loop().call_later(FIRST_LINE_S, self._say_unreachable)
        self._login = login_of(self._urls, self._creds)
        client = NatsClient()
        await client.connect(
            # Shuffled, so that relays use different servers; only once, so that none returns to one it has just left.
            servers=random.sample(self._urls, len(self._urls)),
            dont_randomize=True,
            name=self._title,
            **self._login,
            connect_timeout=int(ANSWER_S),
            max_reconnect_attempts=-1,
            reconnect_time_wait=cast("int", RETRY_S),
            ping_interval=1,
            max_outstanding_pings=3,
            error_cb=self._erred,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
        )
        if client.max_payload < MIN_PAYLOAD_BYTES:
            raise Unusable(
                f"{self.places}: max_payload of NATS is {client.max_payload} bytes, a cluster needs "
                f"{MIN_PAYLOAD_BYTES} (its default)"
            )
        self._client = client
        await self._stream.find(client, self._note_failure)
        self._inbox = client.new_inbox()
        await client.listen(f"{self._inbox}.*", self._heard_append)
        self._has_subscribed = True
        for subject in self._subscriptions:
            await self._listen(client, subject)
        await client.flush_all()
        self._was_connected = True
        self._tell(partial(self._set_connected, True))

    async def _listen(self, client: NatsClient, subject: str) -> None:
        """Subscribes or unsubscribes, whichever is wanted now."""
        if subject in self._unheard:
            await client.leave(subject)
        else:
            await client.listen(subject, partial(self._received, self._subscriptions[subject]))

    def _say_unreachable(self) -> None:
        if not self._was_connected:
            cause = self._failure or "no answer"
            self._tell(lambda: events.CLUSTER_UNREACHABLE.log(places=self.places, cause=cause))

    def _heard_append(self, subject: bytes, data: bytes) -> None:
        """Takes the stream's answer to an append; ignores one that comes too late."""
        try:
            found = json.loads(data)
            answer, is_cut_off = _appended(found), error_code(found) in CUT_OFF
        except ValueError:
            # No stream listens: its servers elect a leader.
            answer, is_cut_off = Appended(Outcome.FAILED, text="no stream answers"), True
        self._stream.note_answer(is_there=not is_cut_off)
        self._end_append(int(subject.rpartition(b".")[2]), answer)

    def _end_append(self, number: int, answer: Appended) -> None:
        waiting = self._appends.pop(number, None)
        if waiting is not None:
            self._tell(partial(waiting[0], answer))

    def _end_old_appends(self) -> None:
        """Fails appends that were not answered in time; reschedules itself."""
        asyncio.get_running_loop().call_later(RETRY_S, self._end_old_appends)
        now_s = time.monotonic()
        for number in [number for number, (_, end_s) in self._appends.items() if end_s <= now_s]:
            self._stream.note_answer(is_there=False)
            self._end_append(number, Appended(Outcome.FAILED, text="no answer in time"))
        if self._others.are_due(now_s):
            self._do_beside(self._look_elsewhere)

    async def _look_elsewhere(self) -> None:
        assert self._client is not None, "asked without a client"
        await self._others.look(self._client, self._login)

    def _left(self, server: str, other: str) -> None:
        self._tell(lambda: events.CLUSTER_SERVER_LEFT.log(server=server, other=other))

    def _received(self, call: Callable[[bytes], None], _subject: bytes, data: bytes) -> None:
        self._tell(partial(call, data))

    def _note_failure(self, cause: str) -> None:
        self._failure = cause

    async def _erred(self, error: Exception) -> None:
        self._note_failure(cause_text(error))
        text = str(error).lower()
        is_refused = "timeout" not in text  # a busy server's error for a client that was too slow
        if (
            not self._was_connected
            and is_refused
            and ("authorization" in text or "authentication" in text or "nkeys" in text)
        ):
            self._give_up(f"{self.places}: NATS refuses the credentials; see --cluster-creds")
        if not self._was_connected and isinstance(error, NoTlsError):
            self._give_up(f"{self.places}: {error}")

    def _give_up(self, text: str) -> None:
        async def give_up() -> None:
            raise Unusable(text)

        self._do(give_up)

    async def _disconnected(self) -> None:
        self._stream.silent_since_s = None
        self._tell(partial(self._set_connected, False))

    async def _reconnected(self) -> None:
        if not self._was_connected:
            return
        # The bus works; the stream may be without a leader for some time.
        self._tell(partial(self._set_connected, True))
        if not self._stream.is_finding:
            self._do_beside(self._find_again)

    async def _find_again(self) -> None:
        assert self._client is not None, "connected again without a client"
        try:
            await self._stream.find(self._client, self._note_failure)
        except Unusable as error:
            self._give_up(str(error))

    async def _request(self, subject: str, body: bytes, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        client = self._client
        if client is None or not client.is_connected:
            raise ValueError("no connection")
        sent = None if headers is None else {**headers}
        answer = await client.request(subject, body, timeout=ANSWER_S, headers=sent)
        found: dict[str, Any] = json.loads(answer.data)
        return found


async def _end() -> None:
    raise asyncio.CancelledError


def _appended(answer: dict[str, Any]) -> Appended:
    code = error_code(answer)
    if code is None:
        return Appended(Outcome.DONE, int(answer["seq"]))
    if code == WRONG_SEQUENCE:
        return Appended(Outcome.FENCED)
    return Appended(Outcome.FAILED, text=str(answer["error"].get("description", code)))


def _ignore(_what: object) -> None:
    """Does nothing."""


def _nobody() -> None:
    """Does nothing."""
