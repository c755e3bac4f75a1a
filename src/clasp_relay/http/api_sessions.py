"""Sessions of HTTP clients: turns requests into messages to the core, and the core's answers into responses.

A token has one session, which ends with the token or after a minute without a request; a request without a token has a
session of its own. Every message has exactly one answer, in the order of the messages: an ACK when the change is
recorded, or an ERROR. A GET is answered at once by its SNAPSHOT, also while earlier ACKs wait. A scheduled bundle has a
session of its own, which ends once the bundle is accepted: an ERROR when it is due would not belong to any request.
"""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from clasp_relay.access.tokens import digest_of
from clasp_relay.core.ports import Clock, Frame, Timer
from clasp_relay.core.records import Param
from clasp_relay.core.relay import Relay
from clasp_relay.core.rights.memory import Reads
from clasp_relay.core.session.identity import Identity
from clasp_relay.core.session.limiter import Limiter
from clasp_relay.core.session.sessions import Session
from clasp_relay.core.work import Pieces
from clasp_relay.errors import CloseCode, ErrorCode, RequestError
from clasp_relay.net.backlog import give_up
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.cost import message_cost
from clasp_relay.wire.json_values import CODEC, param_to_json
from clasp_relay.wire.messages import Bundle, Get, Hello, Message, Query

__all__ = ["IDLE_S", "MAX_HTTP_SESSIONS", "ApiSessions", "wait_until"]

IDLE_S = 60.0
"""Seconds from its last request to the end of a token's session."""

MAX_HTTP_SESSIONS = 10_000
"""Tokens that may have a session at once, and client addresses whose message limit is remembered."""

LOOKED_AT_ONCE = 200
"""Params that a list looks at in one piece of work; lists take turns with all other work (``core.work``)."""

LOOK_US = 3
"""Estimated cost in µs of looking at one."""

MAX_LIST_BYTES = 256 * 1024
"""Size of the values in one list, the same as a turn writes for snapshots; the client gets the rest with ``after``."""

ENTRY_BYTES = 200
"""Estimated bytes of a param in a list, without its value."""

MADE_AT_ONCE_BYTES, MADE_AT_ONCE_US = 16 * 1024, 500
"""Size of the values that are written as JSON in one piece, and the estimated cost of that in µs."""

FEW_TURNS = 100
"""Turns within which a message in pieces is usually handled; after these it is checked less often."""

LOOKED_EVERY_S, LOOKS = 0.05, 20
"""Interval and number of the checks whether a request's condition holds, such as a message of another relay."""

CLIENT_NAME = "HTTP"

Answer = dict[str, Any]


