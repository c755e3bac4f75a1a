"""Reads a policy document, strictly and once: every key is known, and every problem names its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from clasp_relay.access.policy.checks import (
    BEYOND,
    Check,
    ValueFieldEquals,
    parse_check,
    parse_checks,
)
from clasp_relay.access.policy.checks.base import Scalar
from clasp_relay.access.policy.document import (
    SUBJECT_MARK,
    WAYS_OUT,
    Anonymous,
    Bounds,
    Document,
    FailureLimit,
    GuestIds,
    Mark,
    MessageRate,
    RateLimits,
    Stamp,
    StoredText,
    Transform,
    VisibilityEntry,
    WriteRule,
    will_pattern,
)
from clasp_relay.access.policy.history_rules import parse_history
from clasp_relay.access.policy.language.captures import Path, Template
from clasp_relay.access.policy.language.json_keys import Keys
from clasp_relay.access.policy.scopes import check_template
from clasp_relay.errors import RequestError
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.constants import MAX_PAYLOAD_BYTES
from clasp_relay.wire.values import encode_value

MAX_GUEST_DAYS = 36_500
"""A hundred years."""

_ADMIN = "admin:"
"""The start of an admin scope; no rule restricts what it allows."""

CLASSIC_KEYS = frozenset(("scopes", "rate_limits", "write_rules", "snapshot_visibility", "snapshot_transforms"))
"""The top-level keys that the Rust relay knows."""

BEYOND_KEYS = frozenset(
    ("stamp", "keep_hidden", "failures", "within", "literal", "unless", "catch_up", "applies_to", "lock", "owner")
) | {check.kind for check in BEYOND}
"""Keys and check types that the Rust relay does not know."""


def parse_write_rule(keys: Keys, number: int, lock: bool = True) -> WriteRule:
    """Parses one of ``write_rules``.

    Args:
        keys: its keys.
        number: its index in the list.
        lock: whether a writer may take the lock if the rule has no ``lock``.

    Raises:
        StartError: a key is unknown, missing or wrong.
    """
    path = _path(keys, "path")
    names = path.names
    stamp, marks = _stamps(keys, names)
    rule = WriteRule(
        number=number,
        path=path,
        checks=parse_checks(keys, "checks", names, parse_check, may_be_empty=True),
        is_any=keys.choice("mode", ("all", "any"), "all") == "any",
        pre_checks=parse_checks(keys, "pre_checks", names, parse_check, may_be_empty=True),
        allow_null_write=keys.flag("allow_null_write", False),
        stamp=stamp,
        marks=marks,
        keep_hidden=keys.flag("keep_hidden", False),
        failures=_failures(keys.below("failures")) if keys.taken_if_given("failures") else None,
        message=keys.optional_text("message"),
        within=_bounds(keys.below("within")) if keys.taken_if_given("within") else None,
        lock=keys.flag("lock", lock),
        owner=_template(keys, "owner", names) if keys.taken_if_given("owner") else None,
    )
    keys.done()
    return rule


def _stamps(keys: Keys, names: tuple[str, ...]) -> tuple[Stamp | None, tuple[Mark, ...]]:
    """Parses ``stamp``: one entry, or a list of at most one without ``when`` and any number with it."""
    if not keys.taken_if_given("stamp"):
        return None, ()
    entries = keys.objects("stamp") if isinstance(keys.raw("stamp"), list) else [keys.below("stamp")]
    stamps = [_stamp(entry, names) for entry in entries if not entry.has("when")]
    marks = tuple(_mark(entry, names) for entry in entries if entry.has("when"))
    if len(stamps) > 1:
        keys.fail("stamp", "may have one entry without when")
    if stamps and any(mark.field == stamps[0].field for mark in marks):
        keys.fail("stamp", "an entry with when must have a field of its own")
    return (stamps[0] if stamps else None), marks


def _mark(keys: Keys, names: tuple[str, ...]) -> Mark:
    field, value = keys.text("field").encode(), _mark_value(keys, names)
    if not keys.flag("publish", False):
        keys.fail("publish", "must be true in an entry with when, which is about single messages")
    when = parse_checks(keys, "when", names, parse_check)
    equals = (check.value.template for check in when if isinstance(check, ValueFieldEquals))
    words = (text.text.encode() for text in equals if text is not None and "{" not in text.text)
    mark = Mark(field, value, when, tuple(words))
    keys.done()
    return mark


def _mark_value(keys: Keys, names: tuple[str, ...]) -> Scalar | StoredText:
    if keys.taken_if_given("value_of"):
        if keys.has("value"):
            keys.fail("value", "is given besides value_of; give one of them")
        of = keys.below("value_of")
        stored = StoredText(_template(of, "lookup", names), of.text("field").encode())
        of.done()
        return stored
    raw = keys.raw("value")
    if isinstance(raw, bool):
        return Scalar(None, encode_value(raw))
    if not isinstance(raw, str):
        keys.fail("value", "must be a string, true or false")
    return Scalar(_template(keys, "value", names))


def _stamp(keys: Keys, names: tuple[str, ...]) -> Stamp:
    text = keys.text("value", "{session}")
    outlives_null = keys.flag("outlives_null", False)
    if outlives_null and text != "{session}":
        keys.fail("outlives_null", "only a stamp of {session} can outlive a null: it says who may write again")
    publish = keys.flag("publish", False)
    if outlives_null and publish:
        keys.fail("outlives_null", "a stamp of single messages (publish) is not kept, so it cannot outlive a null")
    value = _template(keys, "value", names, "{session}")
    stamp = Stamp(keys.text("field").encode(), value, outlives_null, publish)
    keys.done()
    return stamp


def _template(keys: Keys, key: str, names: tuple[str, ...], default: str | None = None) -> Template:
    text = keys.text(key) if default is None else keys.text(key, default)
    try:
        return Template.parse(text, names)
    except ValueError as error:
        keys.fail(key, str(error))


def _bounds(keys: Keys) -> Bounds:
    most_bytes = keys.whole("bytes", most=MAX_PAYLOAD_BYTES) if keys.taken_if_given("bytes") else None
    texts = keys.below("characters") if keys.taken_if_given("characters") else None
    characters = () if texts is None else tuple((name.encode(), texts.whole(name)) for name in texts.values)
    keys.done()
    if most_bytes is None and not characters:
        keys.fail("", "needs bytes or characters")
    return Bounds(most_bytes, characters)


def _failures(keys: Keys) -> FailureLimit:
    limit = FailureLimit(keys.whole("max", most=1000), round(keys.number("window_secs") * 1_000_000))
    keys.done()
    return limit


def parse_visibility(keys: Keys, number: int) -> VisibilityEntry:
    """Parses one of ``snapshot_visibility``.

    Raises:
        StartError: a key is unknown, missing or wrong.
    """
    path = _visibility_path(keys)
    mode = keys.raw("visible")
    words = ("owner", "require_state_not_null", "checks")
    if not isinstance(mode, bool):
        mode = keys.choice("visible", words)
    owner = _capture(keys, "owner_segment", path) if mode == "owner" else None
    # A file for the Rust relay may have keys of another mode: that relay ignores them, and so does this one.
    for key in ("owner_segment", "public_sub", "lookup"):
        keys.taken_if_given(key)
    literal = tuple(_named(keys, f"literal[{n}]", name, path) for n, name in enumerate(keys.texts("literal", [])))
    entry = VisibilityEntry(
        number=number,
        path=path,
        shown=mode is not False,
        owner=owner,
        public_sub=keys.optional_text("public_sub") if mode == "owner" else None,
        checks=_visibility_checks(keys, mode, path.names),
        is_any=mode == "checks" and keys.choice("mode", ("all", "any"), "all") == "any",
        literal=literal,
        unless=_readers_checks(keys, "unless", path.names) if literal and keys.has("unless") else (),
        catch_up=keys.flag("catch_up", False),
        applies_to=_applies_to(keys),
    )
    keys.done()
    return entry


def _visibility_path(keys: Keys) -> Path:
    keys.taken_if_given("path")
    keys.taken_if_given("path_contains")
    if keys.has("path") and keys.has("path_contains"):
        keys.fail("path_contains", "is given besides path; give one of them")
    if keys.has("path_contains"):
        return Path.containing(keys.text("path_contains"))
    return _path(keys, "path") if keys.has("path") else Path.everything()


def _visibility_checks(keys: Keys, mode: bool | str, names: tuple[str, ...]) -> tuple[Check, ...]:
    if mode == "checks":
        return _readers_checks(keys, "checks", names)
    if mode == "require_state_not_null":
        lookup = Keys({"type": "state_not_null", "lookup": keys.raw("lookup")}, keys.where, keys.source)
        return (parse_check(lookup, names),)
    return ()


def _readers_checks(keys: Keys, key: str, names: tuple[str, ...]) -> tuple[Check, ...]:
    checks = parse_checks(keys, key, names, parse_check)
    about_writer = next(_checks_about_writer(checks), None)
    if about_writer is not None:
        keys.fail(key, f"{about_writer.kind} is for write rules: it is not known of readers")
    return checks


def _checks_about_writer(checks: tuple[Check, ...]) -> Iterator[Check]:
    for check in checks:
        if check.about_writer:
            yield check
        yield from _checks_about_writer(check.inner)


def parse_transform(keys: Keys, number: int) -> Transform:
    """Parses one of ``snapshot_transforms``.

    Raises:
        StartError: a key is unknown, missing or wrong.
    """
    path = _path(keys, "path")
    transform = Transform(
        number=number,
        path=path,
        fields=frozenset(keys.texts("redact_fields", [])),
        unless=_readers_checks(keys, "unless", path.names) if keys.taken_if_given("unless") else (),
        applies_to=_applies_to(keys),
    )
    keys.done()
    return transform


def parse_document(value: object, source: str) -> Document:
    """Parses a whole policy.

    Args:
        value: the decoded JSON.
        source: the document's name in error messages, such as its file name.

    Raises:
        StartError: a key is unknown, missing or wrong; it names the source and the key's path.
    """
    keys = Keys(value, "", source)
    lock = keys.flag("lock", True)
    document = Document(
        source=source,
        scopes=_scopes(keys),
        rate_limits=_rate_limits(keys.below("rate_limits")) if keys.taken_if_given("rate_limits") else RateLimits(),
        message_rate=_message_rate(keys.below("message_rate")) if keys.taken_if_given("message_rate") else None,
        ttl=_ttl(keys.below("ttl")) if keys.taken_if_given("ttl") else (),
        max_ttl=_ttl(keys.below("max_ttl")) if keys.taken_if_given("max_ttl") else (),
        guest_ttl_days=_guest_ttl(keys.below("guest_ttl_days")) if keys.taken_if_given("guest_ttl_days") else (),
        clear_on_disconnect=_clear_on_disconnect(keys),
        calls=_calls(keys),
        hello_snapshot=keys.flag("hello_snapshot", True),
        guest_ids=GuestIds(keys.choice("guest_ids", [choice.value for choice in GuestIds], GuestIds.BEARER.value)),
        anonymous=_anonymous(keys.below("anonymous")) if keys.taken_if_given("anonymous") else None,
        lock=lock,
        write_rules=tuple(parse_write_rule(item, n, lock) for n, item in enumerate(keys.objects("write_rules", []))),
        visibility=tuple(parse_visibility(item, n) for n, item in enumerate(keys.objects("snapshot_visibility", []))),
        transforms=tuple(parse_transform(item, n) for n, item in enumerate(keys.objects("snapshot_transforms", []))),
        history=tuple(parse_history(item, n) for n, item in enumerate(keys.objects("history", []))),
    )
    keys.done()
    return replace(document, notices=_notices(document, keys.values))


def _notices(document: Document, values: dict[str, object]) -> tuple[str, ...]:
    """Returns warnings about effects of the policy that its operator may not expect."""
    notices = []
    if not document.scopes:
        who = "nobody" if document.anonymous is None else "nobody with a token"
        notices.append(f"there are no scopes, so {who} may read or write anything")
    if document.anonymous is not None:
        granted = ", ".join(document.anonymous.scopes) or "nothing"
        notices.append(f"sessions without a token are let in; their scopes: {granted}")
    listed = (*document.visibility, *document.transforms)
    if listed and _is_classic(values):
        notices.append(
            "visibility and redaction hold for everything that is sent, live messages too, not only for snapshots;"
            ' an entry with "applies_to": ["snapshot"] keeps the Rust relay\'s way'
        )
    return tuple(notices)


def _is_classic(values: dict[str, object]) -> bool:
    """Tells whether a document uses nothing that the Rust relay does not know."""
    if set(values) - CLASSIC_KEYS:
        return False
    return not BEYOND_KEYS & set(_all_words(values))


def _all_words(value: object) -> Iterator[str]:
    """Yields every key below a value, and every check's type."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            if key == "type" and isinstance(item, str):
                yield item
            yield from _all_words(item)
    elif isinstance(value, list):
        for item in value:
            yield from _all_words(item)


