"""Frames that the client libraries made, and their messages as upstream's decoder describes them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from clasp_relay.wire import messages as m
from clasp_relay.wire.constants import ALL_TYPES, TTL_ABSOLUTE, Feature, Signal
from clasp_relay.wire.values import decode_value

_FOLDER = Path(__file__).parent.parent / "vectors"


def load(name: str) -> list[dict[str, Any]]:
    """Returns the cases of one file of ``tests/vectors``."""
    cases: list[dict[str, Any]] = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return cases


def untag(node: Any) -> Any:
    """Converts the files' JSON to Python objects: bytes, special floats and big integers are tagged."""
    if isinstance(node, list):
        return [untag(item) for item in node]
    if not isinstance(node, dict):
        return node
    if len(node) == 1:
        (tag, content), *_ = node.items()
        if tag == "$bytes":
            return bytes.fromhex(content)
        if tag == "$float":
            return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "-0": -0.0}[content]
        if tag in {"$int", "$bigint"}:
            return int(content)
    return {key: untag(item) for key, item in node.items()}


def canonical(node: Any) -> str:
    """Makes two descriptions comparable: the order of maps is ignored; types of numbers and -0.0 are not."""
    if isinstance(node, dict):
        return "{" + ", ".join(f"{key!r}: {canonical(node[key])}" for key in sorted(node)) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(canonical(item) for item in node) + "]"
    return repr(node)


def expected(decoded: dict[str, Any]) -> dict[str, Any]:
    """Levels what upstream's decoder leaves open: nil and absent, payload and value, the order of features.

    The relay ignores ``history`` and ``window`` of a SUBSCRIBE, so they are left out.
    """
    words = untag(decoded)
    if "payload" in words:
        words["value"] = words.pop("payload")
    if words["type"] == "PUBLISH":
        words.setdefault("phase", "start")
    if words["type"] == "HELLO" or words["type"] == "WELCOME":
        words["features"] = sorted(words["features"])
    for ignored in ("history", "window"):
        words.get("options", {}).pop(ignored, None)
    if words.get("options") == {}:
        del words["options"]
    for definition in words.get("signals", []):
        if definition.get("meta") == {}:
            del definition["meta"]
    if words["type"] == "BUNDLE":
        words["messages"] = [expected(member) for member in words["messages"]]
    return dict(words)


def _present(**fields: Any) -> dict[str, Any]:
    return {name.rstrip("_"): field for name, field in fields.items() if field is not None}


def _features(mask: int) -> list[str]:
    return sorted((feature.name or "").lower() for feature in Feature if feature & mask)


def _types(mask: int) -> list[str] | None:
    return None if mask == ALL_TYPES else [signal.name.lower() for signal in Signal if mask >> signal & 1]


def _ttl(ttl: int | None) -> Any:
    if not ttl:
        return None if ttl is None else "Never"
    return {"Absolute": ttl & ~TTL_ABSOLUTE} if ttl & TTL_ABSOLUTE else {"Sliding": ttl}


def _definition(d: m.SignalDefinition) -> dict[str, Any]:
    default = None if d.default is None else decode_value(d.default)
    bounds = None if d.range is None else list(d.range)
    meta = _present(unit=d.unit, range=bounds, default=default, description=d.description)
    return _present(
        address=d.address, type=d.signal.name.lower(), datatype=d.datatype, access=d.access, meta=meta or None
    )


def _set(s: m.Set) -> dict[str, Any]:
    optional = _present(revision=s.revision, ttl=_ttl(s.ttl))
    return {"address": s.address, "value": decode_value(s.value), "lock": s.lock, "unlock": s.unlock, **optional}


def _publish(p: m.Publish) -> dict[str, Any]:
    samples = (
        None
        if p.samples is None
        else [decode_value(b"\x07" + p.samples[n : n + 8]) for n in range(0, len(p.samples), 8)]
    )
    words = _present(samples=samples, timestamp=p.timestamp_us, id=p.id, rate=p.rate)
    if p.value is not None:
        words["value"] = decode_value(p.value)
    return {"address": p.address, "signal": p.signal.name.lower(), "phase": p.phase.name.lower(), **words}


def _param(p: m.SnapshotParam) -> dict[str, Any]:
    optional = _present(writer=p.writer, timestamp=p.timestamp_us)
    return {"address": p.address, "value": decode_value(p.value), "revision": p.revision, **optional}


def _greeting(g: m.Hello | m.Welcome) -> dict[str, Any]:
    return _present(version=g.version, features=_features(g.features), name=g.name, token=g.token or None)


def _subscribe(s: m.Subscribe) -> dict[str, Any]:
    options = _present(max_rate=s.max_rate, epsilon=s.epsilon)
    return _present(id=s.id, pattern=s.pattern, types=_types(s.types), options=options or None)


def _fields(message: m.Message) -> dict[str, Any]:
    match message:
        case m.Set():
            return _set(message)
        case m.Publish():
            return _publish(message)
        case m.Hello():
            return _greeting(message)
        case m.Welcome():
            return {**_greeting(message), "time": message.time_us, "session": message.session}
        case m.Subscribe():
            return _subscribe(message)
        case m.Snapshot():
            return {"params": [_param(param) for param in message.params]}
        case m.Announce():
            return {"namespace": message.namespace, "signals": [_definition(d) for d in message.signals]}
        case m.Result():
            return {"signals": [_definition(d) for d in message.signals]}
        case _:
            return _plain_fields(message)


def _plain_fields(message: m.Message) -> dict[str, Any]:
    match message:
        case m.Bundle():
            members = [describe(member) for member in message.messages]
            return {"messages": members, **_present(timestamp=message.timestamp_us)}
        case m.Replay():
            bounds = {"from": message.from_us, "to": message.to_us}
            words = _present(pattern=message.pattern, limit=message.limit, types=_types(message.types))
            return {**words, **{name: bound for name, bound in bounds.items() if bound is not None}}
        case m.Sync():
            return _present(t1=message.t1_us, t2=message.t2_us, t3=message.t3_us)
        case m.Error():
            words = _present(address=message.address, correlation_id=message.correlation_id)
            return {"code": message.error, "message": message.message, **words}
        case m.Ack():
            words = _present(revision=message.revision, locked=message.locked, holder=message.holder)
            return {**words, **_present(address=message.address, correlation_id=message.correlation_id)}
        case m.Get():
            return {"address": message.address}
        case m.Query():
            return {"pattern": message.pattern}
        case m.Unsubscribe():
            return {"id": message.id}
        case _:
            return {}


def describe(message: m.Message) -> dict[str, Any]:
    """Describes a message as upstream's decoder does."""
    return {"type": type(message).__name__.upper(), **_fields(message)}
