"""The stream of JetStream that is the log of a cluster: how it is found or made, checked, and read.

It has one subject. Its server decides which append comes first: an append names the last message that it is to follow,
and is refused if that is not the last one.
"""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable
from typing import Any

from nats.errors import Error as NatsError

from clasp_relay.cluster.exchange.ports import Bounds
from clasp_relay.cluster.nats.jetstream import CUT_OFF, NO_MESSAGE, NO_REPLICAS, NO_STREAM, error_code
from clasp_relay.cluster.nats.nats_client import RETRY_S, NatsClient, Unusable
from clasp_relay.errors import cause_text

__all__ = ["NO_ANSWER", "LogStream"]

MAX_LOG_BYTES = (1 << 30, 1 << 26)
"""Size limit of the stream: the first of these for which the servers have space."""

NO_ROOM = 10047
NOT_ENABLED = (10039, 10076)
"""JetStream is not enabled: for the account, or at all."""

NO_ANSWER = (NatsError, TimeoutError, OSError, ValueError)
"""What requests about the log raise where there is no answer, or one that cannot be used."""


class LogStream:
    """See the module.

    Args:
        name: the name of the cluster, which is the stream's.
        places: the servers, for people.
        request: makes a request; takes its subject and payload, returns the answer.
    """

    def __init__(self, name: str, places: str, request: Callable[[str, bytes], Awaitable[dict[str, Any]]]) -> None:
        self.subject = f"{name}.log"
        self.info = f"$JS.API.STREAM.INFO.{name}"
        """The subject of a request for what the stream is and has."""
        self.silent_since_s: float | None = None
        """Since when requests about the log were not answered; None if the last one was."""
        self.is_finding = False
        """Whether the stream is being looked for."""
        self._name = name
        self._places = places
        self._request = request

    def note_answer(self, *, is_there: bool) -> None:
        """Notes whether a request about the log was answered by a server that reaches it."""
        if is_there:
            self.silent_since_s = None
        elif self.silent_since_s is None:
            self.silent_since_s = time.monotonic()

    async def answers(self) -> bool:
        """Tells whether the connected server answers requests about the log by now."""
        try:
            return error_code(await self._ask(self.info)) not in CUT_OFF
        except NO_ANSWER:
            return False

    async def bounds(self) -> Bounds:
        """Returns the bounds of the log.

        Raises:
            NO_ANSWER, KeyError: there is no answer, or one that cannot be used.
        """
        state = _checked(await self._ask(self.info))["state"]
        return Bounds(state["first_seq"], state["last_seq"])

    async def message(self, seq: int) -> bytes | None:
        """Returns a message of the log; None if it has none with that number.

        The leader of the stream is asked, which has all messages.

        Raises:
            NO_ANSWER, KeyError: there is no answer, or one that cannot be used.
        """
        answer = await self._ask(f"$JS.API.STREAM.MSG.GET.{self._name}", b'{"seq":%d}' % seq)
        if error_code(answer) == NO_MESSAGE:
            return None
        return b64decode(_checked(answer)["message"].get("data", ""))

    async def find(self, client: NatsClient, failed: Callable[[str], None]) -> None:
        """Finds the stream, or makes it, and checks that it is the log of a cluster; repeats failed attempts.

        Args:
            client: the connection.
            failed: called with the cause of each failed attempt.

        Raises:
            Unusable: it is another stream, or there is no JetStream.
        """
        replicas = client.replicas
        rooms = list(MAX_LOG_BYTES)
        self.is_finding = True
        while True:
            try:
                answer = await self._ask(self.info)
                if error_code(answer) == NO_STREAM:
                    body = json.dumps(self._config(replicas, rooms[0])).encode()
                    answer = await self._ask(f"$JS.API.STREAM.CREATE.{self._name}", body)
            except NO_ANSWER as error:
                # There is no answer without JetStream, nor while the servers elect a leader.
                failed(cause_text(error))
                if client.is_connected and not client.has_jetstream:
                    raise Unusable(f"{self._places}: JetStream is off: start nats-server with -js") from None
                await asyncio.sleep(RETRY_S)
                continue
            code = error_code(answer)
            if code is None:
                self._check(answer["config"])
                self.is_finding = False
                return
            if code in NOT_ENABLED:
                raise Unusable(f"{self._places}: JetStream is off, or not for this account")
            if code == NO_REPLICAS:
                replicas = 1
            elif code == NO_ROOM and len(rooms) > 1:
                del rooms[0]
            else:
                failed(_error_text(answer))
                await asyncio.sleep(RETRY_S)

    def _config(self, replicas: int, max_bytes: int) -> dict[str, object]:
        return {
            "name": self._name,
            "description": "the log of a cluster of clasp-relay",
            "subjects": [self.subject],
            "retention": "limits",
            "storage": "file",
            "discard": "old",
            "max_bytes": max_bytes,
            "max_msgs": -1,
            "max_consumers": -1,
            "num_replicas": replicas,
        }

    def _check(self, config: dict[str, Any]) -> None:
        if config.get("subjects") != [self.subject] or config.get("retention") != "limits":
            raise Unusable(
                f"{self._places}: there is a stream {self._name} that is not the log of a cluster; "
                "give the cluster another name with --cluster-name"
            )

    async def _ask(self, subject: str, body: bytes = b"") -> dict[str, Any]:
        """Makes a request about the log, and notes whether it was answered."""
        try:
            found = await self._request(subject, body)
        except (NatsError, TimeoutError):
            self.note_answer(is_there=False)
            raise
        self.note_answer(is_there=error_code(found) not in CUT_OFF)
        return found


def _error_text(answer: dict[str, Any]) -> str:
    return str(answer["error"].get("description", error_code(answer)))


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    """Returns an answer that is no error.

    Raises:
        ValueError: it is one.
    """
    if "error" in answer:
        raise ValueError(str(answer["error"]))
    return answer
