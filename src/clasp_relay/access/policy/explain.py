"""Explains decisions to policy authors: what would be allowed, by which rule, and why."""

from __future__ import annotations

from dataclasses import dataclass

from clasp_relay.access.policy.checks import Check
from clasp_relay.access.policy.document import Mark, StoredText, VisibilityEntry, WriteRule, will_pattern
from clasp_relay.access.policy.language.captures import Captured
from clasp_relay.access.policy.language.question import NO_SESSION_IDS, Question, SessionIds
from clasp_relay.access.policy.policy import Policy
from clasp_relay.access.policy.scopes import Scopes
from clasp_relay.access.policy.visibility_rules import Redaction, VisibilityRule
from clasp_relay.access.policy.write_rules import WriteRequest, check_size
from clasp_relay.core.rights.port import HiddenKeys, State
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import TTL_ABSOLUTE
from clasp_relay.wire.messages import Value
from clasp_relay.wire.values import decode_value

_MARKS = {True: "yes", False: "no "}


@dataclass(frozen=True, slots=True)
class Explanation:
    """An answer and its reasons.

    Args:
        allowed: whether it would be allowed (a write), or shown at all (a read).
        lines: the answer first, then the reasons.
    """

    allowed: bool
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines)


def explain_write(
    policy: Policy,
    subject: str,
    address: str,
    value: Value,
    state: State,
    now_us: int,
    *,
    is_publish: bool = False,
    is_account: bool = True,
    session_ids: SessionIds = NO_SESSION_IDS,
) -> Explanation:
    """Explains how a SET or PUBLISH would be decided. No failure is counted.

    Args:
        policy: the policy.
        subject: the writer.
        address: a valid address.
        value: what would be written.
        state: the params.
        now_us: Unix µs.
        is_publish: whether it is a PUBLISH.
        is_account: whether the writer is a registered user, and no guest.
        session_ids: which session ids were given to whom.
    """
    scopes = policy.scopes_for(subject)
    granted = Scopes.parse(scopes)
    admin = granted.is_admin(address)
    write = WriteRequest(
        subject, address, value, None, is_publish, admin, is_account=is_account, session_ids=session_ids
    )
    lines = [_scope_line(scopes, ("write", "admin"), address)]
    problem = None if granted.can_write(address) else "no write scope holds this address (ERROR 301)"
    found = policy.write_rules.find(address)
    if admin:
        lines.append("rules: skipped, an admin scope holds this address")
    elif found is None:
        lines.append("rule: none matches, so the scope alone decides")
    else:
        rule, captured = found
        question = write.question(captured, state, now_us)
        refusal = _refusal(policy, rule, write, question)
        if problem is None and refusal is not None:
            problem = refusal
        lines += _rule_lines(rule, question)
    if problem is not None:
        return Explanation(False, (f"{subject} may not write {address}: {problem}", *lines))
    lines += _stored_lines(policy, write, state, now_us)
    lines += _history_lines(policy, subject, address, value, state, now_us)
    return Explanation(True, (f"{subject} may write {address}", *lines))


def _refusal(policy: Policy, rule: WriteRule, write: WriteRequest, question: Question) -> str | None:
    """Returns why a rule refuses a write, with the code of the ERROR; None if it does not. No failure is counted."""
    try:
        policy.check_keys(write.address, write.value)
        if rule.within is not None:
            check_size(rule.within, write)
        reason = policy.write_rules.refusal(rule, write, question)
        if reason is not None:
            return f"{reason} (ERROR {int(ErrorCode.POLICY)})"
        policy.write_rules.sign(rule, write, question)
    except RequestError as error:
        return f"{error.message} (ERROR {int(error.code)})"
    return None


def _stored_lines(policy: Policy, write: WriteRequest, state: State, now_us: int) -> list[str]:
    try:
        grant = policy.write_rules.decide(write, state, now_us).grant
    except RequestError as error:
        return [f"after it: {error}"]
    lines = []
    if not write.is_admin and not policy.write_rules.allows_lock(write.address):
        lines.append("lock: refused (ERROR 403)")
    if grant.value != write.value:
        lines.append(f"stored as: {decode_value(grant.value)!r}")
    if grant.ttl is not None:
        lines.append(f"expires {grant.ttl & ~TTL_ABSOLUTE} s after it")
    for pattern in policy.document.calls:
        if pattern.matches(write.address):
            lines.append(f"a place in a call: ends with the session that wrote it (calls {pattern.text})")
    for path in policy.document.clear_on_disconnect:
        if will_pattern(path, write.subject).matches(write.address):
            lines.append(f"cleared when the last session of {write.subject} ends (clear_on_disconnect {path})")
    return lines


def explain_read(
    policy: Policy, subject: str, address: str, state: State, now_us: int, *, pattern: Pattern | None = None
) -> Explanation:
    """Explains what a reader would see of an address.

    Args:
        policy: the policy.
        subject: the reader.
        address: a valid address.
        state: the params.
        now_us: Unix µs.
        pattern: a subscription's pattern; None for a GET.
    """
    scopes = policy.scopes_for(subject)
    granted = Scopes.parse(scopes)
    seen_by = Pattern.parse(address) if pattern is None else pattern
    allowed = granted.can_get(address) if pattern is None else granted.can_subscribe(pattern)
    lines = [
        _scope_line(scopes, ("read", "write", "admin") if pattern is None else ("read", "admin"), address, pattern)
    ]
    if not allowed:
        return Explanation(False, (f"{subject} may not read {seen_by.text}: no scope allows it (ERROR 301)", *lines))
    if granted.is_admin(address):
        lines.append("visibility: skipped, an admin scope holds this address")
        return Explanation(True, (f"{subject} sees all of {address}", *lines))
    views: dict[str, HiddenKeys] = {}
    ways = (("in snapshots", False), ("live", True)) if policy.tells_live_apart else (("", False),)
    for name, is_live in ways:
        rule = policy.visibility_rule(address, is_live=is_live)
        views[name] = rule.judge(subject, address, seen_by, state, now_us).hidden_keys
        if name:
            lines.append(f"{name}:")
        lines += _view_lines(rule, address, subject, seen_by, state, now_us)
    lines += _history_lines(policy, subject, address, None, state, now_us)
    answer = "; ".join(f"{_seen(view)}{f' {name}' if name else ''}" for name, view in views.items())
    shown = any(view is not None for view in views.values())
    return Explanation(shown, (f"{subject}, {address}: {answer}", *lines))


