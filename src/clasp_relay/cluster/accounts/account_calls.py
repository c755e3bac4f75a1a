"""The calls of the stores that a relay sends to the decider, and the encoding of calls and their outcomes.

The table has all methods that can be asked for; no other one is ever called. The types of arguments and results are
those of the methods' annotations: numbers, texts, bytes, named tuples and dataclasses of them, sequences and maps.
Arguments of other types are refused before anything is called.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from inspect import signature
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgpack

from clasp_relay.errors import ClaspError, DecodeError
from clasp_relay.storage import users
from clasp_relay.storage.administration import AdminStore
from clasp_relay.storage.audit import AuditStore
from clasp_relay.storage.hooks import HookStore
from clasp_relay.storage.push_subscriptions import PushStore
from clasp_relay.storage.sent_files import SentFileStore
from clasp_relay.storage.users import StoreBusy, StoreRefusal
from clasp_relay.storage.users_rows import OtherAccounts, RowStore
from clasp_relay.storage.users_sqlite import SqliteUsers

__all__ = [
    "ASKED",
    "CAUGHT",
    "LOOK_UPS",
    "REFUSALS",
    "Failed",
    "Method",
    "Methods",
    "decode_outcome",
    "encode_outcome",
    "method_of",
    "pack",
    "unpack",
    "unpacked",
]

ASKED: Mapping[str, tuple[type[Any], tuple[str, ...]]] = {
    "users": (
        SqliteUsers,
        (
            "add_user",
            "add_guest_token",
            "add_user_token",
            "add_refreshed_token",
            "end_replaced",
            "end",
            "redate",
            "revoke",
            "change_password",
            "replace_hash",
            "purge",
            "add_invite",
            "revoke_invite",
        ),
    ),
    "administration": (
        AdminStore,
        (
            "grant",
            "withdraw",
            "disable",
            "enable",
            "rename",
            "delete",
            "deleted",
            "add_reset",
            "use_reset",
            "choose",
        ),
    ),
    "audit": (AuditStore, ("trim",)),
    "push": (PushStore, ("add", "remove")),
    "files": (
        SentFileStore,
        ("add", "adopt", "store", "note_read", "remove", "remove_unstored", "confirm_missing"),
    ),
    "rows": (RowStore, ("put", "put_base")),
}
"""The methods that are asked of the decider, by the part of the store that has them.

