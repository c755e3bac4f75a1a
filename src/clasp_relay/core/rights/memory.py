"""The cache of decisions: answers to pure questions, each kept until something that was read for it changes.

*May this subject write here? Does this reader see this? Who gets this?* The code that answers such a question notes in
a :class:`Reads` everything that it reads beyond what the question names: what is set at other addresses, the clock, the
address itself, the value, other answers. So an answer's key and its end follow from what was actually read, not from
an analysis of the rule:

- An answer that read the value in question is not kept: another value may have another answer.
- An answer that read the address is kept for that address only, any other one for all addresses that the question
  names alike (all messages of a room, say).
- An answer ends with a change at an address that was read, at the end of a grace that was read, when an answer that was
  read ends, and when a route whose subscriptions were read ends.

Tens of thousands of answers may depend on one address, such as the settings of a large room. A change there marks all
of them as ended in one step, which takes about 0.1 µs each. Removing an answer from the tables takes ten times as long,
so only some are removed in the same step, and the others while later answers are added.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from clasp_relay.wire.address import MAX_SEGMENTS, Pattern

A = TypeVar("A")

MAX_KEY_CHARACTERS = 512
"""Questions with longer texts are not cached, to bound the memory of one entry."""

POOL_BYTES = 512 * 1024
"""Estimated bytes that are cached for one subject; beyond it the least recently used answer is removed."""

SHARED_POOL_BYTES = 32 * 1024 * 1024
"""Estimated bytes that are cached of answers that belong to no single subject."""

ANSWER_BYTES = 400
"""Memory of an answer in bytes, without its texts and its reads: the object, its key, its entries in tables."""

READ_BYTES = 150
"""Memory in bytes of each read of an answer, without its text: an entry in two tables."""

FORGOTTEN_AT_ONCE = 200
"""Table entries of ended answers that one change removes: about 0.2 ms."""

FORGOTTEN_WITH_ONE = 10
"""Table entries of ended answers that each new answer removes. An answer has two or three, so ended ones never pile
up."""


class Reads:
    """What was read for an answer, beyond what its question names. Most messages need one, so it is small."""

    __slots__ = ("answers", "lookups", "patterns", "reads_address", "reads_value", "things", "until_us")

    def __init__(self) -> None:
        self.reads_address = False
        """Whether the address in question was read, beyond what the rule captures of it."""
        self.reads_value = False
        """Whether the value in question was read."""
        self.lookups: dict[str, bool] = {}
        """Addresses that were looked up. True: any change there may change the answer. False: the answer depends only
        on whether something is set there."""
        self.patterns: tuple[Pattern, ...] = ()
        """Patterns: any change at a matching address may change the answer."""
        self.until_us: int | None = None
        """Unix µs at which the answer may change by itself; None if it cannot."""
        self.answers: list[Answer[Any]] = []
        """Other cached answers that it depends on."""
        self.things: tuple[Hashable, ...] = ()
        """Other objects that it depends on; the code that alters one calls ``Memory.outdated``."""

    def rest_on(self, answer: Answer[Any]) -> None:
        """Notes that a cached answer was used."""
        self.answers.append(answer)
        self.reads_address |= answer.is_about_address

    def ends_at(self, when_us: int) -> None:
        """Notes that the answer is valid until this time at most."""
        if self.until_us is None or when_us < self.until_us:
            self.until_us = when_us

    def add(self, other: Reads) -> None:
        """Adds all that was read for another answer."""
        self.reads_address |= other.reads_address
        self.reads_value |= other.reads_value
        for address, by_value in other.lookups.items():
            self.lookups[address] = by_value or self.lookups.get(address, False)
        self.patterns += other.patterns
        self.answers += other.answers
        self.things += other.things
        if other.until_us is not None:
            self.ends_at(other.until_us)


class Answer(Generic[A]):
    """A cached answer.

    Attributes:
        value: the answer.
        until_us: see ``Reads.until_us``.
        is_valid: False once something that was read for it has changed; code that holds the object then asks again.
    """

    __slots__ = (
        "answers",
        "bytes",
        "existence",
        "is_about_address",
        "is_valid",
        "key",
        "patterns",
        "pool",
        "things",
        "until_us",
        "users",
        "value",
        "values",
    )

    def __init__(self, value: A, key: Hashable, pool: Pool, reads: Reads, size: int) -> None:
        self.value = value
        self.until_us = reads.until_us
        self.is_valid = True
        self.is_about_address = reads.reads_address
        self.key = key
        self.pool = pool
        self.values = tuple(address for address, by_value in reads.lookups.items() if by_value)
        self.existence = tuple(address for address, by_value in reads.lookups.items() if not by_value)
        self.patterns = tuple(dict.fromkeys(reads.patterns))
        self.answers = tuple(dict.fromkeys(reads.answers))
        self.things = reads.things
        self.bytes = size
        self.users: dict[Answer[Any], None] | None = None
        """Answers that depend on this one; None for none, since an empty dict takes 64 bytes."""

    def holds(self, now_us: Callable[[], int]) -> bool:
        """Tells whether it is still valid.

        Args:
            now_us: tells the Unix time in µs; called only for an answer that ends at some time, as few do.
        """
        return self.is_valid and (self.until_us is None or now_us() < self.until_us)

    @property
    def entries(self) -> int:
        """Number of its entries in tables."""
        return 1 + sum(map(len, (self.values, self.existence, self.patterns, self.answers, self.things)))


class Pool:
    """The cached answers of one subject, or those shared by all.

    Args:
        max_bytes: limit of their estimated memory.
    """

    __slots__ = ("_max_bytes", "answers", "bytes")

    def __init__(self, max_bytes: int = POOL_BYTES) -> None:
        self._max_bytes = max_bytes
        self.answers: OrderedDict[Hashable, Answer[Any]] = OrderedDict()
        self.bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether it is over its limit."""
        return self.bytes > self._max_bytes


