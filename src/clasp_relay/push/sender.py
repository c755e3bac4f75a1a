"""Sends messages to push services: a few at once, from a bounded queue, without delaying anything else."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from hashlib import sha256
from typing import Any, NamedTuple, TypeAlias

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.iweb import IAgent

from clasp_relay.access.refusals import Busy
from clasp_relay.access.threads import Workers
from clasp_relay.errors import cause_text
from clasp_relay.logs import events
from clasp_relay.push.destinations import ForbiddenPlaceError, place_of
from clasp_relay.push.encryption import Vapid, encrypt
from clasp_relay.storage.push_subscriptions import Subscription

__all__ = ["Notice", "Sender"]

AT_ONCE = 8
"""Maximum number of concurrent requests."""

AT_ONCE_PER_LANE = 2
"""Maximum number of them for one lane, since its push services may be slow on purpose. A lane is an account, or all
guests of one client address, because a client can create as many guests as it likes."""

MAX_WAITING = 2_000
MAX_WAITING_PER_SUBJECT = 50
"""Maximum number of queued messages, in all and for one subject; further ones are dropped. When the queue is full, the
newest message of the subject with the most, in the lane with the most, is dropped instead: so slow push services of
some people do not keep others from being told."""

MAX_ROOM_MADE = 10
"""Only a subject with fewer queued messages than this displaces others' when the queue is full: one for each
browser."""

FIRST_REST_S = 10.0
LONGEST_REST_S = 600.0
"""The first and the longest pause after a host could not be reached, in seconds."""

REQUEST_S = 15
"""Deadline of one request, in seconds."""

TOLD_EVERY_S = 60
"""Minimum interval between two log lines about one push service that fails, in seconds."""

Lane: TypeAlias = Hashable

_MAX_TOLD = 1_000
_GONE = (404, 410)


class Notice(NamedTuple):
    """A notice to a browser: the room and the kind of event, never the text of a message."""

    room: str
    kind: str
    """``dm``, ``mention`` or ``call``."""
    ttl_s: int
    """How long it is useful, in seconds: the push service drops it then (RFC 8030 §5.2)."""

    @property
    def payload(self) -> bytes:
        """The JSON that the chat's service worker reads."""
        return json.dumps({"room": self.room, "kind": self.kind}, ensure_ascii=False).encode()

    @property
    def topic(self) -> str:
        """The topic: at the push service a message replaces a waiting one with the same topic (RFC 8030 §5.4)."""
        return urlsafe_b64encode(sha256(self.room.encode()).digest()[:24]).decode()


_Item: TypeAlias = tuple[Subscription, Notice]


class _Queue(deque[_Item]):
    """The waiting messages of one subject."""


