"""Who may write and see what in the chat: one scene, and a row for every rule that holds in it.

In a row ``{me}`` stands for whoever acts. Everybody of ``EVERYBODY`` who is not listed must be refused.
"""

from __future__ import annotations

from typing import NamedTuple

from clasp_relay.access.policy import Policy
from clasp_relay.wire.values import PyValue
from tests.access.policy.world import World

EVERYBODY = "carol adam mia gus ben pat dora dan eve"
"""creator, admin, member, outsider, banned, member with an old password, two friends with a DM room, a snoop"""

ANYBODY = EVERYBODY
NOBODY = ""


def scene(name: str) -> World:
    """Makes the rooms of the tables.

    open: carol's; adam is its admin, ben banned, mia present. lock: the same with a password. priv: private.
    dm: dora's and dan's; eve had put herself there before rules held. bare: a room without meta.
    """
    world = World(Policy.packaged(name))
    room = "/chat/room/"
    world.put(f"{room}open/meta", {"name": "Open", "isPublic": True, "creatorId": "carol"}, "carol")
    world.put(f"{room}lock/meta", {"passwordHash": "h", "passwordSalt": "s", "creatorId": "carol"}, "carol")
    world.put(f"{room}priv/meta", {"isPublic": False, "creatorId": "carol"}, "carol")
    world.put(f"{room}dm/meta", {"isPublic": False, "dmUsers": {"dora": "D", "dan": "N"}, "creatorId": "dora"}, "dora")
    for place, present in (
        ("open", "adam mia ben"),
        ("lock", "mia pat ben"),
        ("priv", "mia"),
        ("dm", "eve"),
        ("bare", "mia ben"),
    ):
        for user in present.split():
            world.put(f"{room}{place}/presence/{user}", {"name": user}, user)
    for place in ("open", "lock"):
        world.put(f"{room}{place}/admin/adam", {"role": "admin"}, "carol")
    for place in ("open", "lock", "bare"):
        world.put(f"{room}{place}/bans/ben", {"bannedBy": "carol"}, "carol")
    for user, proof in (("mia", "h"), ("gus", "h"), ("ben", "h"), ("pat", "old")):
        world.put(f"{room}lock/crypto/proof/{user}", {"hash": proof}, user)
    world.put(f"{room}open/video/presence/s-mia", {"name": "mia"}, "mia")
    world.put(f"{room}open/video/presence/s-ben", {"name": "ben"}, "ben")
    world.put(f"{room}dm/video/presence/s-dan", {"name": "dan"}, "dan")
    world.put("/chat/registry/rooms/open", {"creatorId": "carol"}, "carol")
    world.put("/chat/registry/rooms/gone", {"creatorId": "gus"}, "gus")
    world.put("/chat/registry/ns/a/b/open", {"creatorId": "mia"}, "mia")
    world.put("/chat/registry/ns-meta/a", {"createdBy": "gus"}, "gus")
    world.put("/chat/registry/ns-meta/a/b", {"createdBy": "mia"}, "mia")
    world.put("/chat/registry/ns-meta/a/b/__auth", {"passwordHash": "h"}, "mia")
    world.put("/chat/registry/ns-meta/left/__auth", {"passwordHash": "h"}, "pat")
    world.put("/chat/user/mia/friends/dora", {"name": "Dora"}, "mia")
    world.put("/chat/requests/mia/dan", {"type": "accepted", "fromId": "dan"}, "dan")
    world.put("/chat/user/mia/dms/dm-1", {"fromId": "dora"}, "dora")
    world.put("/chat/requests/mia/gus", {"fromId": "gus"}, "gus")
    world.put(f"{room}away/members/gus", {"name": "gus"}, "gus")
    world.put("/chat/reports/old", {"roomId": "open", "userId": "gus"}, "gus")
    return world


class Row(NamedTuple):
    """A write, and who may make it."""

    address: str
    value: PyValue
    who: str
    is_publish: bool = False


class Sight(NamedTuple):
    """A value, and who sees it; ``pattern`` as in ``World.verdict``."""

    address: str
    who: str
    pattern: str | None = None