class Memory:
    """All cached answers, and what ends them."""

    def __init__(self) -> None:
        self.shared = Pool(SHARED_POOL_BYTES)
        """The answers that belong to no single subject."""
        self._pools: dict[str, Pool] = {}
        self._by_value: dict[str, set[Answer[Any]]] = {}
        self._by_existence: dict[str, set[Answer[Any]]] = {}
        self._by_pattern: dict[str, dict[Pattern, set[Answer[Any]]]] = {}
        """Patterns by the segments before their first wildcard: a change tries only those that may match."""
        self._by_thing: dict[Hashable, set[Answer[Any]]] = {}
        self._ended: deque[Answer[Any]] = deque()
        """Answers that have ended but are still in the tables, and counted in their pools."""
        self.bytes = 0
        """Estimated memory of all answers, in bytes."""
        self.missed = 0
        """Number of questions that were not in the cache."""
        self.ended = 0
        """Number of answers that a change ended, dependent ones included."""
        self.evicted = 0
        """Number of answers that were removed because of the limit."""

    def __len__(self) -> int:
        return sum(len(pool.answers) for pool in (self.shared, *self._pools.values()))

    def pool(self, subject: str) -> Pool:
        """Returns the pool of a subject."""
        pool = self._pools.get(subject)
        if pool is None:
            pool = self._pools[subject] = Pool()
        return pool

    def drop_pool(self, subject: str) -> Iterator[int]:
        """Removes all answers of a subject whose last session has ended, and all ended answers.

        Returns:
            the work, in pieces; each step yields its estimated cost in µs.
        """
        pool = self._pools.pop(subject, None)
        if pool is not None:
            self._end_all(pool.answers.values())
        while self._ended:
            yield self._tidy(FORGOTTEN_AT_ONCE)

    def find(self, pool: Pool, question: Hashable, address: str, now_us: Callable[[], int]) -> Answer[Any] | None:
        """Returns a cached answer; None if there is none.

        Args:
            pool: its pool.
            question: the question, without the address.
            address: the address of the question.
            now_us: tells the Unix time in µs; called only for an answer that ends at some time, as few do.
        """
        answers = pool.answers
        answer = answers.get(question)
        if answer is None:
            answer = answers.get((question, address))
            if answer is None:
                return None
        if answer.until_us is not None and answer.until_us <= now_us():
            self._end(answer)
            return None
        answers.move_to_end(answer.key)
        return answer

    def keep(self, pool: Pool, question: Hashable, address: str, value: A, reads: Reads) -> Answer[A] | None:
        """Adds an answer.

        Args:
            pool: its pool.
            question: the question, without the address.
            address: the address of the question.
            value: the answer.
            reads: what was read for it.

        Returns:
            The cached answer; None if it cannot be cached.
        """
        self.missed += 1
        if self._ended:
            self._tidy(FORGOTTEN_WITH_ONE)
        if reads.reads_value or (reads.reads_address and len(address) > MAX_KEY_CHARACTERS):
            return None
        if any(not answer.is_valid for answer in reads.answers):
            return None  # an answer that it depends on was removed for the limit while it was computed
        key = (question, address) if reads.reads_address else question
        answer: Answer[A] = Answer(value, key, pool, reads, _size(address, reads))
        before = pool.answers.get(key)
        if before is not None:
            self._end(before)
        pool.answers[key] = answer
        pool.bytes += answer.bytes
        self.bytes += answer.bytes
        _note(self._by_value, answer.values, answer)
        _note(self._by_existence, answer.existence, answer)
        _note(self._by_thing, answer.things, answer)
        for pattern in answer.patterns:
            _note(self._by_pattern.setdefault(_head(pattern), {}), (pattern,), answer)
        for other in answer.answers:
            if other.users is None:
                other.users = {}
            other.users[answer] = None
            if other.until_us is not None and (answer.until_us is None or other.until_us < answer.until_us):
                answer.until_us = other.until_us
        while pool.is_full:
            self.evicted += 1
            self._end(next(iter(pool.answers.values())))
        return answer if answer.is_valid else None

    def changed(self, address: str, exists: bool, existed: bool) -> None:
        """Ends the answers that read an address, after a change there.

        Args:
            address: the address.
            exists: whether a param is set there now.
            existed: whether one was set before.
        """
        if found := self._by_value.pop(address, None):
            self._have_changed(found)
        if exists != existed and (found := self._by_existence.pop(address, None)):
            self._have_changed(found)
        if self._by_pattern:
            for found in self._matching(address):
                self._have_changed(found)
        if self._ended:
            self._tidy(FORGOTTEN_AT_ONCE)

    def outdated(self, thing: Hashable) -> None:
        """Ends the answers that depend on an object (``Reads.things``) that has changed."""
        if found := self._by_thing.pop(thing, None):
            self._have_changed(found)
        if self._ended:
            self._tidy(FORGOTTEN_AT_ONCE)

    def _matching(self, address: str) -> Iterator[set[Answer[Any]]]:
        """Yields and removes, for each pattern that matches an address, the answers that read it."""
        end = 0
        for _ in range(MAX_SEGMENTS + 1):
            head = address[:end]
            patterns = self._by_pattern.get(head, {})
            for pattern in [pattern for pattern in patterns if pattern.matches(address)]:
                yield patterns.pop(pattern)
            if not patterns:
                self._by_pattern.pop(head, None)
            if end == len(address):
                return
            end = address.find("/", end + 1)
            end = len(address) if end < 0 else end

    def _have_changed(self, answers: set[Answer[Any]]) -> None:
        before = len(self._ended)
        self._end_all(answers)
        self.ended += len(self._ended) - before

    def _end_all(self, answers: Iterable[Answer[Any]]) -> None:
        """Marks answers, and those that depend on them, as ended."""
        waiting = list(answers)
        ended = self._ended
        for one in waiting:  # the list grows meanwhile
            if one.is_valid:
                one.is_valid = False
                one.until_us = 0  # so it is no longer found
                ended.append(one)
                if one.users:
                    waiting += one.users

    def _end(self, answer: Answer[Any]) -> None:
        """Removes an answer; those that depend on it are ended."""
        if answer.is_valid:
            answer.is_valid = False
            if answer.users:
                self._end_all(answer.users)
        self._forget(answer)

    def _tidy(self, entries: int) -> int:
        """Removes ended answers from the tables, up to a number of entries; returns the number removed."""
        ended, count = self._ended, 0
        while ended and count < entries:
            answer = ended.popleft()
            count += answer.entries
            if answer.pool.answers.get(answer.key) is answer:
                self._forget(answer)
        return count

    def _forget(self, answer: Answer[Any]) -> None:
        pool = answer.pool
        del pool.answers[answer.key]
        pool.bytes -= answer.bytes
        self.bytes -= answer.bytes
        _drop(self._by_value, answer.values, answer)
        _drop(self._by_existence, answer.existence, answer)
        _drop(self._by_thing, answer.things, answer)
        for pattern in answer.patterns:
            head = _head(pattern)
            patterns = self._by_pattern.get(head)
            if patterns is not None:
                _drop(patterns, (pattern,), answer)
                if not patterns:
                    del self._by_pattern[head]
        for other in answer.answers:
            assert other.users is not None, "an answer rests on one that does not know it"
            other.users.pop(answer, None)


def _size(address: str, reads: Reads) -> int:
    """Estimates the memory of an answer in bytes; captures and keys are parts of its question's address."""
    count = len(reads.lookups) + len(reads.patterns) + len(reads.answers)
    texts = sum(map(len, reads.lookups)) + sum(len(pattern.text) for pattern in reads.patterns)
    return ANSWER_BYTES + count * READ_BYTES + 2 * len(address) + texts


def _head(pattern: Pattern) -> str:
    """Returns the segments before a pattern's first wildcard."""
    return pattern.text.partition("*")[0].rpartition("/")[0]


K = TypeVar("K", bound=Hashable)


def _note(table: dict[K, set[Answer[Any]]], keys: Iterable[K], answer: Answer[Any]) -> None:
    for key in keys:
        table.setdefault(key, set()).add(answer)


def _drop(table: dict[K, set[Answer[Any]]], keys: Iterable[K], answer: Answer[Any]) -> None:
    for key in keys:
        answers = table.get(key)
        if answers is not None:  # the change that ended them has removed them
            answers.discard(answer)
            if not answers:
                del table[key]
