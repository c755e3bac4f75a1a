"""Credentials for a TURN server."""

import hashlib
import hmac
from base64 import b64decode

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.refusals import Forbidden
from clasp_relay.access.turn_server import CREDENTIAL_S, TurnServer

NOW_S = 1_700_000_000


class TurnTests(SynchronousTestCase):
    """Who gets which."""

    def test_credentials_are_those_of_coturns_rest_form(self) -> None:
        """The name has the expiry, the password is its HMAC-SHA1 under the shared secret, in base64."""
        turn = TurnServer(["turn:a:3478", "turns:a:5349"], "s3cret", lambda _: True, lambda: NOW_S + 0.7)
        found = turn.servers_for("ann")
        self.assertEqual(found.expires_at, NOW_S + CREDENTIAL_S)
        (server,) = found.ice_servers
        self.assertEqual(server["urls"], ["turn:a:3478", "turns:a:5349"])
        self.assertEqual(server["username"], "1700000600:ann")
        expected = hmac.new(b"s3cret", b"1700000600:ann", hashlib.sha1).digest()
        self.assertEqual(b64decode(server["credential"]), expected)

    def test_only_people_in_a_call_get_them(self) -> None:
        """The relay cannot tell who else would use the server, and for what."""
        turn = TurnServer(["turn:a"], "s3cret", "ann".__eq__, lambda: NOW_S)
        self.assertEqual(len(turn.servers_for("ann").ice_servers), 1)
        error = self.assertRaises(Forbidden, turn.servers_for, "bob")
        self.assertIn("Join a call first", error.sentence)

    def test_without_a_server_the_list_is_empty(self) -> None:
        """For everybody: a client then connects directly."""
        self.assertEqual(TurnServer(now_s=lambda: NOW_S).servers_for("bob").ice_servers, ())