MAP: PyValue = {"a": 1}
OPEN, LOCK, PRIV, DM, BARE = (f"/chat/room/{name}" for name in ("open", "lock", "priv", "dm", "bare"))
IN_OPEN, IN_LOCK, IN_PRIV, IN_DM, IN_BARE = "carol adam mia", "carol mia", "carol mia", "dora dan", "mia"
MAY_ENTER = [
    (OPEN, EVERYBODY.replace(" ben", "")),
    (LOCK, "carol mia gus"),
    (PRIV, EVERYBODY),
    (DM, IN_DM),
    (BARE, EVERYBODY.replace(" ben", "")),
    ("/chat/room/new", EVERYBODY),
]
INSIDE = [(OPEN, IN_OPEN), (LOCK, IN_LOCK), (PRIV, IN_PRIV), (DM, IN_DM), (BARE, IN_BARE), ("/chat/room/new", NOBODY)]

OWN_PLACES = ("account", "devices/d1", "sync/profile", "backup/0", "link/l1")
"""Where the app keeps an account's devices, what they share, and how a new one gets the keys."""

DEVICE_SIGHTS = [
    Sight("/chat/user/mia/account", ANYBODY, "/chat/user/*/account"),
    Sight("/chat/user/mia/devices/d1", ANYBODY, "/chat/user/*/devices/*"),
    Sight("/chat/user/mia/sync/profile", "mia", "/chat/user/mia/sync/*"),
    Sight("/chat/user/mia/backup/0", "mia"),
    Sight("/chat/user/mia/link/l1", "mia", "/chat/user/mia/link/*"),
]
"""Anybody verifies what somebody signed; the rest is private."""

IN_REPORTED = "adam mia ben"
REPORTS = [
    Row("/chat/reports/new", {"roomId": "open", "message": MAP}, IN_REPORTED),
    Row("/chat/reports/new", {"roomId": "open", "userId": "mia"}, IN_REPORTED),
    Row("/chat/reports/new", {"roomId": "away"}, "gus"),
    *[Row("/chat/reports/new", {"roomId": room}, NOBODY) for room in ("none", "", "*", "**", "open/presence/mia/..")],
    Row("/chat/reports/new", {"roomId": 1}, NOBODY),
    Row("/chat/reports/new", MAP, NOBODY),
    Row("/chat/reports/new", "text", NOBODY),
    Row("/chat/reports/new", None, NOBODY),
    Row("/chat/reports/new", {"roomId": "open"}, NOBODY, is_publish=True),
    Row("/chat/reports/new/more", {"roomId": "open"}, NOBODY),
    Row("/chat/reports/old", {"roomId": "open"}, NOBODY),
    Row("/chat/reports/old", None, NOBODY),
]
"""Who is or was in a room reports, once, also when banned; the relay sets who it was, whatever the value says."""

REPORT_SIGHTS = [Sight("/chat/reports/old", NOBODY), Sight("/chat/reports/old", NOBODY, "/chat/reports/*")]

