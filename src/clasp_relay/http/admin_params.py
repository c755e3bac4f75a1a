"""The console's calls about params, their changes and history; writes have an administrator's rights."""

from __future__ import annotations

from typing import Any

from clasp_relay.access.refusals import BadInput, Missing
from clasp_relay.access.rooms import raise_refusal
from clasp_relay.core.records import Param
from clasp_relay.core.relay import Relay
from clasp_relay.http.admin_api import TAKEN, Call, Route, page
from clasp_relay.http.admin_state import Watched
from clasp_relay.wire.address import Pattern, check_address
from clasp_relay.wire.constants import ValueType
from clasp_relay.wire.json_values import param_to_json, value_from_json
from clasp_relay.wire.messages import NULL, Bundle, Message, Publish, Set

__all__ = ["reading_routes", "writing_routes"]

_TYPES = {
    ValueType.NULL: "null",
    ValueType.BOOL: "bool",
    **dict.fromkeys((ValueType.I8, ValueType.I16, ValueType.I32, ValueType.I64), "int"),
    **dict.fromkeys((ValueType.F32, ValueType.F64), "float"),
    ValueType.STRING: "string",
    ValueType.BYTES: "bytes",
    ValueType.ARRAY: "array",
    ValueType.MAP: "map",
}
"""The console's names of the types of values."""

MAX_PAGE_BYTES = 128 * 1024
"""Size of the values on a page of params."""


def reading_routes(watched: Watched) -> list[Route]:
    """Returns the routes by which the console reads params, changes and history.

    Args:
        watched: the parts of the relay.
    """
    relay = watched.relay

    async def listed(call: Call) -> object:
        pattern, limit, after = Pattern.parse(call.query("pattern", "/**")), call.limit(), call.after(str)
        behind = "" if after is None else after[0]
        found: list[Param] = []

        def look(param: Param) -> None:
            if param.address > behind:
                found.append(param)
                if len(found) > 4 * limit:
                    found.sort(key=_address_of)
                    del found[limit + 1 :]

        await watched.search.each(pattern, look)
        found.sort(key=_address_of)
        shown: list[dict[str, Any]] = []
        size_bytes = 0
        for param in found[:limit]:
            size_bytes += len(param.value)
            if shown and size_bytes > MAX_PAGE_BYTES:
                break
            shown.append(_param(relay, param))
        return page(shown, [shown[-1]["address"]] if shown and len(shown) < len(found) else None)

    async def one(call: Call) -> object:
        param = relay.params.get(call.query("address"))
        if param is None:
            raise Missing("Nothing is set there.")
        return _param(relay, param)

    async def history(call: Call) -> object:
        return await watched.journal.handle("query", call.request.args, call.who.token, call.address)

    async def stream(call: Call) -> object:
        if call.request.method == b"HEAD":
            raise BadInput("A stream has no end, so there is nothing to say about it without it.")
        watched.streams.open(call.request, call.address, call.who.token)
        return TAKEN

    return [
        Route("GET", "params", listed),
        Route("GET", "param", one),
        Route("GET", "history", history),
        Route("GET", "stream", stream),
    ]


def writing_routes(watched: Watched) -> list[Route]:
    """Returns the routes by which the console writes params and publishes events.

    Args:
        watched: the parts of the relay.
    """

    async def write(call: Call, message: Message, action: str, address: str) -> object:
        entry = watched.audit.entry(action, call.who.actor(call.address), address)
        await watched.audit.record(entry)
        told = await watched.sessions.ask(call.who.token, call.address, message)
        if "error" in told:
            await watched.audit.record(entry._replace(outcome="Refused", detail={"error": told["error"]}))
        raise_refusal(told)
        return {"revision": told.get("revision")}

    async def put(call: Call) -> object:
        body, address = call.body(), call.text("address")
        check_address(address)
        if "value" not in body:
            raise BadInput("«value» is missing.")
        value = value_from_json(body["value"], address)
        ttl = _optional_whole(body, "ttl", 0x7FFF_FFFF)
        message = Set(address, value, _optional_whole(body, "revision", 0xFFFF_FFFF), ttl=ttl)
        return await write(call, message, "admin.param.set", address)

    async def delete(call: Call) -> object:
        address = call.query("address")
        check_address(address)
        return await write(call, Set(address, NULL), "admin.param.delete", address)

    async def publish(call: Call) -> object:
        body, address = call.body(), call.text("address")
        check_address(address)
        value = value_from_json(body["value"], address) if "value" in body else None
        # A bundle, since it has an answer; a PUBLISH alone has none.
        return await write(call, Bundle((Publish(address, value=value),)), "admin.event", address)

    return [
        Route("PUT", "param", put),
        Route("DELETE", "param", delete),
        Route("POST", "events", publish),
    ]


def _param(relay: Relay, param: Param) -> dict[str, Any]:
    due_us = relay.params.ends_us(param.address)
    return {
        **param_to_json(param),
        "type": _TYPES[ValueType(param.value[0])],
        "subject": param.subject or None,
        "expires_at": None if due_us is None else due_us / 1e6,
        "locked_by": relay.params.holder(param.address),
        "bytes": len(param.value),
    }


def _optional_whole(body: Any, name: str, most: int) -> int | None:
    given = body.get(name)
    if given is not None and (type(given) is not int or not 0 <= given <= most):
        raise BadInput(f"«{name}» is no whole number from 0 to {most}.")
    return given if given is None else int(given)


def _address_of(param: Param) -> str:
    return param.address
