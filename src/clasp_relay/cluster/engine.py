"""The engine of a cluster: NATS with JetStream, used through ``nats-py`` in the event loop (``hosted_loop``).

Requests are written at once; callbacks are made after the turn of nats-py's loop that has read the answer. The log is
one stream with one subject. Its server decides which append comes first: an append names the last message that it is to
follow, and is refused if that is not the last one.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from base64 import b64decode
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import ParseResult, urlsplit, urlunsplit

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.protocol.parser import PERMISSIONS_ERR, STALE_CONNECTION

from clasp_relay.cluster.credentials import BadCredentials, Credentials
from clasp_relay.cluster.direct_client import DirectClient
from clasp_relay.cluster.hosted_loop import HostedLoop
from clasp_relay.cluster.jetstream import CUT_OFF, NO_MESSAGE, NO_REPLICAS, NO_STREAM, WRONG_SEQUENCE, error_code
from clasp_relay.cluster.ports import Appended, Bounds, Outcome
from clasp_relay.errors import cause_text
from clasp_relay.logs import events

__all__ = ["NatsEngine"]

MAX_LOG_BYTES = (1 << 30, 1 << 26)
"""Size limit of the stream: the first of these for which the servers have space."""

MIN_PAYLOAD_BYTES = 1024 * 1024
"""The smallest ``max_payload`` of NATS: a message is a batch with the longest bundle, or a piece of an image."""

ANSWER_S = 2.0
"""Timeout for an answer of the engine."""

FLUSH_S = 5
"""Timeout for a flush; nats-py notices a dead connection earlier."""

ELSEWHERE_S = 8.0
"""After this time without an answer about the log, another server that reaches it is looked for."""

STOPS_S = 1.0
"""How long a stop waits until the server has taken the messages that were sent before."""

RETRY_S = 0.25
FIRST_LINE_S = 1.0
"""How long the first attempts may fail before that is logged."""

NO_ROOM = 10047
NOT_ENABLED = (10039, 10076)
"""JetStream is not enabled: for the account, or at all."""

NO_TLS = "the server speaks no TLS: give nats-server a tls block, or say nats:// where its network can be trusted"


class _Unusable(Exception):
    """Another attempt would fail, too; the text is the reason, in one line."""


class _TlsError(NatsError):
    """The server of a URL with ``tls://`` does not use TLS."""

    def __str__(self) -> str:
        return NO_TLS