class _Outbox:
    """Implements ``core.ports.Outbox``: passes each answer to the request that waits for it."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self.waiting: deque[Deferred[Answer]] = deque()
        self._ended = ended

    def send(self, frame: Frame) -> None:
        """Answers the oldest waiting request."""
        if self.waiting:
            self.waiting.popleft().callback(json.loads(frame.wire))

    def send_snapshot(self, _key: object, frames: Iterator[bytes]) -> None:
        """Answers the latest waiting request, which is the GET of this SNAPSHOT."""
        told = json.loads(next(frames)) if self.waiting else None
        give_up(frames)
        if told is not None:
            self.waiting.pop().callback(told)

    def close(self, close_code: CloseCode, reason: str) -> None:
        """Refuses all waiting requests: the session has ended with its token, or the relay cannot go on."""
        is_relays = close_code in (CloseCode.TRY_AGAIN_LATER, CloseCode.GOING_AWAY, CloseCode.INTERNAL)
        self.refuse(ErrorCode.OVERLOADED if is_relays else ErrorCode.TOKEN_EXPIRED, reason)
        self._ended()

    def refuse(self, code: ErrorCode, reason: str) -> None:
        """Answers all waiting requests with an ERROR."""
        while self.waiting:
            self.waiting.popleft().callback({"code": int(code), "error": reason})

    def release(self) -> None:
        """Removes the reference to what is called at the end, which would be a reference cycle."""
        self._ended = _nothing

    def discard(self) -> None:
        """Does nothing: this outbox keeps no frames."""


class _Client:
    """One session and its end.

    Args:
        relay: the core.
        token: the token in its HELLO; empty for none.
        address: the client's.
        ended: called when the session has ended.
        identity: its identity, if that does not come from a token.
        is_single: whether it is for one request only.
    """

    def __init__(
        self,
        relay: Relay,
        token: str,
        address: str,
        ended: Callable[[], None],
        identity: Identity | None = None,
        *,
        is_single: bool = True,
    ) -> None:
        self._relay = relay
        self._ended = ended
        self._timer: Timer | None = None
        self._later: deque[tuple[Message, Deferred[Answer]]] = deque()
        """Requests that wait while a message is handled in pieces: before its end the answer to a GET could be passed
        to another request."""
        self._outbox = _Outbox(self._end_told)
        self.session: Session = relay.connect(self._outbox, address, CODEC)
        self.session.door = "http-single" if is_single else "http"
        welcome: Deferred[Answer] = Deferred()
        self._outbox.waiting.append(welcome)
        if identity is None:
            relay.accept(self.session, Hello(1, 0, CLIENT_NAME, token), 0)
        else:
            self._outbox.waiting.clear()
            self.session.identity, self.session.name = identity, CLIENT_NAME
            relay.admit(self.session)
            relay.observer.began(self.session)
        self.refusal: Answer | None = None
        """The ERROR by which HELLO was refused; None if it was accepted."""
        if not self.session.is_live:
            welcome.addCallback(self._refuse)
        self.limiter = self.session.limiter
        """Its message limit, applied here, since a message that the core drops has no answer of its own."""
        self.session.limiter = None

    def check(self) -> None:
        """Checks that HELLO was accepted.

        Raises:
            RequestError: it was not.
        """
        if self.refusal is not None:
            raise RequestError(ErrorCode(self.refusal["code"]), self.refusal["error"])

    def ask(self, message: Message) -> Deferred[Answer]:
        """Sends a message and returns its answer."""
        answer: Deferred[Answer] = Deferred()
        if self.session.is_busy or self._later:
            self._later.append((message, answer))
            if len(self._later) == 1:
                self._relay.clock.call_later(0, lambda: self._go_on(0))
        else:
            self._ask(message, answer)
        return answer

    def _ask(self, message: Message, answer: Deferred[Answer]) -> None:
        self._outbox.waiting.append(answer)
        self._relay.accept(self.session, message, 1)

    def _go_on(self, turns: int) -> None:
        """Sends the waiting requests, up to the next message that is handled in pieces.

        Args:
            turns: how many turns they have waited; a message that takes many waits for other relays, so it is checked
                less often then.
        """
        while self._later and not self.session.is_busy:
            message, answer = self._later.popleft()
            if self.session.is_live:
                self._ask(message, answer)
            else:
                answer.callback({"code": int(ErrorCode.TOKEN_EXPIRED), "error": "the token ended"})
            turns = 0
        if self._later:
            self._relay.clock.call_later(
                0 if turns < FEW_TURNS else LOOKED_EVERY_S / 10, lambda: self._go_on(turns + 1)
            )

    def keep(self) -> None:
        """Sets the session to end after ``IDLE_S`` without requests."""
        self._cancel()
        self._timer = self._relay.clock.call_later(IDLE_S, self._end_idle)

    def end(self, cause: str) -> None:
        """Ends the session; requests that still wait get ERROR OVERLOADED, so that the client tries again."""
        self._cancel()
        self._relay.disconnect(self.session, cause)
        self._outbox.release()
        self._outbox.refuse(ErrorCode.OVERLOADED, cause)
        while self._later:
            _, answer = self._later.popleft()
            answer.callback({"code": int(ErrorCode.OVERLOADED), "error": cause})

    def _end_idle(self) -> None:
        self._timer = None
        if self._outbox.waiting or self._later:
            self.keep()
        else:
            self._ended()
            self.end("no request for a while")

    def _end_told(self) -> None:
        """Handles the end of the session by the core."""
        self._outbox.release()
        self._cancel()
        self._ended()

    def _cancel(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _refuse(self, answer: Answer) -> None:
        self.refusal = answer


class _List:
    """Collects the first params of a list.

    Args:
        limit: the most params.
        after: the address after which the list begins.
    """

    def __init__(self, limit: int, after: str) -> None:
        self._limit = min(limit, MAX_LIST_BYTES // ENTRY_BYTES)
        self._last = after
        self._params: list[Param] = []
        self._shown: list[Any] = []

    def add(self, params: list[Param]) -> None:
        """Adds params, in any order."""
        self._params += params
        if len(self._params) > 2 * self._limit + LOOKED_AT_ONCE:
            self._trim()

    def _trim(self) -> None:
        """Keeps one param more than the list may have, which tells that it goes on."""
        self._params.sort(key=_address_of)
        del self._params[self._limit + 1 :]

    def show(self) -> Pieces:
        """Makes the result of ``answer``, after all params were added."""
        self._trim()
        size_bytes = made_bytes = 0
        for param in self._params[: self._limit]:
            size_bytes += len(param.value) + ENTRY_BYTES
            if self._shown and size_bytes > MAX_LIST_BYTES:
                return
            self._shown.append(param_to_json(param))
            self._last = param.address
            if size_bytes - made_bytes > MADE_AT_ONCE_BYTES:
                made_bytes = size_bytes
                yield MADE_AT_ONCE_US

    def answer(self) -> Answer:
        """Returns the list."""
        return {"params": self._shown, "next": self._last if len(self._shown) < len(self._params) else None}


def _address_of(param: Param) -> str:
    return param.address


class ApiSessions:
    """The sessions of all HTTP clients.

    Args:
        relay: the core.
    """

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._clients: dict[bytes, _Client] = {}
        self._limiters: OrderedDict[str, Limiter] = OrderedDict()
        """The message limits of requests without a token, by the session's ``origin``."""

    @property
    def clients(self) -> int:
        """Number of tokens that have a session now."""
        return len(self._clients)

    def pay(self, token: str | None, address: str, cost: int) -> None:
        """Takes the cost of reading a request from the client's message limit, before it is read.

        Args:
            token: the presented token; None for none.
            address: the client's.
            cost: the cost in messages (``wire.cost``), besides that of ``ask``; 0 for a request that takes no time.

        Raises:
            RequestError: LIMIT, OVERLOADED, or the refusal of the token.
        """
        if not cost:
            return
        client = self._of(token, address) if token else self._anonymous(address)
        try:
            client.check()
            self._take(client, cost if client.limiter is None else client.limiter.reading_cost(cost))
        finally:
            if not token:
                client.end("the request was read")

    def ask(self, token: str | None, address: str, message: Message) -> Deferred[Answer]:
        """Sends a message for a client.

        Args:
            token: the presented token; None for none.
            address: the client's.
            message: GET, SET or BUNDLE.

        Returns:
            its answer, as ``wire.json_values`` writes it: ``code`` and ``error`` of an ERROR, or the fields of an ACK
                or a SNAPSHOT.

        Raises:
            RequestError: UNAUTHENTICATED for a scheduled bundle without a token if there are accounts; LIMIT,
                OVERLOADED.
        """
        client = self._anonymous(address) if not token else self._of(token, address)
        if client.refusal is not None:
            done: Deferred[Answer] = Deferred()
            done.callback(client.refusal)
            return done
        is_for_later = isinstance(message, Bundle) and (message.timestamp_us or 0) > self._relay.clock.now_us()
        try:
            self._check_admits()
            if is_for_later and client.session.identity.ends_with_session:
                text = "a bundle for later needs a token: it is applied only while its sender may still write"
                raise RequestError(ErrorCode.UNAUTHENTICATED, text)
            self._pay(client, message)
        except RequestError:
            if not token:
                client.end("the request was refused")
            raise
        if token and is_for_later:
            client.keep()
            client, token = _Client(self._relay, token, address, _nothing), None
        answer = client.ask(message)
        if token:
            client.keep()
        else:
            answer.addBoth(_after, lambda: client.end("the request was answered"))
        return answer

    def ask_as(self, identity: Identity, address: str, message: Message) -> Deferred[Answer]:
        """Sends a message with an identity that has no token, in a session of its own.

        Args:
            identity: the identity.
            address: the client's.
            message: SET or BUNDLE.

        Returns:
            its answer, as for ``ask``.
        """
        client = _Client(self._relay, "", address, _nothing, identity)
        return client.ask(message).addBoth(_after, lambda: client.end("the request was answered"))

    def find(self, token: str | None, address: str, pattern: Pattern, limit: int, after: str) -> Deferred[Answer]:
        """Lists the params of a pattern that a client may see, in the order of their addresses, in pieces.

        Args:
            token: the presented token; None for none.
            address: the client's.
            pattern: the pattern.
            limit: the most params; the list has fewer if they take more than ``MAX_LIST_BYTES``.
            after: only addresses after this one.

        Returns:
            ``params``, and ``next``: the address after which the list goes on, None at its end. It fails with a
            RequestError: SCOPE, LIMIT, OVERLOADED.
        """
        client = self._anonymous(address) if not token else self._of(token, address)
        done: Deferred[Answer] = Deferred()
        if client.refusal is not None:
            done.callback(client.refusal)
            return done
        try:
            self._check_admits()
            self._pay(client, Query(pattern.text))
            self._relay.permissions.check_subscribe(client.session.identity, pattern)
        except RequestError:
            if not token:
                client.end("refused")
            raise
        if token:
            client.keep()
        else:
            done.addBoth(_after, lambda: client.end("the request was answered"))
        self._relay.work.add(client.session, self._list(client.session, pattern, _List(limit, after), after, done))
        return done

    def admit_admin(self, token: str | None, address: str) -> None:
        """Admits a request of an administrator, within the message limit of its token.

        Args:
            token: the presented token; None for none.
            address: the client's.

        Raises:
            RequestError: UNAUTHENTICATED or TOKEN_EXPIRED without a valid token, SCOPE if it is no administrator's,
                LIMIT, OVERLOADED.
        """
        if not token:
            raise RequestError(ErrorCode.UNAUTHENTICATED, "an administrator's token is needed")
        client = self._of(token, address)
        client.check()
        self._pay(client, Get("/"))
        client.keep()
        reads = Reads()
        if not self._relay.permissions.sees_all(client.session.identity, "/", reads) or reads.reads_address:
            raise RequestError(ErrorCode.SCOPE, "this is for administrators")

    def _list(self, session: Session, pattern: Pattern, found: _List, after: str, done: Deferred[Answer]) -> Pieces:
        """Adds the params that a session may see to a list, and answers with the list."""
        try:
            for shown in self._shown(session, pattern, after):
                found.add(shown)
                yield LOOKED_AT_ONCE * LOOK_US
                if not session.is_live:
                    done.callback({"code": int(ErrorCode.TOKEN_EXPIRED), "error": "the token ended"})
                    return
            yield from found.show()
        except Exception:
            done.errback()
            return
        done.callback(found.answer())

    def _shown(self, session: Session, pattern: Pattern, after: str) -> Iterator[list[Param]]:
        """Yields for each piece of work the params in it that a session may see."""
        params = self._relay.params
        found = params.find(pattern)
        captured = params.all() if found is None else found
        for start in range(0, len(captured), LOOKED_AT_ONCE):
            some = captured[start : start + LOOKED_AT_ONCE]
            matching = [
                param
                for param in some
                if param.address > after
                and (found is not None or pattern.matches(param.address))
                and params.get(param.address) is param
            ]
            yield self._relay.visibility.show(matching, session, pattern)

    def close(self) -> None:
        """Ends all sessions."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            client.end("the relay is stopping")

    def _of(self, token: str, address: str) -> _Client:
        digest = digest_of(token)
        client = self._clients.get(digest)
        if client is not None:
            return client
        if len(self._clients) >= MAX_HTTP_SESSIONS:
            raise RequestError(ErrorCode.OVERLOADED, "too many clients use the HTTP API; try again in a minute")
        client = _Client(self._relay, token, address, lambda: self._forget(digest), is_single=False)
        if client.refusal is None:
            self._clients[digest] = client
        return client

    def _anonymous(self, address: str) -> _Client:
        client = _Client(self._relay, "", address, _nothing)
        if client.limiter is not None:
            origin = client.session.origin
            client.limiter = self._limiters.setdefault(origin, client.limiter)
            self._limiters.move_to_end(origin)
            if len(self._limiters) > MAX_HTTP_SESSIONS:
                self._limiters.popitem(last=False)
        return client

    def _forget(self, digest: bytes) -> None:
        self._clients.pop(digest, None)

    def _check_admits(self) -> None:
        """Refuses requests while the relay admits no clients, also those that have a session.

        Raises:
            RequestError: OVERLOADED.
        """
        refuses = self._relay.refuses
        if refuses is not None:
            raise RequestError(refuses.code or ErrorCode.OVERLOADED, refuses.reason)

    def _pay(self, client: _Client, message: Message) -> None:
        self._take(client, message_cost(message))

    def _take(self, client: _Client, cost: int) -> None:
        if client.limiter is None or client.limiter.take(cost, self._relay.clock.now_us()):
            return
        self._relay.counts.limited += 1
        self._relay.observer.limited(client.session)
        if cost > client.limiter.burst:
            text = (
                f"the request counts as {cost} messages, at most {client.limiter.burst} pass at once: send smaller ones"
            )
            raise RequestError(ErrorCode.LIMIT, text)
        raise RequestError(ErrorCode.LIMIT, "too many messages; try again in a second")


def _after(answer: Answer, then: Callable[[], None]) -> Answer:
    then()
    return answer


def wait_until(clock: Clock, condition: Callable[[], bool]) -> Deferred[None]:
    """Waits until a condition holds, such as after a message of another relay, for at most a second."""
    done: Deferred[None] = Deferred()
    clock.call_later(LOOKED_EVERY_S, partial(_look, clock, condition, done, LOOKS))
    return done


def _look(clock: Clock, condition: Callable[[], bool], done: Deferred[None], times: int) -> None:
    """Checks a condition; not a function within ``wait_until``, which would refer to itself: a reference cycle."""
    if times <= 0 or condition():
        done.callback(None)
    else:
        clock.call_later(LOOKED_EVERY_S, partial(_look, clock, condition, done, times - 1))


def _nothing() -> None:
    """Does nothing."""
