"""Tests of clasp_relay.core.rights.port: the open mode."""

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.core.rights.memory import Reads
from clasp_relay.core.rights.port import OpenPermissions, Permissions
from clasp_relay.core.session.sessions import ANYBODY
from clasp_relay.core.state.params import ParamLimits, Params
from clasp_relay.wire.address import Pattern
from tests.core.world import memory_session, value


class OpenPermissionsTests(SynchronousTestCase):
    def test_everybody_may_do_and_see_everything(self) -> None:
        """With any token and with none."""
        allowed: Permissions = OpenPermissions()
        state = Params(ParamLimits())
        self.assertEqual((allowed.is_open, allowed.hello_snapshot, allowed.tells_live_apart), (True, True, False))
        for token in ("", "anything"):
            self.assertIs(allowed.admit(token, memory_session()), ANYBODY)
        self.assertIsNone(allowed.check_write(ANYBODY, "/a", value(1), None, state))
        allowed.check_publish(ANYBODY, "/a", None, state)
        allowed.check_get(ANYBODY, "/a")
        allowed.check_subscribe(ANYBODY, Pattern.parse("/**"))
        allowed.check_announce(ANYBODY, "/a")
        allowed.check_announce_all(ANYBODY, Pattern.parse("/**"))
        self.assertTrue(allowed.can_read(ANYBODY, "/a"))
        self.assertTrue(allowed.sees_all(ANYBODY, "/a", Reads()))
        self.assertIsNone(allowed.visibility_rule("/a", True))
        self.assertEqual(allowed.redact(value({"k": 1}), frozenset("k")), value({"k": 1}))
        self.assertEqual(allowed.catch_ups("/a"), ())
        self.assertIsNone(allowed.stamp_of("/a", value(1)))
        self.assertTrue(allowed.is_current(ANYBODY))
        self.assertEqual(allowed.vouch(ANYBODY), "")
        self.assertIs(allowed.readmit("anybody", b"", ""), ANYBODY)
        self.assertEqual(len(allowed.memory), 0)

    def test_identity_is_itself_alone(self) -> None:
        """Two identities with equal fields are not equal."""
        self.assertEqual((ANYBODY.subject, ANYBODY.token), ("", b""))