Other methods that write, such as those that add to the audit log or note session ids, are called here: nobody waits
until other relays have their changes, which are sent like those of commands, once and without loss."""

LOOK_UPS: Mapping[str, tuple[type[Any], tuple[str, ...]]] = {
    "users": (SqliteUsers, ("find_user", "user", "find_token", "check_invite")),
    "administration": (AdminStore, ("person", "reset_of")),
    "hooks": (HookStore, ("find",)),
    "files": (SentFileStore, ("find",)),
}
"""The methods that look for one row: if it is not here, it may be on its way from the log."""

REFUSALS: Mapping[str, type[StoreRefusal]] = {
    kind.__name__: kind
    for kind in (*vars(users).values(), OtherAccounts)
    if isinstance(kind, type) and issubclass(kind, StoreRefusal) and kind not in (StoreRefusal, StoreBusy)
}
"""The exceptions with which a method may refuse, by name."""

MAX_DEPTH = 8


class Failed(ClaspError):
    """A call could not be made: a fault of the relay that asked, or of the decider."""


CAUGHT: tuple[type[Exception], ...] = (*REFUSALS.values(), Failed, sqlite3.IntegrityError)
"""Exceptions that are the outcome of one call, which then changes nothing. Any other exception fails all calls of the
attempt."""


class Method(NamedTuple):
    """A method that is asked of the decider."""

    function: Callable[..., Any]
    parameters: Mapping[str, Any]
    """The type of each parameter, in order, without ``self``."""
    result: Any

    def encode_arguments(self, args: Sequence[object], kwargs: Mapping[str, object]) -> bytes:
        """Encodes the arguments of a call."""
        bound = signature(self.function).bind(None, *args, **kwargs)
        bound.apply_defaults()
        data: bytes = msgpack.packb([pack(bound.arguments[name]) for name in self.parameters])
        return data

    def decode_arguments(self, data: bytes) -> dict[str, Any]:
        """Decodes the arguments of a call.

        Raises:
            DecodeError: the method does not take such arguments.
        """
        values = unpacked(data, "a call")
        if len(values) != len(self.parameters):
            raise DecodeError("a call has other arguments than its method")
        hints = self.parameters.items()
        return {name: unpack(hint, value) for (name, hint), value in zip(hints, values, strict=True)}


class Methods:
    """The methods of one store that are asked of the decider.

    Args:
        store: the store of this relay.
    """

    def __init__(self, store: SqliteUsers) -> None:
        parts: dict[str, Any] = {"users": store} | {
            name: getattr(store, name) for name in (*ASKED, *LOOK_UPS) if name != "users"
        }
        self._parts = parts
        self._by_function = {
            (id(parts[part]), name): f"{part}.{name}" for part, (_, names) in ASKED.items() for name in names
        }
        self._look_ups = {(id(parts[part]), name) for part, (_, names) in LOOK_UPS.items() for name in names}

    def name_of(self, work: Callable[..., object]) -> str | None:
        """Returns the name under which a method is asked of the decider; None for one that is called here."""
        return self._by_function.get(_key(work))

    def looks_up(self, work: Callable[..., object]) -> bool:
        """Tells whether a method looks for one row (``LOOK_UPS``)."""
        return _key(work) in self._look_ups

    def call(self, name: str, data: bytes) -> Callable[[], object]:
        """Returns a function that makes a call.

        Raises:
            DecodeError: there is no such method, or it does not take such arguments.
        """
        method = method_of(name)
        arguments = method.decode_arguments(data)
        part, _, function = name.partition(".")
        bound = getattr(self._parts[part], function)
        positional = {key: value for key, value in arguments.items() if key not in _keyword_only(method.function)}
        rest = {key: value for key, value in arguments.items() if key not in positional}
        return lambda: bound(*positional.values(), **rest)


def _key(work: Callable[..., object]) -> tuple[int, str]:
    return id(getattr(work, "__self__", None)), getattr(work, "__name__", "")


@cache
def _keyword_only(function: Callable[..., object]) -> frozenset[str]:
    return frozenset(each.name for each in signature(function).parameters.values() if each.kind is each.KEYWORD_ONLY)


@cache
def method_of(name: str) -> Method:
    """Returns a method that may be asked of the decider.

    Args:
        name: the part of the store and the method, with a dot between them.

    Raises:
        DecodeError: there is none.
    """
    part, _, method = name.partition(".")
    kind, methods = ASKED.get(part, (NoneType, ()))
    if method not in methods:
        raise DecodeError(f"a call of {name!r}, which this relay does not take")
    function = getattr(kind, method)
    hints = get_type_hints(function)
    result = hints.pop("return")
    return Method(function, hints, NoneType if kind is RowStore else result)


# Values


def pack(value: object) -> object:
    """Converts a value to types of MessagePack."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if isinstance(value, tuple | list):
        return [pack(each) for each in value]
    if isinstance(value, Mapping):
        return {key: pack(each) for key, each in value.items()}
    if is_dataclass(value):
        return [pack(getattr(value, field.name)) for field in fields(value)]
    raise TypeError(f"a call has a value of the type {type(value).__name__}")