def _scopes(keys: Keys) -> tuple[str, ...]:
    scopes = keys.texts("scopes", [])
    for n, scope in enumerate(scopes):
        try:
            check_template(scope)
        except ValueError as error:
            keys.fail(f"scopes[{n}]", f"{scope!r}: {error}")
    return tuple(scopes)


def _anonymous(keys: Keys) -> Anonymous:
    scopes = _scopes(keys)
    for n, scope in enumerate(scopes):
        if scope.startswith(_ADMIN):
            keys.fail(f"scopes[{n}]", f"{scope!r}: a session without a token cannot be an administrator")
    rate = _message_rate(keys.below("message_rate")) if keys.taken_if_given("message_rate") else None
    keys.done()
    return Anonymous(scopes, rate)


def _rate_limits(keys: Keys) -> RateLimits:
    default = RateLimits()
    limits = RateLimits(
        keys.whole("login_max_attempts", default.login_max_attempts),
        keys.number("login_window_secs", default.login_window_s),
        keys.whole("register_max_attempts", default.register_max_attempts),
        keys.number("register_window_secs", default.register_window_s),
    )
    keys.done()
    return limits


def _message_rate(keys: Keys) -> MessageRate:
    per_second = keys.number("per_second")
    rate = MessageRate(per_second, keys.number("burst", 4 * per_second))
    keys.done()
    return rate


