"""The console's calls about the chat: rooms, bans, and reports of members."""

from __future__ import annotations

from clasp_relay.access.rooms import Reports, Rooms
from clasp_relay.http.admin_api import Call, Route, page

__all__ = ["room_routes"]


def room_routes(rooms: Rooms, reports: Reports) -> list[Route]:
    """Returns the routes about the chat.

    Args:
        rooms: makes the calls about rooms.
        reports: makes those about reports.
    """

    async def listed(call: Call) -> object:
        after = call.after(str)
        found, following = await rooms.page(call.search(), "" if after is None else after[0], call.limit())
        return page(found, None if following is None else [following])

    async def one(call: Call) -> object:
        return await rooms.one(call.names["room_id"])

    async def delete(call: Call) -> object:
        await rooms.delete(call.who, call.address, call.names["room_id"])
        return {}

    async def ban(call: Call) -> object:
        user_id, reason = call.text("user_id"), call.optional("reason")
        await rooms.ban(call.who, call.address, call.names["room_id"], user_id, reason)
        return {}

    async def unban(call: Call) -> object:
        await rooms.unban(call.who, call.address, call.names["room_id"], call.names["user_id"])
        return {}

    async def reported(call: Call) -> object:
        state = call.choice("state", ("open", "resolved", "all"))
        after = call.after(int, str)
        found, following = await reports.page(state, None if after is None else (after[0], after[1]), call.limit())
        return page(found, following)

    async def kept(call: Call) -> object:
        return await reports.kept(call.names["id"])

    async def resolve(call: Call) -> object:
        await reports.resolve(call.who, call.address, call.names["id"], call.optional("note"))
        return {}

    async def delete_report(call: Call) -> object:
        await reports.delete(call.who, call.address, call.names["id"])
        return {}

    return [
        Route("GET", "rooms", listed),
        Route("GET", "rooms/{room_id}", one),
        Route("DELETE", "rooms/{room_id}", delete),
        Route("POST", "rooms/{room_id}/bans", ban),
        Route("DELETE", "rooms/{room_id}/bans/{user_id}", unban),
        Route("GET", "reports", reported),
        Route("GET", "reports/{id}/kept", kept),
        Route("POST", "reports/{id}/resolve", resolve),
        Route("DELETE", "reports/{id}", delete_report),
    ]