WRITES: list[Row] = [
    *REPORTS,
    # meta
    *[Row(f"{room}/meta", MAP, "carol") for room in (OPEN, LOCK, PRIV)],
    Row(f"{DM}/meta", {"dmUsers": {"{me}": "x", "dan": "N"}}, "dora"),
    Row(f"{DM}/meta", {"dmUsers": {"dan": "N"}}, NOBODY),
    Row("/chat/room/new/meta", MAP, ANYBODY),
    Row("/chat/room/new/meta", {"dmUsers": {"dora": "D", "dan": "N"}}, "dora dan"),
    Row("/chat/room/new/meta", {"dmUsers": ["dora", "dan"]}, "dora dan"),
    Row("/chat/room/new/meta", {"dmUsers": "dora"}, NOBODY),
    Row("/chat/room/dm-dan-dora/meta", {"dmUsers": {"{me}": "x", "dora": "D"}}, "dan"),
    Row("/chat/room/new/meta", None, NOBODY),
    Row("/chat/room/new/meta", "text", NOBODY),
    Row(f"{OPEN}/meta", None, "carol"),
    Row(f"{OPEN}/meta", [], NOBODY),
    Row("/chat/room/new/meta", MAP, NOBODY, is_publish=True),
    # admin, bans
    *[Row(f"{room}/admin/mia", value, "carol") for room in (OPEN, LOCK) for value in (MAP, None)],
    Row(f"{BARE}/admin/mia", MAP, NOBODY),
    *[Row(f"{room}/bans/mia", value, "carol adam") for room in (OPEN, LOCK) for value in (MAP, None)],
    Row(f"{OPEN}/bans/carol", MAP, NOBODY),
    Row(f"{OPEN}/bans/carol", None, "carol adam"),
    Row(f"{BARE}/bans/mia", MAP, NOBODY),
    # presence
    *[Row(f"{room}/presence/{{me}}", MAP, who) for room, who in MAY_ENTER],
    *[Row(f"{room}/presence/{{me}}", None, ANYBODY) for room, _ in MAY_ENTER],
    Row(f"{OPEN}/presence/other", None, "carol adam"),
    Row(f"{OPEN}/presence/other", MAP, NOBODY),
    Row(f"{PRIV}/presence/other", None, "carol"),
    # the list of the original app: nobody's to write, the creator's and the admins' to remove
    *[
        Row(f"{OPEN}/reactions/{rest}", value, who)
        for rest in ("m1/👍", "m1", "m1/x/mia/more")
        for value, who in ((MAP, NOBODY), (None, "carol adam"))
    ],
    # what takes being inside
    *[
        Row(f"{room}/{rest}", MAP, who, is_publish)
        for room, who in INSIDE
        for rest, is_publish in (
            ("messages", True),
            ("typing/{me}", False),
            ("reactions/m1/👍/{me}", False),
            ("receipts/{me}", False),
            ("history/page/1", True),
            ("members/{me}", False),
        )
    ],
    *[Row(f"{room}/typing/{{me}}", None, ANYBODY) for room, _ in INSIDE],
    *[Row(f"{OPEN}/{rest}/other", MAP, NOBODY) for rest in ("typing", "receipts", "members")],
    Row(f"{OPEN}/messages", {"userId": "{me}"}, IN_OPEN, is_publish=True),
    Row(f"{OPEN}/messages", {"userId": "mia"}, "mia", is_publish=True),
    # crypto
    *[Row(f"{room}/crypto/pubkey/{{me}}", MAP, who) for room, who in MAY_ENTER],
    Row(f"{OPEN}/crypto/pubkey/other", MAP, NOBODY),
    *[Row(f"{room}/crypto/keyex/mia", {"fromId": "{me}"}, who, is_publish=True) for room, who in INSIDE],
    Row(f"{OPEN}/crypto/keyex/mia", {"fromId": "mia"}, "mia", is_publish=True),
    Row(f"{OPEN}/crypto/keyex/mia", MAP, NOBODY, is_publish=True),
    Row(f"{LOCK}/crypto/proof/{{me}}", {"hash": "h"}, ANYBODY),
    Row(f"{LOCK}/crypto/proof/{{me}}", {"hash": "old"}, NOBODY),
    Row(f"{LOCK}/crypto/proof/{{me}}", MAP, NOBODY),
    Row(f"{OPEN}/crypto/proof/{{me}}", {"hash": "h"}, NOBODY),
    Row(f"{LOCK}/crypto/proof/other", {"hash": "h"}, NOBODY),
    # video
    *[Row(f"{room}/video/presence/s-{{me}}-new", MAP, who) for room, who in MAY_ENTER],
    Row(f"{OPEN}/video/presence/s-mia", MAP, "mia"),
    Row(f"{OPEN}/video/presence/s-mia", None, "mia carol adam"),
    Row(f"{OPEN}/video/presence/s-ben", MAP, NOBODY),
    Row(f"{OPEN}/video/presence/s-ben", None, "ben carol adam"),
    Row(f"{OPEN}/video/presence/s-gus-2", MAP, "gus"),
    Row(f"{OPEN}/video/presence/new", MAP, NOBODY),
    Row(f"{OPEN}/video/signal/s-x", MAP, "mia", is_publish=True),
    Row(f"{DM}/video/signal/s-x", MAP, "dan", is_publish=True),
    Row(f"{LOCK}/video/signal/s-x", MAP, NOBODY, is_publish=True),
    # registry
    Row("/chat/registry/rooms/new", MAP, ANYBODY),
    Row("/chat/registry/rooms/new", "text", NOBODY),
    Row("/chat/registry/rooms/open", MAP, "carol adam"),
    Row("/chat/registry/rooms/open", None, "carol adam"),
    Row("/chat/registry/rooms/gone", MAP, "gus"),
    Row("/chat/registry/rooms/priv", MAP, "carol"),
    Row("/chat/registry/ns/a/new", MAP, ANYBODY),
    Row("/chat/registry/ns/a/b/c/new", MAP, ANYBODY),
    Row("/chat/registry/ns/a/b/open", None, "mia carol adam"),
    Row("/chat/registry/ns/a/lock", MAP, "carol adam"),
    Row("/chat/registry/ns/open", MAP, NOBODY),
    Row("/chat/registry/ns-meta/new", MAP, ANYBODY),
    Row("/chat/registry/ns-meta/new/deep/er", MAP, ANYBODY),
    Row("/chat/registry/ns-meta/a", MAP, "gus"),
    Row("/chat/registry/ns-meta/a/b", None, "mia"),
    Row("/chat/registry/ns-meta/a/b", 7, NOBODY),
    Row("/chat/registry/ns-meta/a/__auth", MAP, "gus"),
    Row("/chat/registry/ns-meta/a/b/__auth", MAP, "mia"),
    Row("/chat/registry/ns-meta/a/b/__auth", None, "mia"),
    Row("/chat/registry/ns-meta/left/__auth", None, "pat"),
    Row("/chat/registry/ns-meta/left/__auth", MAP, NOBODY),
    Row("/chat/registry/ns-meta/new/__auth", MAP, NOBODY),
    Row("/chat/registry/ns-meta/__auth", MAP, NOBODY),
    # people
    Row("/chat/user/mia/dms/dm-2", {"fromId": "{me}"}, "dora dan"),
    Row("/chat/user/mia/dms/dm-2", {"fromId": "dora"}, "dora"),
    Row("/chat/user/mia/dms/dm-2", MAP, NOBODY),
    Row("/chat/user/mia/dms/dm-1", None, "mia dora"),
    Row("/chat/user/mia/profile", MAP, "mia"),
    Row("/chat/user/mia/friends/gus", MAP, "mia"),
    *[Row(f"/chat/user/mia/{place}", MAP, "mia") for place in OWN_PLACES],
    Row("/chat/user/mia/x/y/z", MAP, "mia"),
    Row("/chat/requests/eve/{me}", {"fromId": "{me}"}, ANYBODY),
    Row("/chat/requests/eve/{me}", {"fromId": "mia"}, "mia"),
    Row("/chat/requests/eve/mia", {"fromId": "{me}"}, "mia"),
    Row("/chat/requests/gus/{me}", {"fromId": "{me}", "type": "accepted"}, "mia"),
    Row("/chat/requests/mia/gus", None, "mia gus"),
    Row("/chat/requests/mia/gus", "text", NOBODY),
    Row("/chat/requests/mia", MAP, NOBODY),
    Row("/chat/requests/mia/{me}/x", {"fromId": "{me}"}, NOBODY),
    # what no row names
    Row(f"{OPEN}/video/other", MAP, NOBODY),
    Row(f"{OPEN}/video/presence/a/b", MAP, NOBODY),
    Row(f"{OPEN}/elsewhere", MAP, NOBODY),
    Row("/chat/registry/rooms", MAP, NOBODY),
    Row("/elsewhere", MAP, NOBODY),
]
"""The safe policy: what is written, and who may."""