class _Client(DirectClient):
    """Requires TLS with ``tls://``, and never ends by itself.

    nats-py uses TLS only if the server asks for it, and otherwise sends the password without it.
    """

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        server = self._current_server
        if initial_connection and server is not None and server.uri.scheme == "tls" and not info.get("tls_required"):
            raise _TlsError
        if initial_connection and info.get("tls_required"):
            # In a thread, since reading all certificates that the system trusts takes 30 ms.
            self.options["tls"] = await asyncio.to_thread(ssl.create_default_context)
        await super()._process_info(info, initial_connection)

    async def _process_connect_init(self) -> None:
        """Connects also if a busy server sends a PING of its own before it answers the client's.

        nats-py reads a single line after its PING, and would stay in the state «connecting» for ever.
        """
        await super()._process_connect_init()
        if self._current_server is not None:
            # So that the next attempt waits if the connection is lost at once.
            self._current_server.last_attempt = time.monotonic()
        if self.is_connecting:
            # The answer to the client's PING is still to come.
            self._pongs.append(asyncio.Future())
            self._status = Client.CONNECTED

    async def _process_err(self, err_msg: str) -> None:
        """Reconnects after an error from the server: nats-py would end for good, without a callback."""
        if STALE_CONNECTION in err_msg or PERMISSIONS_ERR in err_msg:
            await super()._process_err(err_msg)
            return
        error = NatsError(f"nats: {err_msg}")
        await self._error_cb(error)
        await self._process_op_err(error)


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
        self._name = name
        self._creds = creds
        self._relay = relay
        self._when_connected: Callable[[bool], None] = _ignore
        self._when_fatal: Callable[[str], None] = _ignore
        self._subscriptions: dict[str, Callable[[bytes], None]] = {}
        self._unheard: set[str] = set()
        """Subjects that are not subscribed to now; see ``hear``."""
        self._loop: HostedLoop | None = None
        self._life: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._client: _Client | None = None
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
        self._is_finding = False
        self._failures: str = ""
        self._login = _login_of(urls)
        """The arguments of a connection for the credentials."""
        self._silent_since_s: float | None = None
        """Since when requests about the log were not answered; None if the last one was."""
        self._is_looking = False
        """Whether a server that answers is being looked for."""

    @property
    def places(self) -> str:
        """The servers without user and password, for people."""
        return ", ".join(_without_secret(url) for url in self._urls)

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
                return client.put(f"{self._name}.log", payload, f"{self._inbox}.{number}", header)
            except NatsError as error:
                outcome = Outcome.TOO_LONG if isinstance(error, MaxPayloadError) else Outcome.FAILED
                self._end_append(number, Appended(outcome, text=cause_text(error)))
                return None

        self._do(append)

    def read(self, seq: int, at_most: int, done: Callable[[Sequence[bytes] | None], None]) -> None:
        """See ``Engine``; asks the leader of the stream, which has all messages."""

        async def read() -> None:
            try:
                found = await asyncio.gather(*(self._message(each) for each in range(seq, seq + at_most)))
            except (NatsError, TimeoutError, OSError, ValueError, KeyError):
                self._tell(partial(done, None))
                return
            end = next((place for place, payload in enumerate(found) if payload is None), len(found))
            self._tell(partial(done, [payload for payload in found[:end] if payload is not None]))

        self._do_beside(read)

    def bounds(self, done: Callable[[Bounds | None], None]) -> None:
        """See ``Engine``."""

        async def bounds() -> None:
            try:
                state = (await self._api(f"STREAM.INFO.{self._name}"))["state"]
                found = Bounds(state["first_seq"], state["last_seq"])
            except (NatsError, TimeoutError, OSError, ValueError, KeyError):
                self._tell(partial(done, None))
                return
            self._tell(partial(done, found))

        self._do_beside(bounds)

    @property
    def replicas(self) -> int:
        """The number of servers that keep a stream."""
        return 1 if self._client is None else _replicas(self._client)

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
        except _Unusable as error:
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
                await _close(self._client)

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
        if self._creds is not None:
            credentials = _usable(self._creds)
            self._login = {"user_jwt_cb": credentials.jwt, "signature_cb": credentials.sign}
        client = _Client()
        await client.connect(
            # Shuffled, so that relays use different servers; only once, so that none returns to one it has just left.
            servers=random.sample(self._urls, len(self._urls)),
            dont_randomize=True,
            name=f"clasp-relay {self._relay}",
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
            raise _Unusable(
                f"{self.places}: max_payload of NATS is {client.max_payload} bytes, a cluster needs "
                f"{MIN_PAYLOAD_BYTES} (its default)"
            )
        self._client = client
        await self._find_stream(client)
        self._inbox = client.new_inbox()
        await client.listen(f"{self._inbox}.*", self._heard_append)
        self._has_subscribed = True
        for subject in self._subscriptions:
            await self._listen(client, subject)
        await _flush(client)
        self._was_connected = True
        self._tell(partial(self._set_connected, True))

    async def _listen(self, client: _Client, subject: str) -> None:
        """Subscribes or unsubscribes, whichever is wanted now."""
        if subject in self._unheard:
            await client.leave(subject)
        else:
            await client.listen(subject, partial(self._received, self._subscriptions[subject]))

    def _say_unreachable(self) -> None:
        if not self._was_connected:
            cause = self._failures or "no answer"
            self._tell(lambda: events.CLUSTER_UNREACHABLE.log(places=self.places, cause=cause))

    def _heard_append(self, subject: bytes, data: bytes) -> None:
        """Takes the stream's answer to an append; ignores one that comes too late."""
        try:
            found = json.loads(data)
            answer, is_cut_off = _appended(found), error_code(found) in CUT_OFF
        except ValueError:
            # No stream listens: its servers elect a leader.
            answer, is_cut_off = Appended(Outcome.FAILED, text="no stream answers"), True
        self._note_answer(is_there=not is_cut_off)
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
            self._note_answer(is_there=False)
            self._end_append(number, Appended(Outcome.FAILED, text="no answer in time"))
        if self._silent_since_s is not None and now_s - self._silent_since_s > ELSEWHERE_S and not self._is_looking:
            self._is_looking = True
            self._do_beside(self._look_elsewhere)

    # A server that is cut off from the others

    def _note_answer(self, *, is_there: bool) -> None:
        """Notes whether a request about the log was answered."""
        if is_there:
            self._silent_since_s = None
        elif self._silent_since_s is None:
            self._silent_since_s = time.monotonic()

    async def _look_elsewhere(self) -> None:
        """Connects to another server if this one does not reach the log and another one does."""
        client = self._client
        assert client is not None, "asked without a client"
        try:
            own = client.connected_url
            if await self._own_reaches_log():
                return
            for uri in client.servers:
                if own is None or self._silent_since_s is None:
                    return
                if uri != own and await self._reaches_log(uri.geturl()):
                    await self._leave(client, uri)
                    return
        finally:
            self._is_looking, self._silent_since_s = False, None

    async def _own_reaches_log(self) -> bool:
        """Tells whether the connected server answers requests about the log by now."""
        try:
            return error_code(await self._api_answer(f"STREAM.INFO.{self._name}")) not in CUT_OFF
        except (NatsError, TimeoutError, OSError, ValueError):
            return False

    async def _leave(self, client: Client, uri: ParseResult) -> None:
        """Connects to another server, unless the connected one has answered meanwhile."""
        if self._silent_since_s is None or client.connected_url is None:
            return
        places = _without_secret(client.connected_url.geturl()), _without_secret(uri.geturl())
        self._tell(lambda: events.CLUSTER_SERVER_LEFT.log(server=places[0], other=places[1]))
        # nats-py tries the first server of its pool next.
        client._server_pool.sort(key=lambda server: server.uri != uri)
        await client.force_reconnect()

    async def _reaches_log(self, url: str) -> bool:
        """Tells whether a server answers requests about the log, even if only that there is none yet."""
        probe = _Client()
        try:
            async with asyncio.timeout(2 * ANSWER_S):
                await probe.connect(
                    servers=[url],
                    name=f"clasp-relay {self._relay}",
                    **self._login,
                    connect_timeout=int(ANSWER_S),
                    allow_reconnect=False,
                    error_cb=_ignore_error,
                )
                answer = await probe.request(f"$JS.API.STREAM.INFO.{self._name}", timeout=ANSWER_S)
            return error_code(json.loads(answer.data)) in (None, NO_STREAM)
        except (NatsError, TimeoutError, OSError, ValueError):
            return False
        finally:
            await _close(probe)

    def _received(self, call: Callable[[bytes], None], _subject: bytes, data: bytes) -> None:
        self._tell(partial(call, data))

    async def _erred(self, error: Exception) -> None:
        self._failures = cause_text(error)
        text = str(error).lower()
        is_refused = "timeout" not in text  # a busy server's error for a client that was too slow
        if (
            not self._was_connected
            and is_refused
            and ("authorization" in text or "authentication" in text or "nkeys" in text)
        ):
            self._give_up(f"{self.places}: NATS refuses the credentials; see --cluster-creds")
        if not self._was_connected and isinstance(error, _TlsError):
            self._give_up(f"{self.places}: {NO_TLS}")

    def _give_up(self, text: str) -> None:
        async def give_up() -> None:
            raise _Unusable(text)

        self._do(give_up)

    async def _disconnected(self) -> None:
        self._silent_since_s = None
        self._tell(partial(self._set_connected, False))

    async def _reconnected(self) -> None:
        if not self._was_connected:
            return
        # The bus works; the stream may be without a leader for some time.
        self._tell(partial(self._set_connected, True))
        if not self._is_finding:
            self._do_beside(self._find_again)

    async def _find_again(self) -> None:
        assert self._client is not None, "connected again without a client"
        try:
            await self._find_stream(self._client)
        except _Unusable as error:
            self._give_up(str(error))

    async def _find_stream(self, client: Client) -> None:
        """Finds the stream, or makes it, and checks that it is the log of a cluster.

        Raises:
            _Unusable: it is another stream, or there is no JetStream.
        """
        replicas = _replicas(client)
        rooms = list(MAX_LOG_BYTES)
        self._is_finding = True
        while True:
            try:
                answer = await self._api_answer(f"STREAM.INFO.{self._name}")
                if error_code(answer) == NO_STREAM:
                    body = json.dumps(self._config(replicas, rooms[0])).encode()
                    answer = await self._api_answer(f"STREAM.CREATE.{self._name}", body)
            except (NatsError, TimeoutError, OSError, ValueError) as error:
                # There is no answer without JetStream, nor while the servers elect a leader.
                self._failures = cause_text(error)
                if client.is_connected and not _has_jetstream(client):
                    raise _Unusable(f"{self.places}: JetStream is off: start nats-server with -js") from None
                await asyncio.sleep(RETRY_S)
                continue
            code = error_code(answer)
            if code is None:
                self._check_stream(answer["config"])
                self._is_finding = False
                return
            if code in NOT_ENABLED:
                raise _Unusable(f"{self.places}: JetStream is off, or not for this account")
            if code == NO_REPLICAS:
                replicas = 1
            elif code == NO_ROOM and len(rooms) > 1:
                del rooms[0]
            else:
                self._failures = str(answer["error"].get("description", code))
                await asyncio.sleep(RETRY_S)

    def _config(self, replicas: int, max_bytes: int) -> dict[str, object]:
        return {
            "name": self._name,
            "description": "the log of a cluster of clasp-relay",
            "subjects": [f"{self._name}.log"],
            "retention": "limits",
            "storage": "file",
            "discard": "old",
            "max_bytes": max_bytes,
            "max_msgs": -1,
            "max_consumers": -1,
            "num_replicas": replicas,
        }

    def _check_stream(self, config: dict[str, Any]) -> None:
        if config.get("subjects") != [f"{self._name}.log"] or config.get("retention") != "limits":
            raise _Unusable(
                f"{self.places}: there is a stream {self._name} that is not the log of a cluster; "
                "give the cluster another name with --cluster-name"
            )

    async def _message(self, seq: int) -> bytes | None:
        """Returns a message of the log; None if it has none with that number."""
        answer = await self._api_answer(f"STREAM.MSG.GET.{self._name}", b'{"seq":%d}' % seq)
        code = error_code(answer)
        if code == NO_MESSAGE:
            return None
        if code is not None:
            raise ValueError(str(answer["error"]))
        return b64decode(answer["message"].get("data", ""))

    async def _api(self, what: str, body: bytes = b"") -> dict[str, Any]:
        answer = await self._api_answer(what, body)
        if "error" in answer:
            raise ValueError(str(answer["error"]))
        return answer

    async def _api_answer(self, what: str, body: bytes = b"") -> dict[str, Any]:
        """Makes a request about the log, and notes whether it was answered."""
        try:
            found = await self._request(f"$JS.API.{what}", body)
        except (NatsError, TimeoutError):
            self._note_answer(is_there=False)
            raise
        self._note_answer(is_there=error_code(found) not in CUT_OFF)
        return found

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


async def _close(client: DirectClient) -> None:
    # Otherwise ``close`` would wait until the server has taken all.
    client.abort()
    try:
        await client.close()
    except (NatsError, OSError):
        """The connection was lost before the remaining data was written."""


async def _flush(client: Client) -> None:
    """Waits until the server has taken all, also if the connection is lost meanwhile."""
    while True:
        try:
            await client.flush(FLUSH_S)
            if client.is_connected:
                return
        except (NatsError, TimeoutError, OSError):
            """nats-py sends it again with the next connection."""
        await asyncio.sleep(RETRY_S)


def _replicas(client: Client) -> int:
    return min(3, max(1, len(client.servers)))


def _appended(answer: dict[str, Any]) -> Appended:
    code = error_code(answer)
    if code is None:
        return Appended(Outcome.DONE, int(answer["seq"]))
    if code == WRONG_SEQUENCE:
        return Appended(Outcome.FENCED)
    return Appended(Outcome.FAILED, text=str(answer["error"].get("description", code)))


def _has_jetstream(client: Client) -> bool:
    return bool(client._server_info.get("jetstream"))


def _usable(path: Path) -> Credentials:
    """Returns the credentials in a file.

    Raises:
        _Unusable: they cannot be used.
    """
    credentials = Credentials(path)
    try:
        credentials.check()
    except BadCredentials as error:
        raise _Unusable(f"--cluster-creds: {error}") from None
    return credentials


def _login_of(urls: Sequence[str]) -> dict[str, Any]:
    """Returns user and password, or the token, if all URLs have the same: servers name other servers without them."""
    (user, password), *others = {(parts.username, parts.password) for parts in map(urlsplit, urls)}
    if others or user is None:
        return {}
    return {"token": user} if password is None else {"user": user, "password": password}


def _without_secret(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "", "", ""))


async def _ignore_error(_error: Exception) -> None:
    """Does nothing: the caller of ``connect`` gets the exception."""


def _ignore(_what: object) -> None:
    """Does nothing."""


def _nobody() -> None:
    """Does nothing."""
