"""The object store of a cluster: the bytes of files, in a bucket of JetStream of the cluster's name.

An object has the format of NATS's object stores (ADR-20): pieces of 128 KiB under one subject, and after them a message
with their number and digest. One piece of an object is on its way at a time, so that messages between relays do not
wait for files, and no file is in memory.
"""

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Any, NoReturn, Protocol
from uuid import uuid4

from twisted.internet.defer import Deferred

from clasp_relay.cluster.accounts.account_asking import NOT_DONE
from clasp_relay.cluster.nats.jetstream import CUT_OFF, NO_MESSAGE, NO_REPLICAS, NO_STREAM, WRONG_SEQUENCE, error_code
from clasp_relay.logs import events

__all__ = ["ObjectStore", "Requests"]

PIECE_BYTES = 128 * 1024

WAITS_S = 5.0
"""For how long a request is repeated that the engine does not answer."""

AGAIN_S = 0.2

LEAST_BYTES = 64 * 1024 * 1024
"""The smallest bucket that is made."""

IN_USE = 10058
NO_PEERS = 10005
NOT_NOW = (*CUT_OFF, 10158)
"""The servers do not reach each other, or a piece with this id is on its way: treated like no answer."""
NO_ROOM = (10002, 10023, 10047, 10077, 10122)
"""The server, the account or the bucket has no space for more."""

FULL = "The cluster has no room for more files. Try again later, or tell its operator."


class Requests(Protocol):
    """Requests to the engine; implemented by ``engine.NatsEngine``."""

    @property
    def replicas(self) -> int:
        """How many servers are to keep a stream."""

    def request(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None,
        done: Callable[[dict[str, Any] | None], None],
    ) -> None:
        """Makes a request, and calls with the answer; with None if there is none."""


