"""What the original app does, message by message; ``test_policy`` runs these."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.policy import Policy
from clasp_relay.access.policy.scopes import Scopes
from clasp_relay.wire.address import Pattern
from clasp_relay.wire.values import PyValue, decode_value
from tests.access.policy.world import World

ROOM_PATTERNS = ("reactions/*", "bans/*", "admin/*", "messages", "presence/*", "typing/*", "meta", "crypto/pubkey/*")
PRESENCE: PyValue = {"name": "x", "avatarColor": "#123456", "joinedAt": 1.0, "lastSeen": 1.0}


class Flows(SynchronousTestCase):
    """Flows that work under both policies."""

    name: str

    def setUp(self) -> None:
        """Starts with an empty relay."""
        self.world = World(Policy.packaged(self.name))

    def ok(self, by: str, address: str, value: PyValue) -> PyValue:
        """Asserts that a SET is accepted."""
        return self.world.set(by, address, value)

    def refused(self, by: str, address: str, value: PyValue, *, is_publish: bool = False) -> None:
        """Asserts that a rule refuses."""
        self.assertEqual(self.world.code(by, address, value, is_publish=is_publish), 403)

    def subscribes(self, by: str, *patterns: str) -> None:
        """Asserts that scopes allow SUBSCRIBEs."""
        scopes = Scopes.parse(self.world.policy.scopes_for(by))
        for pattern in patterns:
            self.assertTrue(scopes.can_subscribe(Pattern.parse(pattern)), pattern)

    def reaches(self, by: str, address: str, pattern: str) -> bool:
        """Tells whether a live message reaches a subscriber."""
        return self.world.view(by, address, pattern, is_live=True) is not None

    def create(self, by: str, room: str, meta: PyValue, entry: PyValue = None) -> None:
        """Creates a room: the registry's entry when it is public, then its meta."""
        if entry is not None:
            self.ok(by, f"/chat/registry/rooms/{room}", {**entry, "creatorId": by})
        self.ok(by, f"/chat/room/{room}/meta", meta)

    def enter(self, by: str, room: str) -> None:
        """Enters a room: every subscription before the presence."""
        self.subscribes(
            by, *(f"/chat/room/{room}/{rest}" for rest in ROOM_PATTERNS), f"/chat/room/{room}/crypto/keyex/{by}"
        )
        self.ok(by, f"/chat/room/{room}/presence/{by}", PRESENCE)

    def befriend(self) -> None:
        """Ann asks, bob accepts."""
        self.ok("ann", "/chat/requests/bob/ann", {"fromId": "ann", "fromName": "Ann"})
        self.ok("bob", "/chat/user/bob/friends/ann", {"name": "Ann"})
        self.ok("bob", "/chat/requests/ann/bob", {"type": "accepted", "fromId": "bob"})
        self.ok("bob", "/chat/requests/bob/ann", None)
        self.ok("ann", "/chat/user/ann/friends/bob", {"name": "Bob"})
        self.ok("ann", "/chat/requests/ann/bob", None)

    def page(self, by: str) -> None:
        """Mounts the chat page."""
        self.ok(by, f"/chat/user/{by}/profile", {"name": by, "userId": by})
        own = (f"/chat/user/{by}/friends/*", f"/chat/requests/{by}/*", f"/chat/user/{by}/dms/*")
        self.subscribes(by, *own, "/chat/registry/rooms/*", "/chat/registry/ns/a/b/**", "/chat/registry/ns-meta/a/**")