SEEN_IN_OPEN = ("presence/mia", "typing/mia", "admin/adam", "video/presence/s-mia", "meta")

SIGHTS: list[Sight] = [
    *REPORT_SIGHTS,
    Sight("/chat/registry/ns-meta/a/b/__auth", NOBODY),
    Sight("/chat/registry/ns-meta/a/b/__auth", NOBODY, "/chat/registry/ns-meta/**"),
    Sight("/chat/registry/ns-meta/a/b", ANYBODY, "/chat/registry/ns-meta/**"),
    Sight("/chat/registry/rooms/open", ANYBODY, "/chat/registry/rooms/*"),
    Sight("/chat/user/mia/profile", ANYBODY),
    Sight("/chat/user/mia/signingKey", ANYBODY, "/chat/user/*/signingKey"),
    *DEVICE_SIGHTS,
    Sight("/chat/user/mia/friends/dora", "mia"),
    Sight("/chat/user/mia/dms/dm-1", "mia", "/chat/user/mia/dms/*"),
    Sight("/chat/requests/mia/gus", "mia", "/chat/requests/mia/*"),
    # a public room, with and without a password: its surface
    *[
        Sight(f"{room}/{rest}", ANYBODY, by)
        for room in (OPEN, LOCK, BARE)
        for rest in SEEN_IN_OPEN
        for by in (None, "/chat/room/**", "hello")
    ],
    # a private one: whoever knows its id
    *[Sight(f"{PRIV}/{rest}", ANYBODY, by) for rest in SEEN_IN_OPEN for by in (None, "/chat/room/priv/**")],
    *[
        Sight(f"{PRIV}/{rest}", IN_PRIV, by)
        for rest in SEEN_IN_OPEN
        for by in ("/chat/room/**", "/chat/room/*/**", "hello")
    ],
    # a DM room: its users
    *[
        Sight(f"{DM}/{rest}", IN_DM, by)
        for rest in (
            *SEEN_IN_OPEN,
            "messages",
            "reactions/m1/x",
            "crypto/pubkey/dan",
            "video/signal/s-dan",
            "bans/other",
        )
        for by in (None, "/chat/room/dm/**", "/chat/room/**", "hello")
    ],
    # what takes being inside
    *[
        Sight(f"{room}/{rest}", who, by)
        for room, who in INSIDE
        for rest in (
            "messages",
            "reactions/m1/x",
            "receipts/mia",
            "history/x",
            "members/mia",
            "crypto/pubkey/mia",
            "crypto/keyex/mia",
            "crypto/proof/mia",
            "other",
        )
        for by in (None, "/chat/room/**")
    ],
    Sight(f"{OPEN}/bans/ben", f"{IN_OPEN} ben"),
    Sight(f"{OPEN}/bans/ben", f"{IN_OPEN} ben", "/chat/room/open/bans/*"),
    Sight(f"{OPEN}/bans/gus", f"{IN_OPEN} gus"),
    Sight(f"{OPEN}/video/signal/s-mia", "mia"),
    Sight(f"{OPEN}/video/signal/s-mia", "mia", "/chat/room/open/video/signal/*"),
    Sight(f"{OPEN}/video/signal/s-nobody", NOBODY),
]
"""The safe policy: what is shown, and to whom."""