def _ttl(keys: Keys) -> tuple[tuple[Path, int], ...]:
    return tuple((_parse_path(keys, text, text), keys.whole(text)) for text in keys.values)


def _guest_ttl(keys: Keys) -> tuple[tuple[Path, int], ...]:
    found = tuple((_parse_path(keys, text, text), keys.whole(text, most=MAX_GUEST_DAYS)) for text in keys.values)
    for path, _ in found:
        if len(path.names) != 1 or path.many:
            keys.fail(path.text, "must capture one segment, the guest's id")
    return found


def _clear_on_disconnect(keys: Keys) -> tuple[str, ...]:
    paths = keys.texts("clear_on_disconnect", [])
    for n, path in enumerate(paths):
        where = f"clear_on_disconnect[{n}]"
        if set("{}") & set(path.replace(SUBJECT_MARK, "")):
            keys.fail(where, f"{path!r}: captures nothing; {SUBJECT_MARK} stands for the writer, * for any segment")
        try:
            will_pattern(path, "x")
        except RequestError as error:
            keys.fail(where, f"{path!r}: {error.message}")
    return tuple(paths)


def _calls(keys: Keys) -> tuple[Pattern, ...]:
    found = []
    for n, text in enumerate(keys.texts("calls", [])):
        try:
            found.append(Pattern.parse(text))
        except RequestError as error:
            keys.fail(f"calls[{n}]", f"{text!r}: {error.message}")
    return tuple(found)


def _applies_to(keys: Keys) -> tuple[str, ...]:
    ways = keys.texts("applies_to", list(WAYS_OUT))
    if not ways or set(ways) - set(WAYS_OUT):
        keys.fail("applies_to", f"must be a list of {' and '.join(WAYS_OUT)}")
    return tuple(ways)


def _path(keys: Keys, key: str) -> Path:
    return _parse_path(keys, key, keys.text(key))


def _parse_path(keys: Keys, key: str, text: str) -> Path:
    try:
        return Path.parse(text)
    except ValueError as error:
        keys.fail(key, str(error))


def _capture(keys: Keys, key: str, path: Path) -> int:
    return _named(keys, key, keys.text(key), path)


def _named(keys: Keys, key: str, name: str, path: Path) -> int:
    if name not in path.names:
        keys.fail(key, f"{name!r} is not captured by the path (it captures {', '.join(path.names) or 'nothing'})")
    return path.names.index(name)