class CommonFlows(Flows):
    """Run under each policy by a subclass."""

    def check_public_room(self) -> None:
        """Create, join, talk, react, leave, delete."""
        room = "/chat/room/r1"
        for user in ("ann", "bob"):
            self.page(user)
        self.create("ann", "r1", {"name": "R", "type": "text", "isPublic": True}, {"name": "R", "isPublic": True})
        self.assertTrue(self.reaches("bob", "/chat/registry/rooms/r1", "/chat/registry/rooms/*"))
        for user in ("ann", "bob"):
            self.enter(user, "r1")
            self.ok(user, f"/chat/user/{user}/signingKey", {"publicKey": {}})
        self.subscribes("bob", "/chat/user/ann/signingKey")
        message = {"from": "Ann", "fromId": "sid", "userId": "ann", "text": "hi", "type": "text"}
        self.world.publish("ann", f"{room}/messages", message)
        self.world.publish("ann", f"{room}/messages", {"type": "edit", "fromId": "sid", "targetId": "m", "text": "ho"})
        self.assertTrue(self.reaches("bob", f"{room}/messages", f"{room}/messages"))
        self.ok("bob", f"{room}/typing/bob", {"name": "Bob", "timestamp": 1.0})
        self.ok("bob", f"{room}/typing/bob", None)
        self.ok("bob", f"{room}/reactions/m/👍/bob", True)
        self.ok("bob", f"{room}/presence/bob", None)
        self.ok("ann", "/chat/registry/rooms/r1", None)

    def check_moderation(self) -> None:
        """Rename, promote, kick, ban, moderate."""
        room = "/chat/room/r1"
        self.create("ann", "r1", {"name": "R", "isPublic": True}, {"isPublic": True})
        for user in ("ann", "bob", "eve"):
            self.enter(user, "r1")
        self.refused("bob", f"{room}/meta", {"name": "mine"})
        self.ok("ann", f"{room}/meta", {"name": "New", "isPublic": True, "creatorId": "ann"})
        self.ok("ann", f"{room}/admin/bob", {"role": "admin", "promotedBy": "ann"})
        self.refused("eve", f"{room}/admin/eve", {"role": "admin"})
        self.refused("eve", f"{room}/presence/bob", None)
        self.ok("bob", f"{room}/presence/eve", None)
        self.world.publish(
            "bob", f"{room}/messages", {"type": "text", "fromId": "bob", "from": "System", "text": "kicked"}
        )
        self.ok("bob", f"{room}/bans/eve", {"bannedBy": "bob", "name": "Eve"})
        self.world.publish(
            "bob", f"{room}/messages", {"type": "delete", "fromId": "bob", "targetId": "m", "isModAction": True}
        )
        self.ok("ann", f"{room}/bans/eve", None)
        self.ok("ann", f"{room}/admin/bob", None)

    def check_friends_and_dm(self) -> None:
        """A request, its acceptance, a DM room, a decline."""
        self.befriend()
        self.ok(
            "ann", "/chat/room/dm-ann-bob/meta", {"type": "dm", "isPublic": False, "dmUsers": {"ann": "A", "bob": "B"}}
        )
        self.ok("ann", "/chat/user/bob/dms/dm-ann-bob", {"fromId": "ann", "roomId": "dm-ann-bob"})
        self.subscribes("bob", "/chat/room/dm-ann-bob/meta")
        self.assertTrue(self.world.sees("bob", "/chat/room/dm-ann-bob/meta"))
        for user in ("ann", "bob"):
            self.enter(user, "dm-ann-bob")
        self.world.publish("ann", "/chat/room/dm-ann-bob/messages", {"userId": "ann", "text": "hi"})
        self.assertTrue(self.reaches("bob", "/chat/room/dm-ann-bob/messages", "/chat/room/dm-ann-bob/messages"))
        self.ok("eve", "/chat/requests/bob/eve", {"fromId": "eve"})
        self.ok("bob", "/chat/requests/bob/eve", None)
        self.refused("eve", "/chat/user/bob/dms/dm-bob-eve", {"fromId": "eve"})
        self.refused("eve", "/chat/requests/bob/ann", {"fromId": "ann"})

    def check_group(self) -> None:
        """A group with a password, a room in it, and its end, in the original's order."""
        self.ok("ann", "/chat/registry/ns-meta/team", {"description": "", "createdBy": "ann"})
        self.ok("ann", "/chat/registry/ns-meta/team/__auth", {"passwordHash": "h", "passwordSalt": "s"})
        self.ok("ann", "/chat/registry/ns/team/r1", {"name": "R", "creatorId": "ann"})
        self.create("ann", "r1", {"name": "R", "isPublic": False, "namespace": "team"})
        self.refused("eve", "/chat/registry/ns-meta/team", {"createdBy": "eve"})
        self.refused("eve", "/chat/registry/ns-meta/team/__auth", {"passwordHash": "mine"})
        self.assertFalse(self.reaches("eve", "/chat/registry/ns-meta/team/__auth", "/chat/registry/ns-meta/**"))
        self.ok("ann", "/chat/registry/ns/team/r1", None)
        self.ok("ann", "/chat/registry/ns-meta/team", None)
        self.ok("ann", "/chat/registry/ns-meta/team/__auth", None)

    def check_encrypted_room(self) -> None:
        """Keys are exchanged by those who are there."""
        room = "/chat/room/r1"
        self.create("ann", "r1", {"name": "R", "isPublic": False, "encrypted": True})
        self.ok("ann", f"{room}/crypto/pubkey/ann", {"publicKey": {}})
        self.enter("ann", "r1")
        self.enter("bob", "r1")
        self.ok("bob", f"{room}/crypto/pubkey/bob", {"publicKey": {}})
        self.assertTrue(self.reaches("ann", f"{room}/crypto/pubkey/bob", f"{room}/crypto/pubkey/*"))
        self.world.publish("ann", f"{room}/crypto/keyex/bob", {"fromId": "ann", "encryptedKey": "", "iv": ""})
        self.assertTrue(self.reaches("bob", f"{room}/crypto/keyex/bob", f"{room}/crypto/keyex/bob"))

    def check_call(self) -> None:
        """A pure video room: nobody ever writes room presence."""
        room = "/chat/room/v1/video"
        self.create("ann", "v1", {"type": "video", "isPublic": True}, {"isPublic": True})
        for user in ("ann", "bob"):
            self.subscribes(user, f"{room}/presence/*", f"{room}/signal/s-{user}")
            self.ok(user, f"{room}/presence/s-{user}", {"name": user, "audioEnabled": False})
        self.assertTrue(self.reaches("ann", f"{room}/presence/s-bob", f"{room}/presence/*"))
        offer = {"from": "s-bob", "type": "offer"}
        sent = self.world.asked("bob", f"{room}/signal/s-ann", offer, is_publish=True)
        self.assertEqual(decode_value(sent.value), {**offer, "userId": "bob"})
        # Everybody in the call can read the ids of its sessions: the stamp says whose they are.
        self.refused("bob", f"{room}/signal/s-ann", {**offer, "userId": "ann"}, is_publish=True)
        self.assertTrue(self.reaches("ann", f"{room}/signal/s-ann", f"{room}/signal/s-ann"))
        self.ok("bob", f"{room}/presence/s-bob", None)