COMPAT_WRITES: list[Row] = [
    *REPORTS,
    Row(f"{OPEN}/meta", MAP, "carol"),
    Row(f"{OPEN}/meta", None, "carol"),
    Row("/chat/room/new/meta", MAP, ANYBODY),
    Row("/chat/room/new/meta", None, NOBODY),
    Row("/chat/room/new/meta", {"dmUsers": {"dora": "D", "dan": "N"}}, ANYBODY),
    Row("/chat/room/dm-dan-dora/meta", {"dmUsers": {"{me}": "x", "dora": "D"}}, "dan"),
    Row(f"{OPEN}/admin/mia", MAP, "carol"),
    Row(f"{BARE}/admin/mia", MAP, ANYBODY),
    Row(f"{OPEN}/bans/mia", MAP, "carol adam"),
    Row(f"{BARE}/bans/mia", MAP, NOBODY),
    *[Row(f"{room}/presence/{{me}}", value, ANYBODY) for room in (OPEN, LOCK, DM) for value in (MAP, None)],
    Row(f"{OPEN}/presence/other", None, "carol adam"),
    Row(f"{OPEN}/presence/other", MAP, NOBODY),
    *[Row(f"{room}/messages", {"userId": "{me}"}, ANYBODY, is_publish=True) for room in (OPEN, LOCK, DM)],
    *[Row(f"{room}/messages", {"userId": "mia"}, "mia", is_publish=True) for room in (OPEN, LOCK, DM)],
    *[Row(f"{room}/messages", MAP, ANYBODY, is_publish=True) for room in (OPEN, LOCK, DM)],
    Row(f"{OPEN}/typing/{{me}}", MAP, ANYBODY),
    Row(f"{OPEN}/reactions/m1/x/{{me}}", MAP, ANYBODY),
    Row(f"{OPEN}/reactions/m1/x/other", MAP, NOBODY),
    Row(f"{OPEN}/reactions/m1/x/other", None, "carol adam"),
    Row(f"{OPEN}/typing/other", MAP, NOBODY),
    Row(f"{OPEN}/reactions/m1/x", MAP, ANYBODY),
    Row(f"{OPEN}/video/presence/s-mia", MAP, "mia"),
    Row(f"{OPEN}/video/presence/s-mia", None, "mia carol adam"),
    Row(f"{OPEN}/video/presence/s-gus-2", MAP, "gus"),
    Row(f"{OPEN}/video/presence/s-ben", MAP, NOBODY),
    Row(f"{OPEN}/crypto/keyex/mia", MAP, ANYBODY, is_publish=True),
    Row(f"{LOCK}/crypto/proof/{{me}}", {"hash": "old"}, ANYBODY),
    Row("/chat/registry/rooms/open", MAP, ANYBODY),
    Row("/chat/registry/ns/a/b/open", None, ANYBODY),
    Row("/chat/registry/ns-meta/a", MAP, "gus"),
    Row("/chat/registry/ns-meta/a/__auth", MAP, "gus"),
    Row("/chat/registry/ns-meta/a/b", MAP, ANYBODY),
    Row("/chat/user/mia/dms/dm-2", {"fromId": "{me}"}, "dora"),
    Row("/chat/user/mia/dms/dm-1", None, ANYBODY),
    Row("/chat/user/mia/profile", MAP, "mia"),
    *[Row(f"/chat/user/mia/{place}", MAP, "mia") for place in OWN_PLACES],
    Row("/chat/requests/eve/{me}", {"fromId": "{me}"}, ANYBODY),
    Row("/chat/requests/eve/{me}", {"fromId": "mia"}, "mia"),
    Row("/chat/requests/eve/{me}", {"fromId": "{me}", "type": "accepted"}, ANYBODY),
    Row("/chat/requests/mia/gus", None, "mia gus"),
    Row("/chat/requests/mia/{me}/x", {"fromId": "{me}"}, NOBODY),
]
"""The policy of the original app, where it differs or is as today."""