class Sender:
    """Sends notices to browsers.

    Args:
        reactor: for its clock.
        agent: makes the requests.
        vapid: signs the requests.
        workers: a thread for encryption, which is slow.
        gone: called with subscriptions that have ended.
        lane_of: returns the lane of a browser.
    """

    def __init__(
        self,
        reactor: Any,
        agent: IAgent,
        vapid: Vapid,
        workers: Workers,
        gone: Callable[[Subscription], None],
        lane_of: Callable[[Subscription], Lane],
    ) -> None:
        self._reactor = reactor
        self._agent = agent
        self.vapid = vapid
        """Signs the requests."""
        self._workers = workers
        self._gone = gone
        self._lane_of = lane_of
        self._waiting: dict[Lane, dict[str, _Queue]] = {}
        """By lane and subject, the next ones to be served first; none is empty."""
        self._in_lane: Counter[Lane] = Counter()
        """Number of waiting messages of each lane."""
        self._queued = 0
        """Number of waiting messages in all."""
        self._running: dict[Deferred[None], Lane] = {}
        self._rests: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """For each host that could not be reached, when its pause ends and how long it is, in seconds."""
        self._told_s: dict[str, float] = {}
        self._is_open = True
        self.outcomes: Counter[str] = Counter()
        """Number of messages since the start, by outcome."""

    @property
    def waiting(self) -> int:
        """Number of messages that are queued or being sent."""
        return self._queued + len(self._running)

    def send(self, subscription: Subscription, notice: Notice) -> None:
        """Queues a notice; drops it if the queue is full, or the push service cannot be reached."""
        lane, subject = self._lane_of(subscription), subscription.subject
        count = len(self._waiting.get(lane, {}).get(subject, ()))
        is_full = count >= MAX_WAITING_PER_SUBJECT
        if not self._is_open or is_full or self._rests_now(subscription) or not self._has_room(lane, count):
            self.outcomes["left_out"] += 1
            return
        self._waiting.setdefault(lane, {}).setdefault(subject, _Queue()).append((subscription, notice))
        self._count(lane, 1)
        self._start()

    def _has_room(self, lane: Lane, count: int) -> bool:
        """Tells whether another message fits into the queue; drops one of others where that makes room.

        Args:
            lane: the lane of the message.
            count: how many messages to its subject are queued.
        """
        if self._queued < MAX_WAITING:
            return True
        if count >= MAX_ROOM_MADE:
            return False
        most = max(self._in_lane, key=self._in_lane.__getitem__)
        if self._in_lane[most] <= self._in_lane[lane] + 1:
            most = lane
        subjects = self._waiting.get(most, {})
        longest = max(subjects, key=lambda subject: len(subjects[subject]), default="")
        if most == lane and (not longest or len(subjects[longest]) <= count + 1):
            return False
        self._take(most, longest, _Queue.pop)
        self.outcomes["left_out"] += 1
        return True

    def _take(self, lane: Lane, subject: str, which: Callable[[_Queue], _Item]) -> _Item:
        """Removes a queued message and returns it; its lane and subject are then served last."""
        subjects = self._waiting.pop(lane)
        queue = subjects.pop(subject)
        taken = which(queue)
        if queue:
            subjects[subject] = queue
        if subjects:
            self._waiting[lane] = subjects
        self._count(lane, -1)
        return taken

    def _count(self, lane: Lane, by: int) -> None:
        self._queued += by
        self._in_lane[lane] += by
        if not self._in_lane[lane]:
            del self._in_lane[lane]

    def close(self) -> None:
        """Cancels the current requests, and sends nothing more."""
        self._is_open = False
        self._waiting.clear()
        self._in_lane.clear()
        self._queued = 0
        for request in list(self._running):
            request.cancel()

    def _start(self) -> None:
        """Starts requests, round robin over lanes and over a lane's subjects, as many as may run at once."""
        if len(self._running) >= AT_ONCE:
            return
        for lane in list(self._waiting):
            if len(self._running) >= AT_ONCE:
                return
            if sum(each == lane for each in self._running.values()) >= AT_ONCE_PER_LANE:
                continue
            subscription, notice = self._take(lane, next(iter(self._waiting[lane])), _Queue.popleft)
            request = Deferred.fromCoroutine(self._send(subscription, notice))
            self._running[request] = lane
            request.addTimeout(REQUEST_S, self._reactor)
            request.addErrback(_tell_fault)
            request.addBoth(self._ended, request)

    def _ended(self, _result: object, request: Deferred[None]) -> None:
        self._running.pop(request, None)
        if self._waiting and self._is_open:
            # In a later turn, since requests that end at once would recurse as deep as the queue is long.
            self._reactor.callLater(0, self._start)

    def _rests_now(self, subscription: Subscription) -> bool:
        until_s, _ = self._rests.get(place_of(subscription.endpoint).host, (0.0, 0.0))
        return bool(self._reactor.seconds() < until_s)

    def _rest(self, host: str) -> None:
        """Pauses sending to a host that could not be reached, longer after each failure."""
        _, last_s = self._rests.pop(host, (0.0, FIRST_REST_S / 2))
        rest_s = min(2 * last_s, LONGEST_REST_S)
        self._rests[host] = self._reactor.seconds() + rest_s, rest_s
        if len(self._rests) > _MAX_TOLD:
            self._rests.popitem(last=False)

    async def _send(self, subscription: Subscription, notice: Notice) -> None:
        until_s = self._reactor.seconds() + REQUEST_S
        try:
            status = await self._post(subscription, notice)
        except ForbiddenPlaceError as error:
            self._failed(subscription, "forbidden", str(error))
        except Busy:
            self.outcomes["left_out"] += 1
        except (Exception, CancelledError) as error:
            cause = cause_text(error) if isinstance(error, OSError) else type(error).__name__
            is_late = self._reactor.seconds() >= until_s
            if self._is_open:  # else it was ended
                self._failed(subscription, "unreachable", f"no answer within {REQUEST_S} s" if is_late else cause)
        else:
            self._rests.pop(place_of(subscription.endpoint).host, None)
            if status in _GONE:
                self.outcomes["gone"] += 1
                self._gone(subscription)
            elif 200 <= status < 300:
                self.outcomes["sent"] += 1
            else:
                self._failed(subscription, "refused", f"status {status}")

    async def _post(self, subscription: Subscription, notice: Notice) -> int:
        """Posts one message; returns the status of the answer."""
        origin = place_of(subscription.endpoint).origin
        proof, body = await self._workers.run(
            "",
            _always,
            lambda: (
                self.vapid.authorization(origin),
                encrypt(notice.payload, subscription.p256dh, subscription.auth),
            ),
        )
        headers: dict[str | bytes, str | bytes] = {
            "Authorization": proof,
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(notice.ttl_s),
            "Topic": notice.topic,
            "Urgency": "high",
        }
        # One client for each request, since a client keeps cookies.
        client = HTTPClient(self._agent)
        response = await client.post(subscription.endpoint, data=body, headers=headers, allow_redirects=False)
        await response.content()
        return int(response.code)

    def _failed(self, subscription: Subscription, outcome: str, cause: str) -> None:
        self.outcomes[outcome] += 1
        host = place_of(subscription.endpoint).host
        if outcome != "refused":
            self._rest(host)
        now_s = self._reactor.seconds()
        if now_s - self._told_s.get(host, -TOLD_EVERY_S) < TOLD_EVERY_S:
            return
        if len(self._told_s) >= _MAX_TOLD:
            self._told_s.clear()
        self._told_s[host] = now_s
        events.PUSH_FAILED.log(host=host, cause=cause)


def _tell_fault(failure: Failure) -> None:
    events.PUSH_FAULT.failure(failure)


def _always() -> None:
    """Does nothing."""