class ChatFlows(CommonFlows):
    """The original app, and ours, under the safe policy."""

    name = "chat"

    def test_public_room(self) -> None:
        """Works; a newcomer sees messages from its presence on, not before."""
        self.check_public_room()
        self.enter("bob", "r1")
        self.refused("bob", "/chat/room/r1/reactions/m/👍", {"users": ["sid"]})
        self.assertFalse(self.reaches("eve", "/chat/room/r1/messages", "/chat/room/**"))
        self.refused("eve", "/chat/room/r1/messages", {"text": "x"}, is_publish=True)

    def test_moderation(self) -> None:
        """Works, and a ban is a ban."""
        self.check_moderation()
        self.ok("ann", "/chat/room/r1/bans/eve", {"bannedBy": "ann"})
        self.refused("eve", "/chat/room/r1/presence/eve", PRESENCE)
        self.refused("eve", "/chat/room/r1/messages", {}, is_publish=True)

    def test_friends_and_dm(self) -> None:
        """Works; nobody else sees that the two talk, nor comes in."""
        self.check_friends_and_dm()
        room = "/chat/room/dm-ann-bob"
        self.refused("eve", f"{room}/presence/eve", PRESENCE)
        for pattern in ("/chat/room/*/meta", f"{room}/meta"):
            self.assertFalse(self.world.sees("eve", f"{room}/meta", pattern))
        self.assertTrue(
            self.reaches("bob", f"{room}/messages", "/chat/room/*/messages"), "unread counts without presence"
        )

    def test_own_friend_list_opens_no_inbox(self) -> None:
        """A sender cannot vouch for itself; who was asked and accepted may write to one who is offline."""
        self.ok("eve", "/chat/user/eve/friends/bob", {"name": "Bob"})
        self.refused("eve", "/chat/user/bob/dms/dm-1", {"fromId": "eve"})
        self.refused("eve", "/chat/requests/bob/eve", {"fromId": "eve", "type": "accepted"})
        self.ok("bob", "/chat/requests/eve/bob", {"fromId": "bob"})
        self.ok("eve", "/chat/requests/bob/eve", {"fromId": "eve", "type": "accepted"})
        self.ok("eve", "/chat/requests/eve/bob", None)
        self.ok("eve", "/chat/user/bob/dms/dm-1", {"fromId": "eve"})

    def test_group(self) -> None:
        """Works at every depth; the reserved name stays reserved."""
        self.check_group()
        self.ok("ann", "/chat/registry/ns-meta/a/b/c", {"createdBy": "ann"})
        self.refused("eve", "/chat/registry/ns-meta/a/b/c/__auth", {})
        self.refused("eve", "/chat/registry/ns-meta/a/b/c", {})

    def test_encrypted_room(self) -> None:
        """Works; a stranger neither sees keys nor plants one, and nobody sends in another's name."""
        self.check_encrypted_room()
        self.refused("eve", "/chat/room/r1/crypto/keyex/bob", {"fromId": "eve"}, is_publish=True)
        self.refused("bob", "/chat/room/r1/crypto/keyex/ann", {"fromId": "ann"}, is_publish=True)
        self.assertFalse(self.reaches("eve", "/chat/room/r1/crypto/keyex/bob", "/chat/room/r1/crypto/keyex/*"))

    def test_call(self) -> None:
        """Works; a listener hears no signal that is not for it."""
        self.check_call()
        self.assertFalse(self.reaches("eve", "/chat/room/v1/video/signal/s-ann", "/chat/room/v1/video/signal/*"))
        self.refused("eve", "/chat/room/v1/video/signal/s-ann", {}, is_publish=True)
        self.refused("eve", "/chat/room/v1/video/presence/s-ann", {})

    def test_password_room(self) -> None:
        """Proof first, then presence; without one nothing is seen and nothing written."""
        room = "/chat/room/r1"
        self.create(
            "ann", "r1", {"name": "R", "isPublic": True, "passwordHash": "h", "passwordSalt": "s"}, {"isPublic": True}
        )
        self.enter("ann", "r1")
        self.assertEqual(self.world.view("bob", f"{room}/meta"), frozenset(("passwordHash",)))
        for rest in ("presence/bob", "crypto/pubkey/bob"):
            self.refused("bob", f"{room}/{rest}", PRESENCE)
        self.refused("bob", f"{room}/crypto/proof/bob", {"hash": "wrong"})
        self.ok("bob", f"{room}/crypto/proof/bob", {"hash": "h"})
        self.enter("bob", "r1")
        self.ok("bob", f"{room}/crypto/pubkey/bob", {"publicKey": {}})
        self.world.publish("ann", f"{room}/crypto/keyex/bob", {"fromId": "ann"})
        self.assertTrue(self.reaches("bob", f"{room}/crypto/keyex/bob", f"{room}/crypto/keyex/bob"))
        stored = self.ok("ann", f"{room}/meta", {"name": "New", "passwordHash": "h", "passwordSalt": "s"})
        self.assertEqual(stored["passwordHash"], "h")

    def test_second_tab_stays_inside(self) -> None:
        """When the first one leaves: its next beat comes within the grace. Without a beat nobody stays."""
        self.create("ann", "r1", {"isPublic": True})
        self.enter("bob", "r1")
        self.ok("bob", "/chat/room/r1/presence/bob", None)
        self.world.later(20)
        self.assertTrue(self.reaches("bob", "/chat/room/r1/messages", "/chat/room/r1/messages"))
        self.enter("bob", "r1")
        self.world.later(40)
        self.assertTrue(self.reaches("bob", "/chat/room/r1/messages", "/chat/room/r1/messages"))
        self.ok("bob", "/chat/room/r1/presence/bob", None)
        self.world.later(40)
        self.assertFalse(self.reaches("bob", "/chat/room/r1/messages", "/chat/room/r1/messages"))