def unpack(hint: Any, value: Any, depth: int = 0) -> Any:
    """Converts a value from types of MessagePack; the reverse of ``pack``.

    Args:
        hint: the type that it must have.
        value: the value, with sequences as tuples.
        depth: how deep it is nested in others.

    Raises:
        DecodeError: it has another type.
    """
    if depth > MAX_DEPTH:
        raise DecodeError("a value of a call is nested too deep")
    if hint is Any:
        return value
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if value is None and NoneType in args:
            return None
        others = [each for each in args if each is not NoneType]
        return unpack(others[0] if len(others) == 1 else _one_of(others, value), value, depth + 1)
    if origin in (list, Sequence) or (origin is tuple and args[-1] is Ellipsis):
        found = [unpack(args[0], each, depth + 1) for each in _checked(value, tuple)]
        return tuple(found) if origin is tuple else found
    if origin in (dict, Mapping):
        return {
            unpack(args[0], key, depth + 1): unpack(args[1], each, depth + 1)
            for key, each in _checked(value, dict).items()
        }
    if origin is tuple:
        return tuple(unpack(kind, each, depth + 1) for kind, each in zip(args, _sized(value, len(args)), strict=True))
    kinds = _fields_of(hint)
    if kinds is not None:
        found = _sized(value, len(kinds))
        return hint(*(unpack(kind, each, depth + 1) for kind, each in zip(kinds, found, strict=True)))
    if hint is bool and type(value) is int and value in (0, 1):
        return value == 1  # SQLite has no booleans, only 0 and 1
    return _checked(value, hint)


def _one_of(kinds: Sequence[type[Any]], value: Any) -> type[Any]:
    if type(value) not in kinds:
        raise DecodeError(f"a value of a call is a {type(value).__name__}")
    return type(value)


def _sized(value: Any, count: int) -> Any:
    if len(_checked(value, tuple)) != count:
        raise DecodeError(f"a value of a call has {len(value)} fields, not {count}")
    return value


def _checked(value: Any, kind: type[Any]) -> Any:
    if type(value) is not kind:
        raise DecodeError(f"a value of a call is a {type(value).__name__}, not a {kind.__name__}")
    return value


@cache
def _fields_of(hint: type[Any]) -> tuple[Any, ...] | None:
    """Returns the types of the fields of a named tuple or dataclass; None for another type."""
    if is_dataclass(hint):
        names = [field.name for field in fields(hint)]
    elif isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields"):
        names = list(hint._fields)
    else:
        return None
    hints = get_type_hints(hint)
    return tuple(hints[name] for name in names)


def unpacked(data: bytes, what: str, version: int | None = None) -> tuple[Any, ...]:
    """Decodes a sequence of fields.

    Args:
        data: the sequence as MessagePack.
        what: what it should be, for the error.
        version: the version that must stand in front of the fields; None for none.

    Raises:
        DecodeError: it is no sequence, or of another version.
    """
    try:
        found = msgpack.unpackb(data, use_list=False, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise DecodeError(f"{what} that cannot be read: {error}") from None
    if not isinstance(found, tuple):
        raise DecodeError(f"{what} that cannot be read")
    if version is None:
        return found
    first, *fields = found or (None,)
    if first != version:
        raise DecodeError(f"{what} of version {first!r}, this relay reads version {version}")
    return tuple(fields)


# Outcomes

_RETURNED, _REFUSED, _FAILED = range(3)


def encode_outcome(result: object, *, is_refused: bool) -> bytes:
    """Encodes the result of a call, or the exception with which it has refused."""
    if not is_refused:
        data: bytes = msgpack.packb((_RETURNED, pack(result)))
    elif isinstance(result, StoreRefusal):
        data = msgpack.packb((_REFUSED, type(result).__name__))
    else:
        data = msgpack.packb((_FAILED, str(result)))
    return data


def decode_outcome(name: str, data: bytes) -> Any:
    """Decodes an outcome, and returns the result of the call.

    Raises:
        StoreRefusal: it has refused.
        Failed: it could not be made.
        DecodeError: that method has no such outcome.
    """
    found = unpacked(data, "an outcome of a call")
    if len(found) != 2:
        raise DecodeError("an outcome of a call that cannot be read")
    kind, value = found
    if kind == _REFUSED and value in REFUSALS:
        raise REFUSALS[value]
    if kind != _RETURNED:
        raise Failed(str(value))
    return unpack(method_of(name).result, value)