class ObjectStore:
    """See the module. Implements ``access.shared_files.Objects``.

    Args:
        name: the name of the cluster.
        max_bytes: size limit of the bucket.
        engine: the engine.
        monotonic_s: returns seconds.
        call_later: the event loop's.
        busy: makes the exception of a call that the engine does not answer, from a sentence.
        full: makes the exception of a call for which the engine has no space, likewise.
    """

    def __init__(
        self,
        name: str,
        max_bytes: int,
        engine: Callable[[], Requests],
        monotonic_s: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        busy: Callable[[str], Exception],
        full: Callable[[str], Exception],
    ) -> None:
        self._bucket = name
        self._stream = f"OBJ_{name}"
        self._max_bytes = max_bytes
        self._engine = engine
        self._monotonic_s = monotonic_s
        self._call_later = call_later
        self._busy = busy
        self._full = full
        self._has_bucket = self._is_over = False
        self._waiting: set[Deferred[dict[str, Any] | None]] = set()
        """Deferreds that wait for an answer, or for the next attempt."""

    def stop(self) -> None:
        """Fails all calls under way, and later ones: the engine is about to end."""
        self._is_over = True
        for each in list(self._waiting):
            each.callback(None)

    # ``Objects``

    async def put(self, file_id: str, size_bytes: int, read: Callable[[int, int], Awaitable[bytes]]) -> bool:
        """Stores a complete object; returns False if there are pieces of it already, perhaps from another relay.

        Each piece names the one that it follows, so that pieces of two relays are never mixed.
        """
        await self._find_bucket()
        digest, attempt = sha256(), uuid4().hex
        count = first_seq = seq = 0
        for start in range(0, size_bytes, PIECE_BYTES):
            data = await read(start, min(PIECE_BYTES, size_bytes - start))
            if len(data) != min(PIECE_BYTES, size_bytes - start):
                raise OSError(f"{file_id} is shorter than its record says")
            digest.update(data)
            found = await self._append_piece(self._pieces(file_id), data, f"{attempt}.{count}", seq)
            if found is None:
                return False
            seq = found
            first_seq = first_seq or seq
            count += 1
        about = {
            "name": file_id,
            "bucket": self._bucket,
            "nuid": file_id,
            "size": size_bytes,
            "chunks": count,
            "digest": f"SHA-256={urlsafe_b64encode(digest.digest()).decode()}",
            "options": {"max_chunk_size": PIECE_BYTES},
            "metadata": {"first_seq": str(first_seq)},
        }
        self._seq(await self._ask(self._about(file_id), json.dumps(about).encode(), {"Nats-Rollup": "sub"}))
        return True

    async def get(self, file_id: str, write: Callable[[bytes], Awaitable[None]]) -> bool:
        """Writes the bytes of an object in order; returns whether they are complete and have the stored digest."""
        found = await self._message({"last_by_subj": self._about(file_id)})
        if found is None:
            return False
        try:
            about = json.loads(found[1])
            left_bytes, expected = int(about["size"]), str(about["digest"])
            seq = int(about["metadata"]["first_seq"])
        except (ValueError, KeyError, TypeError):
            return False
        digest = sha256()
        while left_bytes > 0:
            piece = await self._message({"seq": seq, "next_by_subj": self._pieces(file_id)})
            if piece is None or len(piece[1]) > left_bytes:
                return False
            seq = piece[0] + 1
            left_bytes -= len(piece[1])
            digest.update(piece[1])
            await write(piece[1])
        return expected == f"SHA-256={urlsafe_b64encode(digest.digest()).decode()}"

    async def remove(self, file_id: str) -> None:
        """Removes an object, or the pieces that there are; first the message that says that it is complete."""
        for subject in (self._about(file_id), self._pieces(file_id)):
            answer = await self._ask(f"$JS.API.STREAM.PURGE.{self._stream}", json.dumps({"filter": subject}).encode())
            if error_code(answer) not in (None, NO_STREAM):
                self._fail(answer)

    def pieces(self, size_bytes: int) -> int:
        """Returns the number of pieces of an object of some size."""
        return -(-size_bytes // PIECE_BYTES)

    async def names(self, file_id: str | None = None) -> dict[str, int | None]:
        """Returns the number of pieces of each object by its name; None if the message after the pieces is missing."""
        pieces: Counter[str] = Counter()
        ends: set[str] = set()
        filters = [f"$O.{self._bucket}.>"] if file_id is None else [self._about(file_id), self._pieces(file_id)]
        for each in filters:
            for subject, count in (await self._subjects(each)).items():
                _, _, kind, token = subject.split(".", 3)
                if kind == "C":
                    pieces[token] += count
                elif (name := _name_of(token)) is not None:
                    ends.add(name)
        return {name: pieces[name] if name in ends else None for name in pieces.keys() | ends}

    async def _subjects(self, which: str) -> dict[str, int]:
        """Returns the number of messages of each subject that matches a filter."""
        found: dict[str, int] = {}
        offset, total = 0, 1
        while offset < total:
            body = json.dumps({"subjects_filter": which, "offset": offset}).encode()
            answer = await self._ask(f"$JS.API.STREAM.INFO.{self._stream}", body)
            if error_code(answer) == NO_STREAM:
                return {}
            if error_code(answer) is not None:
                self._fail(answer)
            subjects = answer["state"].get("subjects") or {}
            found |= subjects
            offset += len(subjects) or total
            total = int(answer.get("total", 0))
        return found

    # The bucket

    async def _find_bucket(self) -> None:
        """Makes the bucket if it is missing, as large as the servers have space for; enlarges it if it is too small.

        Raises:
            Exception: one of ``busy`` or ``full``.
        """
        if self._has_bucket:
            return
        answer = await self._ask(f"$JS.API.STREAM.INFO.{self._stream}", b"")
        if error_code(answer) == NO_STREAM:
            await self._make_bucket("CREATE", self._config(), 0)
        elif error_code(answer) is not None:
            self._fail(answer)
        elif 0 < int(answer["config"].get("max_bytes", -1)) < self._max_bytes:
            before_bytes = answer["config"]["max_bytes"]
            await self._make_bucket("UPDATE", answer["config"] | {"max_bytes": self._max_bytes}, before_bytes)
        self._has_bucket = True

    async def _make_bucket(self, verb: str, config: dict[str, Any], before_bytes: int) -> None:
        while True:
            answer = await self._ask(f"$JS.API.STREAM.{verb}.{self._stream}", json.dumps(config).encode())
            code = error_code(answer)
            if code is None:
                if config["max_bytes"] < self._max_bytes:
                    events.FILES_ROOM_SMALL.log(bytes=config["max_bytes"], wanted=self._max_bytes)
                return
            if code == IN_USE and verb == "CREATE":
                return  # another relay was faster
            if code == NO_REPLICAS and config["num_replicas"] > 1:
                config["num_replicas"] = 1
            elif _lacks_room(answer) and verb == "UPDATE":
                events.FILES_ROOM_SMALL.log(bytes=before_bytes, wanted=self._max_bytes)
                return
            elif _lacks_room(answer) and config["max_bytes"] // 2 >= LEAST_BYTES:
                config["max_bytes"] //= 2
            else:
                self._fail(answer)

    def _config(self) -> dict[str, Any]:
        return {
            "name": self._stream,
            "description": "files that users of a cluster of clasp-relay have sent",
            "subjects": [f"$O.{self._bucket}.C.>", f"$O.{self._bucket}.M.>"],
            "retention": "limits",
            "storage": "file",
            # A full bucket refuses, so that nothing acknowledged is removed. The cluster's log has a limit of its own.
            "discard": "new",
            "max_bytes": self._max_bytes,
            "max_msgs": -1,
            "max_consumers": -1,
            "num_replicas": self._engine().replicas,
            "allow_rollup_hdrs": True,
            "allow_direct": True,
        }

    def _pieces(self, file_id: str) -> str:
        return f"$O.{self._bucket}.C.{file_id}"

    def _about(self, file_id: str) -> str:
        return f"$O.{self._bucket}.M.{urlsafe_b64encode(file_id.encode()).decode()}"

    # Requests

    async def _append_piece(self, subject: str, data: bytes, piece_id: str, previous_seq: int) -> int | None:
        """Appends a piece after another one, and returns its number; None if another message follows that one."""
        headers = {"Nats-Msg-Id": piece_id, "Nats-Expected-Last-Subject-Sequence": str(previous_seq)}
        answer = await self._ask(subject, data, headers)
        if error_code(answer) != WRONG_SEQUENCE:
            return self._seq(answer)
        # It may be this piece, which was sent twice, since the answer was late.
        answer = await self._get({"last_by_subj": subject})
        if error_code(answer) in (NO_MESSAGE, NO_STREAM):
            return None
        self._check(answer)
        message = answer["message"]
        return int(message["seq"]) if piece_id.encode() in b64decode(message.get("hdrs", "")) else None

    def _seq(self, answer: Mapping[str, Any]) -> int:
        """Returns the number of an appended message."""
        self._check(answer)
        return int(answer["seq"])

    async def _message(self, which: dict[str, object]) -> tuple[int, bytes] | None:
        """Returns number and bytes of a message, from the leader, which has all; None if there is none."""
        answer = await self._get(which)
        if error_code(answer) in (NO_MESSAGE, NO_STREAM):
            return None
        self._check(answer)
        message = answer["message"]
        return int(message["seq"]), b64decode(message.get("data", ""))

    async def _get(self, which: dict[str, object]) -> dict[str, Any]:
        return await self._ask(f"$JS.API.STREAM.MSG.GET.{self._stream}", json.dumps(which).encode())

    async def _ask(self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Makes a request until it is answered, or for a few seconds.

        Raises:
            Exception: the one of ``busy``, if it is not answered.
        """
        end_s = self._monotonic_s() + WAITS_S
        while not self._is_over:
            answer = await self._until(lambda done: self._engine().request(subject, payload, headers, done))
            if answer is not None and error_code(answer) not in NOT_NOW:
                return answer
            if self._monotonic_s() >= end_s:
                break
            await self._until(lambda done: self._call_later(AGAIN_S, lambda: done(None)))
        self._has_bucket = False  # somebody may have removed it
        raise self._busy(NOT_DONE)

    async def _until(self, begin: Callable[[Callable[[dict[str, Any] | None], None]], object]) -> dict[str, Any] | None:
        """Calls ``begin``, and returns the answer that it calls back with; None if the store stops before."""
        done: Deferred[dict[str, Any] | None] = Deferred()

        def end(answer: dict[str, Any] | None) -> None:
            if not done.called:
                done.callback(answer)

        if not self._is_over:
            self._waiting.add(done)
            begin(end)
            try:
                return await done
            finally:
                self._waiting.discard(done)
        return None

    def _check(self, answer: Mapping[str, Any]) -> None:
        if error_code(answer) is not None:
            self._fail(answer)

    def _fail(self, answer: Mapping[str, Any]) -> NoReturn:
        self._has_bucket = False
        text = str(answer["error"].get("description", answer["error"]))
        if _lacks_room(answer):
            events.FILES_NO_ROOM.log(cause=text)
            raise self._full(FULL)
        events.FILES_REFUSED.log(cause=text)
        raise self._busy(NOT_DONE)


def _lacks_room(answer: Mapping[str, Any]) -> bool:
    code = error_code(answer)
    return code in NO_ROOM or (code == NO_PEERS and "storage" in str(answer["error"].get("description")))


def _name_of(token: str) -> str | None:
    """Returns the name of an object from the last token of a subject; None if it is no name."""
    try:
        return urlsafe_b64decode(token).decode()
    except ValueError:
        return None