PRESENT_IN_OPEN = "adam mia ben"

COMPAT_SIGHTS: list[Sight] = [
    *REPORT_SIGHTS,
    Sight("/chat/registry/ns-meta/a/b/__auth", NOBODY, "/chat/registry/ns-meta/**"),
    Sight("/chat/user/mia/profile", ANYBODY),
    Sight("/chat/user/mia/signingKey", ANYBODY, "/chat/user/mia/signingKey"),
    *DEVICE_SIGHTS,
    Sight("/chat/user/mia/friends/dora", "mia"),
    Sight("/chat/requests/mia/gus", "mia"),
    *[
        Sight(f"{room}/{rest}", ANYBODY, by)
        for room in (OPEN, PRIV, DM)
        for rest in ("meta", "presence/mia", "typing/x")
        for by in (None, "/chat/room/**", "hello")
    ],
    *[
        Sight(f"{OPEN}/{rest}", PRESENT_IN_OPEN, by)
        for rest in ("reactions/m1/x", "bans/ben", "crypto/pubkey/mia", "video/presence/s-mia")
        for by in (None, "/chat/room/**", "hello")
    ],
]
"""Likewise, in snapshots."""


PUBLISHED = ("/messages", "/keyex/mia", "/signal/s-x")
"""How addresses end at which something is published."""

NAMED = [
    ("/chat/room/open/messages", "mia", "userId", "mia"),
    ("/chat/room/open/typing/mia", "mia", "userId", "mia"),
    ("/chat/room/open/receipts/mia", "mia", "userId", "mia"),
    ("/chat/room/open/history/page/1", "mia", "userId", "mia"),
    ("/chat/room/open/video/presence/s-mia", "mia", "userId", "mia"),
    ("/chat/room/open/video/signal/s-x", "mia", "userId", "mia"),
    ("/chat/room/open/crypto/keyex/mia", "mia", "fromId", "mia"),
    ("/chat/room/open/presence/mia", "mia", "account", False),
    ("/chat/room/open/admin/mia", "carol", "promotedBy", "carol"),
    ("/chat/room/open/bans/mia", "carol", "bannedBy", "carol"),
    ("/chat/room/new/meta", "mia", "creatorId", "mia"),
    ("/chat/room/new/meta", "mia", "creatorName", "mia's name"),
    ("/chat/room/open/meta", "carol", "creatorName", "carol's name"),
    ("/chat/registry/rooms/new", "mia", "creatorId", "mia"),
    ("/chat/registry/rooms/new", "mia", "creatorName", "mia's name"),
    ("/chat/registry/ns/a/new", "mia", "creatorId", "mia"),
    ("/chat/registry/ns/a/new", "mia", "creatorName", "mia's name"),
    ("/chat/registry/ns-meta/new", "mia", "createdBy", "mia"),
    ("/chat/registry/ns-meta/new", "mia", "creatorName", "mia's name"),
    ("/chat/user/mia/dms/dm-2", "dora", "fromId", "dora"),
    ("/chat/user/mia/dms/dm-2", "dora", "fromName", "dora's name"),
    ("/chat/requests/eve/dora", "dora", "fromId", "dora"),
    ("/chat/requests/eve/dora", "dora", "fromName", "dora's name"),
    ("/chat/reports/new", "mia", "userId", "mia"),
]
"""Address, writer, a field that states somebody's id or name, and what it says then, under both policies.

That is all of them but a name that its own user writes at an address with its id (a profile, a presence, a typing mark,
what a message is ``from``), and the names in ``dmUsers``, which the app shows only where it knows none itself.
"""