def _history_lines(
    policy: Policy, subject: str, address: str, value: Value | None, state: State, now_us: int
) -> list[str]:
    """Returns lines about the history rule of an address; none if it has no rule."""
    found = policy.history_rules().find(address)
    if found is None:
        return []
    entry, captured = found
    lines = [f"history: history[{entry.number}] {entry.path.text} keeps {entry.describe()}"]
    if entry.unless:
        lines[0] += ", unless:"
        lines += _check_lines(entry.unless, Question(subject, captured, address, value, state, now_us), "    ")
    if entry.erased_by is not None:
        lines.append(f"  erased by a null at {entry.erased_by.expand((*captured, subject))}")
    return lines


def _seen(view: HiddenKeys) -> str:
    if view is None:
        return "hidden"
    return f"shown without {', '.join(sorted(view))}" if view else "shown"


def _scope_line(scopes: tuple[str, ...], actions: tuple[str, ...], address: str, pattern: Pattern | None = None) -> str:
    for scope in scopes:
        action, _, text = scope.partition(":")
        held = Pattern.parse(text)
        if action in actions and (held.matches(address) if pattern is None else held.covers(pattern)):
            return f"scope: {scope}"
    return f"scope: none of {', '.join(actions)} holds {address if pattern is None else pattern.text}"


def _marked_as(mark: Mark, question: Question) -> str:
    if isinstance(mark.value, StoredText):
        return mark.value.describe(question.words)
    said = mark.value.expand(question.words)
    return said if mark.value.template is None else repr(said)


def _rule_lines(rule: WriteRule, question: Question) -> list[str]:
    lines = [f"rule: write_rules[{rule.number}] {rule.path.text}"]
    if rule.stamp is not None:
        lines.append(f"  stamps {rule.stamp.field.decode()!r}")
    for mark in rule.marks:
        lines.append(f"  stamps {mark.field.decode()!r} as {_marked_as(mark, question)}, when:")
        lines += _check_lines(mark.when, question, "    ")
    if rule.within is not None:
        lines.append(f"  at most {rule.within.describe()}")
    if rule.owner is not None:
        lines.append(f"  gets past a lock: {rule.owner.expand(question.words)}")
    for title, checks in (
        ("pre_checks, all", rule.pre_checks),
        ("checks, any" if rule.is_any else "checks, all", rule.checks),
    ):
        if checks:
            lines.append(f"  {title}:")
            lines += _check_lines(checks, question, "    ")
    if rule.allow_null_write:
        lines.append("  a null skips checks")
    return lines


def _view_lines(
    rule: VisibilityRule, address: str, subject: str, pattern: Pattern, state: State, now_us: int
) -> list[str]:
    question = Question(subject, rule.captured, address, None, state, now_us)
    entry = rule.entry
    lines = ["visibility: no entry matches, so it is shown"] if entry is None else _entry_lines(entry, rule, question)
    if entry is not None and entry.literal:
        names = ", ".join(f"{{{entry.path.names[place]}}}" for place in entry.literal)
        how = f"{names} stands literally in {pattern.text}{', unless:' if entry.unless else ''}"
        lines.append(f"  {_MARKS[rule.stands_literally(pattern)]} {how}")
        lines += _check_lines(entry.unless, question, "    ")
    for redaction in rule.redactions:
        lines += _redaction_lines(redaction, question)
    return lines


def _entry_lines(entry: VisibilityEntry, rule: VisibilityRule, question: Question) -> list[str]:
    lines = [f"visibility: snapshot_visibility[{entry.number}] {entry.path.text}"]
    if entry.owner is not None:
        lines.append(f"  only {rule.captured[entry.owner]}, its owner")
    elif entry.checks:
        lines.append("  checks, any:" if entry.is_any else "  checks, all:")
        lines += _check_lines(entry.checks, question, "    ")
    else:
        lines.append(f"  {'shown to' if entry.shown else 'hidden from'} everybody")
    return lines


def _redaction_lines(redaction: Redaction, question: Question) -> list[str]:
    transform = redaction.transform
    question.about(redaction.captured)
    fields = ", ".join(sorted(transform.fields))
    lines = [f"redaction: snapshot_transforms[{transform.number}] {transform.path.text} removes {fields}"]
    if transform.unless:
        lines[0] += ", unless:"
        lines += _check_lines(transform.unless, question, "    ")
    return lines


def _check_lines(checks: tuple[Check, ...], question: Question, indent: str) -> list[str]:
    lines = []
    words: Captured = question.words
    for check in checks:
        mark = _MARKS[check.passes(question)]
        if check.inner:
            lines.append(f"{indent}{mark} {check.kind}:")
            lines += _check_lines(check.inner, question, indent + "    ")
        else:
            lines.append(f"{indent}{mark} {check.describe(words)}")
    return lines