class CompatFlows(CommonFlows):
    """The original app under its own policy: every flow works as it is."""

    name = "chat-compat"

    def test_public_room(self) -> None:
        """Live messages reach whoever subscribed."""
        self.check_public_room()
        self.ok("bob", "/chat/room/r1/reactions/m/👍", {"users": ["sid"]})
        self.assertTrue(self.reaches("eve", "/chat/room/r1/messages", "/chat/room/r1/messages"))

    def test_moderation(self) -> None:
        """What the original's buttons do works; a ban is a note, as it was."""
        self.check_moderation()
        self.ok("ann", "/chat/room/r1/bans/eve", {"bannedBy": "ann"})
        self.ok("eve", "/chat/room/r1/presence/eve", PRESENCE)

    def test_friends_and_dm(self) -> None:
        """Requests are cleared by who got them."""
        self.check_friends_and_dm()

    def test_group(self) -> None:
        """As before."""
        self.check_group()

    def test_encrypted_room(self) -> None:
        """As before."""
        self.check_encrypted_room()

    def test_call(self) -> None:
        """Works, since the room's rule is for snapshots."""
        self.check_call()

    def test_password_room(self) -> None:
        """Everybody enters, as before; a rename does not lose the password."""
        self.create("ann", "r1", {"isPublic": True, "passwordHash": "h", "passwordSalt": "s"}, {"isPublic": True})
        self.ok("bob", "/chat/room/r1/crypto/proof/bob", {"hash": "wrong"})
        self.enter("bob", "r1")
        self.assertEqual(self.world.view("ann", "/chat/room/r1/meta"), frozenset(("passwordHash", "passwordSalt")))
        stored = self.ok("ann", "/chat/room/r1/meta", {"name": "New", "isPublic": True, "creatorId": "ann"})
        self.assertEqual((stored["passwordHash"], stored["passwordSalt"]), ("h", "s"))
