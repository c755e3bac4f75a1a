"""Decides SETs and PUBLISHes: the write rules, then stamps, hidden fields and TTL; and counts refused writes."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from clasp_relay.access.policy.checks import Check, any_refusal, holds_all, holds_any
from clasp_relay.access.policy.document import Bounds, Document, FailureLimit, Mark, Stamp, StoredText, WriteRule
from clasp_relay.access.policy.language.captures import Captured, PathTable, Template
from clasp_relay.access.policy.language.maps import (
    add_field,
    encode_text,
    fields_of,
    find_field,
    is_map,
    redact,
    text_of,
    with_fields,
)
from clasp_relay.access.policy.language.question import NO_SESSION_IDS, Question, SessionIds
from clasp_relay.access.policy.visibility_rules import Visibility
from clasp_relay.core.records import Ended, Param
from clasp_relay.core.rights.memory import MAX_KEY_CHARACTERS, Answer, Memory, Reads
from clasp_relay.core.rights.port import Grant, State
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.constants import MAX_PAYLOAD_BYTES, TTL_ABSOLUTE
from clasp_relay.wire.messages import NULL, Value

ChecksLeft: TypeAlias = tuple[Check, ...]
"""What is remembered of a write that passed its rule: the checks that read the value. The next write with the same
question has to pass these again, and is known to pass the others."""

_MAX_REASON = 500
"""The most characters of a reason in an ERROR; longer ones are cut, since a reason may quote a long address."""

_MAX_NAMED = 10_000
"""The most characters of an address that an ERROR names; with it the ERROR always fits a frame."""


MAX_SUBJECTS = 10_000
"""Number of subjects whose failures are counted; beyond it the subject whose last failure is oldest is forgotten."""

MAX_KEYS = 64
"""Number of pairs of a rule and captures for which failures of one subject count at the same time; when there are as
many, all attempts of the subject have to wait."""

_Key = tuple[int, Captured]


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """A SET or PUBLISH to be decided.

    Args:
        subject: the writer.
        address: a valid address.
        value: null where the message has none.
        ttl: as on the wire; None when the message has none.
        is_publish: whether it is a PUBLISH, which stores nothing.
        is_admin: whether the writer has an admin scope for the address, so that no rule refuses the write.
        fails_as: the subject for which its failures are counted; empty for the writer.
        is_account: whether the writer's token is a registered user's.
        session_ids: which session ids were given to whom.
    """

    subject: str
    address: str
    value: Value
    ttl: int | None = None
    is_publish: bool = False
    is_admin: bool = False
    fails_as: str = ""
    is_account: bool = False
    session_ids: SessionIds = NO_SESSION_IDS

    def question(self, captured: Captured, state: State, now_us: int) -> Question:
        """Returns the input of a rule's checks.

        Args:
            captured: what the rule's path captured.
            state: the params.
            now_us: Unix µs.
        """
        return Question(
            self.subject,
            captured,
            self.address,
            self.value,
            state,
            now_us,
            is_account=self.is_account,
            session_ids=self.session_ids,
        )

    def refuse(self, code: ErrorCode, reason: str) -> RequestError:
        """Returns the error for the writer."""
        text = reason if len(reason) <= _MAX_REASON else reason[: _MAX_REASON - 1] + "…"
        return RequestError(code, text, self.address if len(self.address) <= _MAX_NAMED else None)


FLEETING_S = 120
"""The longest TTL of a param whose ACK does not wait for the record: after a loss of power its client sets it again."""


class Decision(NamedTuple):
    """An accepted write."""

    grant: Grant
    remembered: Answer[ChecksLeft] | None = None
    """The remembered answer; None if nothing is remembered."""


class WriteRules:
    """The write rules of a policy.

    Args:
        document: the policy.
        visibility: tells which keys are hidden from a writer, for ``keep_hidden``.
    """

    def __init__(self, document: Document, visibility: Visibility) -> None:
        self._rules = document.write_rules
        self._table = PathTable([rule.path for rule in document.write_rules])
        self._ttls = [seconds for _, seconds in document.ttl]
        self._ttl_table = PathTable([path for path, _ in document.ttl])
        self._max_ttls = [seconds for _, seconds in document.max_ttl]
        self._max_ttl_table = PathTable([path for path, _ in document.max_ttl])
        self._locks = document.lock
        self._visibility = visibility
        self.failures = Failures()

    def find(self, address: str) -> tuple[WriteRule, tuple[str, ...]] | None:
        """Returns the rule that decides writes to an address, and what its path captured."""
        found = self._table.find(address)
        return None if found is None else (self._rules[found.number], found.captured)

    def decide(self, write: WriteRequest, state: State, now_us: int, memory: Memory | None = None) -> Decision:
        """Decides one write.

        Args:
            write: the write.
            state: the params.
            now_us: Unix µs.
            memory: where the answer may be remembered; it must be told of every change of ``state``.

        Raises:
            RequestError: POLICY when it is refused, VALUE when it is too large, LIMIT after too many failures.
        """
        found = self.find(write.address)
        if found is None:
            return Decision(Grant(write.value, self.ttl(write)))
        rule, captured = found
        if rule.within is not None and not write.is_admin:
            check_size(rule.within, write)
        question = write.question(captured, state, now_us)
        remembered = None
        if not write.is_admin:
            if memory is None or not _only_answers(rule):
                self._apply(rule, write, question, now_us)
            else:
                remembered = self._recall(rule, write, question, memory, now_us)
        value = write.value if write.is_admin else self.sign(rule, write, question)
        if write.is_publish:
            return Decision(Grant(value, None), remembered)
        if rule.keep_hidden and not write.is_admin:
            value = self._keep_hidden(write, value, question)
        if rule.stamp is None or rule.stamp.publish:
            return Decision(Grant(value, self.ttl(write)), remembered)
        value, stamp = _stamped(rule.stamp, write, value, question)
        return Decision(Grant(value, self.ttl(write), stamp))

    def _recall(
        self, rule: WriteRule, write: WriteRequest, question: Question, memory: Memory, now_us: int
    ) -> Answer[ChecksLeft] | None:
        """Applies a rule by a remembered answer if there is one; else applies all of it, and remembers the answer."""
        pool, key = memory.pool(write.subject), (rule.number, question.words)
        known: Answer[ChecksLeft] | None = memory.find(pool, key, write.address, lambda: now_us)
        if known is not None and holds_all(known.value, question):
            return known
        self._apply(rule, write, question, now_us)
        if write.value == NULL and rule.allow_null_write:
            return None  # passed for its value alone
        found = _checks_left(rule, question)
        if found is None or sum(map(len, question.words)) > MAX_KEY_CHARACTERS:
            return None
        left, reads = found
        return memory.keep(pool, key, write.address, left, reads)

    def sign(self, rule: WriteRule, write: WriteRequest, question: Question) -> Value:
        """Returns the value of a write with its author, where the rule stamps single messages.

        Args:
            rule: the rule of the address.
            write: a write that passed the rule.
            question: the input of its checks.

        Raises:
            RequestError: POLICY when the value is no map or names another author, VALUE when the author is too long.
        """
        stamp, value = rule.stamp, write.value
        is_signed = stamp is not None and stamp.publish
        if not (is_signed or rule.marks) or (value == NULL and not write.is_publish):
            return value
        if not is_map(value):
            raise write.refuse(ErrorCode.POLICY, rule.message or "the value must be a map")
        if rule.marks:
            value = _marked(rule, write, question)
        if stamp is None or not stamp.publish:
            return value
        text = _expanded(stamp.value, write, question)
        author, named = encode_text(text), find_field(value, stamp.field)
        if named is None:
            return add_field(value, stamp.field, author)
        if named != author:
            field, said = stamp.field.decode(), text.decode()
            raise write.refuse(
                ErrorCode.POLICY, rule.message or f"{field!r} in the value must be {said!r}, or be left out"
            )
        return value

    def allows_lock(self, address: str) -> bool:
        """Tells whether a writer may take the lock of an address."""
        found = self.find(address)
        return self._locks if found is None else found[0].lock

    def is_stamped(self, address: str, field: bytes) -> bool:
        """Tells whether a field (UTF-8) of what is published at an address is set by the relay only, if at all."""
        found = self.find(address)
        return found is not None and any(mark.field == field for mark in found[0].marks)

    def owns(self, subject: str, address: str, value: Value) -> bool:
        """Tells whether a subject gets past a lock: the rule's ``owner``, or the one that its stamp names.

        Args:
            subject: the subject.
            address: the address.
            value: what is stored there.
        """
        found = self.find(address)
        if found is None:
            return False
        rule, captured = found
        if rule.owner is not None and rule.owner.expand((*captured, subject)) == subject:
            return True
        return (
            rule.stamp is not None
            and not rule.stamp.publish
            and text_of(fields_of(value).get(rule.stamp.field)) == subject
        )

    def ttl(self, write: WriteRequest) -> int | None:
        """Returns the TTL that a write is stored with, as on the wire."""
        if write.is_publish or write.value == NULL:
            return write.ttl
        ttl = write.ttl
        if ttl is None and self._ttls:
            given = self._ttl_table.find(write.address)
            ttl = None if given is None else TTL_ABSOLUTE | self._ttls[given.number]
        longest = self._max_ttl_table.find(write.address) if self._max_ttls and not write.is_admin else None
        if longest is not None:
            seconds = 0 if ttl is None else ttl & ~TTL_ABSOLUTE
            if not 0 < seconds <= self._max_ttls[longest.number]:
                ttl = TTL_ABSOLUTE | self._max_ttls[longest.number]
        return ttl

    def gives_ttl(self, address: str) -> bool:
        """Tells whether a SET without a TTL gets one at an address."""
        return self._ttl_table.find(address) is not None or self.bounds_ttl(address)

    def ends_soon(self, address: str) -> bool:
        """Tells whether a SET without a TTL gets one of at most ``FLEETING_S`` at an address, as presence does."""
        given = self._ttl_table.find(address)
        return given is not None and self._ttls[given.number] <= FLEETING_S

    def bounds_ttl(self, address: str) -> bool:
        """Tells whether a SET with a TTL may get a shorter one at an address."""
        return self._max_ttl_table.find(address) is not None

    def stamp_of(self, address: str, value: Value) -> str | None:
        """Returns the subject that stays stamped at an address when a stored value ends by itself."""
        found = self.find(address)
        if found is None or found[0].stamp is None or not found[0].stamp.outlives_null:
            return None
        return text_of(fields_of(value).get(found[0].stamp.field))

    def refusal(self, rule: WriteRule, write: WriteRequest, question: Question) -> str | None:
        """Returns why a rule refuses a write; None when it accepts it."""
        if rule.stamp is not None and not rule.stamp.publish:
            problem = _stamp_problem(rule.stamp, write, question)
            if problem is not None:
                return problem
        for check in rule.pre_checks:
            if not check.passes(question):
                return rule.message or check.refusal(question)
        if not rule.checks or (rule.allow_null_write and write.value == NULL):
            return None
        if rule.is_any:
            return None if holds_any(rule.checks, question) else rule.message or any_refusal(rule.checks, question)
        if holds_all(rule.checks, question):
            return None
        return rule.message or next(check.refusal(question) for check in rule.checks if not check.passes(question))

    def _apply(self, rule: WriteRule, write: WriteRequest, question: Question, now_us: int) -> None:
        key = (write.fails_as or write.subject, rule.number, question.words[:-1])
        if rule.failures is not None:
            try:
                self.failures.check(*key, rule.failures, now_us)
            except RequestError as error:
                raise write.refuse(error.code, error.message) from None
        reason = self.refusal(rule, write, question)
        if reason is None:
            return
        if rule.failures is not None:
            self.failures.note(*key, rule.failures, now_us)
        raise write.refuse(ErrorCode.POLICY, reason)

    def _keep_hidden(self, write: WriteRequest, value: Value, question: Question) -> Value:
        param = question.param(write.address)
        if param is None or not is_map(param.value) or not is_map(value):
            return value
        hidden = self._visibility.redacted_for(write.address, question)
        stored, sent = fields_of(param.value), fields_of(value)
        kept = {
            key: stored[key]
            for key in (field.encode() for field in sorted(hidden))
            if key in stored and key not in sent
        }
        return with_fields(value, kept) if kept else value


def check_size(bounds: Bounds, write: WriteRequest) -> None:
    """Checks that a value is within the bounds of its rule.

    Raises:
        RequestError: VALUE when it is not.
    """
    problem = bounds.problem(write.value)
    if problem is not None:
        raise write.refuse(ErrorCode.VALUE, problem)


def _expanded(template: Template, write: WriteRequest, question: Question) -> bytes:
    text = template.expand(question.words).encode()
    if len(text) > MAX_PAYLOAD_BYTES:
        raise write.refuse(ErrorCode.VALUE, "the address is too long")
    return text


def _marked(rule: WriteRule, write: WriteRequest, question: Question) -> Value:
    """Returns a map without the sender's own fields of marks, and with the fields of the marks that hold.

    Of several marks of one field the first that holds sets it.
    """
    found: dict[bytes, Value | None] = {}
    for mark in rule.marks:
        if not mark.may_hold(write.value) or found.get(mark.field) is not None:
            continue
        # Entered also without a value, so that the sender's own field is removed: the checks may fail, and a text may
        # not be stored.
        found[mark.field] = _mark_value(mark, write, question) if holds_all(mark.when, question) else None
    value = redact(write.value, [field.decode() for field in found])
    for field, marked in found.items():
        if marked is not None:
            value = add_field(value, field, marked)
    return value


def _mark_value(mark: Mark, write: WriteRequest, question: Question) -> Value | None:
    if isinstance(mark.value, StoredText):
        stored = question.field(question.at(mark.value.lookup), mark.value.field)
        return None if text_of(stored) is None else stored
    template = mark.value.template
    return mark.value.value if template is None else encode_text(_expanded(template, write, question))


def _only_answers(rule: WriteRule) -> bool:
    """Tells whether a rule only accepts or refuses: counts no failures, and adds no kept stamp and no hidden fields."""
    stamps = rule.stamp is not None and not rule.stamp.publish
    return rule.failures is None and not stamps and not rule.keep_hidden


def _checks_left(rule: WriteRule, question: Question) -> tuple[ChecksLeft, Reads] | None:
    """Returns the checks of a rule that read the value of a write that passed it, and what all other checks read.

    Returns:
        None when the write passed by its value alone: in mode ``any``, by checks that read the value.
    """
    left: list[Check] = []
    rest = Reads()

    def ask(check: Check) -> tuple[bool, bool]:
        question.reads = Reads()
        passes = check.passes(question)
        reads = question.reads
        if passes and not reads.reads_value:
            rest.add(reads)
        return passes, reads.reads_value

    needed = rule.pre_checks if rule.is_any else rule.pre_checks + rule.checks
    for check in needed:
        _, reads_value = ask(check)
        if reads_value:
            left.append(check)
    if rule.is_any and rule.checks and not any(passes and not by_value for passes, by_value in map(ask, rule.checks)):
        return None
    return tuple(left), rest


def _stamp_problem(stamp: Stamp, write: WriteRequest, question: Question) -> str | None:
    if write.is_publish:
        return "nothing can be published here; SET it"
    if write.value != NULL and not is_map(write.value):
        return "the value must be a map"
    if stamp.outlives_null:
        ended = question.ended(write.address)
        if ended is not None and ended.stamp is not None and ended.stamp != write.subject:
            return "this address is kept for who created it"
    return None


def _stamped(stamp: Stamp, write: WriteRequest, value: Value, question: Question) -> tuple[Value, str | None]:
    """Returns the value with its stamp, and the subject that outlives a null."""
    kept = _stored_stamp(stamp, question.param(write.address), question.ended(write.address))
    if value == NULL:
        return value, text_of(kept) if stamp.outlives_null else None
    if write.is_admin:
        return _administered(stamp, value, kept)
    if kept is None:
        kept = encode_text(_expanded(stamp.value, write, question))
    return with_fields(value, {stamp.field: kept}), text_of(kept) if stamp.outlives_null else None


def _stored_stamp(stamp: Stamp, param: Param | None, ended: Ended | None) -> Value | None:
    if param is not None:
        field = fields_of(param.value).get(stamp.field)
        return field if text_of(field) is not None else None
    if stamp.outlives_null and ended is not None and ended.stamp is not None:
        return encode_text(ended.stamp.encode())
    return None


def _administered(stamp: Stamp, value: Value, kept: Value | None) -> tuple[Value, str | None]:
    """Returns the value and the subject that outlives a null, as ``_stamped`` does, for a write with an admin scope.

    An admin may stamp another subject; a stamp that is left out stays.
    """
    if not is_map(value):
        return value, None
    named = fields_of(value).get(stamp.field)
    if text_of(named) is None and kept is not None:
        value, named = with_fields(value, {stamp.field: kept}), kept
    return value, text_of(named) if stamp.outlives_null else None


class Failures:
    """The failures of every subject, by rule and captures; its memory is bounded."""

    def __init__(self) -> None:
        self._by_subject: OrderedDict[str, dict[_Key, tuple[deque[int], int]]] = OrderedDict()

    def check(self, subject: str, rule: int, captured: Captured, limit: FailureLimit, now_us: int) -> None:
        """Refuses an attempt after too many failures.

        Raises:
            RequestError: LIMIT, with the seconds to wait.
        """
        mine = self._by_subject.get(subject)
        if mine is None:
            return
        _expire(mine, now_us)
        times = mine.get((rule, captured), (deque(), 0))[0]
        if len(times) >= limit.most or len(mine) >= MAX_KEYS:
            oldest_us = times[-limit.most] if len(times) >= limit.most else now_us
            wait_s = max(1, -(-(oldest_us + limit.window_us - now_us) // 1_000_000))
            raise RequestError(ErrorCode.LIMIT, f"too many failed attempts; try again in {wait_s} s")

    def note(self, subject: str, rule: int, captured: Captured, limit: FailureLimit, now_us: int) -> None:
        """Counts one failure."""
        mine = self._by_subject.setdefault(subject, {})
        self._by_subject.move_to_end(subject)
        times, _ = mine.setdefault((rule, captured), (deque(maxlen=limit.most), limit.window_us))
        times.append(now_us)
        if len(self._by_subject) > MAX_SUBJECTS:
            self._by_subject.popitem(last=False)


def _expire(mine: dict[_Key, tuple[deque[int], int]], now_us: int) -> None:
    for key, (times, window_us) in list(mine.items()):
        while times and times[0] <= now_us - window_us:
            times.popleft()
        if not times:
            del mine[key]
