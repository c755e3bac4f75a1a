"""The relay put together: each setting reaches the part that it is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.permissions import TokenPermissions
from clasp_relay.access.policy import Policy
from clasp_relay.assembly.lifecycle import RelayService
from clasp_relay.core.handlers import HANDLERS
from clasp_relay.core.ports import ImmediateLog
from clasp_relay.core.relay import Relay
from clasp_relay.errors import CloseCode, ErrorCode, StartError
from clasp_relay.service import BURST_FACTOR, MESSAGES_PER_SECOND, _decider, make_service
from clasp_relay.settings import Settings
from clasp_relay.wire.clasp import ClaspCodec
from clasp_relay.wire.messages import Error, Set
from clasp_relay.wire.values import encode_value
from tests.access.test_permissions import AuthWorld
from tests.core.world import MemoryFanOut, World
from tests.machine import Machine, Wire, live, say


class MakeServiceTests(SynchronousTestCase):
    def service(self, **settings: Any) -> RelayService:
        """Returns a relay that is not started."""
        given: dict[str, Any] = {"auth_port": 0, "data_dir": Path(self.mktemp()), "durability": "snapshot"} | settings
        return make_service(Settings(**given), Machine())

    def test_service_takes_the_limits_that_it_is_told(self) -> None:
        """Each setting reaches the part that it is about."""
        service = self.service(
            max_params=5, max_state_bytes=6, param_ttl_s=7, max_sessions=8, name="N", outbox_bytes=70_000
        )
        params, limits = service.relay.options.params, service.factory.limits
        self.assertEqual((params.max_params, params.max_state_bytes, params.default_ttl_s), (5, 6, 7))
        self.assertEqual((limits.max_sessions, limits.outbox_bytes, service.relay.options.name), (8, 70_000, "N"))

    def test_relay_lets_everybody_in_in_open_mode_only(self) -> None:
        """With accounts a HELLO without a token ends, and the close reason says why."""
        for auth_port, is_live in ((0, True), (7350, False)):
            with self.subTest(auth_port=auth_port):
                session = live(self.service(auth_port=auth_port))
                self.assertEqual(session.is_live, is_live)
                assert isinstance(session.outbox, Wire)
                if not is_live:
                    assert session.outbox.closed is not None
                    self.assertEqual(session.outbox.closed[0], CloseCode.POLICY_VIOLATION)
                    self.assertIn("token", session.outbox.closed[1])

    def test_sessions_of_one_ipv6_network_take_turns_together(self) -> None:
        """With accounts, and in open mode, where their address counts as nothing; others have turns of their own."""
        for auth_port in (0, 7350):
            with self.subTest(auth_port=auth_port):
                relay = self.service(auth_port=auth_port).relay
                one, same, other, v4, local = (
                    relay.connect(Wire(), peer, ClaspCodec()).lane
                    for peer in ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1", "192.0.2.1", "")
                )
                self.assertEqual((one, local), (same, ""))
                self.assertEqual(len({one, other, v4}), 3)

    def test_message_rate_is_the_options_or_the_policys_or_the_default(self) -> None:
        """In that order; 0 is off, and in open mode there is none."""
        default = (MESSAGES_PER_SECOND, MESSAGES_PER_SECOND * BURST_FACTOR)
        chat = self.service(auth_port=7350).relay.options.message_rate
        assert chat is not None
        self.assertGreater(chat[1], chat[0])
        for settings, expected in (
            ({"auth_port": 7350, "app_config": "none"}, default),
            ({"auth_port": 7350, "rate_limit": 5}, (5, 5 * BURST_FACTOR)),
            ({"auth_port": 7350, "rate_limit": 0}, None),
            ({"auth_port": 0}, None),
        ):
            with self.subTest(settings):
                self.assertEqual(self.service(**settings).relay.options.message_rate, expected)

    def test_policy_that_cannot_be_used_is_named(self) -> None:
        """A file that is missing, and one that is no policy."""
        broken = Path(self.mktemp())
        broken.write_text("{", "utf-8")
        for path in (Path(self.mktemp()), broken):
            with self.subTest(path), self.assertRaises(StartError) as caught:
                self.service(auth_port=7350, app_config=str(path))
            self.assertIn(str(path), str(caught.exception))

    def test_clients_on_this_machine_are_counted_where_others_may_come_from_elsewhere(self) -> None:
        """In open mode, and where the relay listens on loopback only, their address says nothing."""
        cases: tuple[tuple[dict[str, Any], bool], ...] = (
            ({"auth_port": 0}, True),
            ({"auth_port": 7350, "host": "127.0.0.1"}, True),
            ({"auth_port": 7350, "host": "relay.example"}, False),
            ({"auth_port": 7350}, False),
        )
        for settings, exempt in cases:
            with self.subTest(settings=settings):
                self.assertEqual(self.service(**settings).factory.limits.exempts_loopback, exempt)

    def test_fault_of_the_relay_is_logged_and_costs_one_error(self) -> None:
        """With its traceback; the session goes on, and reads nothing of what went wrong."""
        service = self.service()
        session = live(service)
        self.patch(service.relay, "decider", None)
        say(session, service, Set("/a", encode_value(1)))
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        assert isinstance(session.outbox, Wire)
        self.assertEqual(session.outbox.messages()[-1], Error(ErrorCode.INTERNAL, "internal error"))
        self.assertTrue(session.is_live)


class DeciderTests(SynchronousTestCase):
    """The core of a relay that decides for its cluster."""

    def decider(self, world: AuthWorld | None, policy: Policy | None = None) -> Relay:
        """Returns one beside a world that serves clients; without one in open mode."""
        tokens = None if world is None else world.tokens
        settings = Settings(auth_port=0 if tokens is None else 7350, max_params_per_subject=5)
        return _decider(settings, None, tokens, policy, Relay, HANDLERS, World().clock, MemoryFanOut(), ImmediateLog())

    def test_it_has_the_rights_of_accounts_and_limits_no_session(self) -> None:
        """With a policy and a memory of its own: its state is another one. It limits what each user may have."""
        world = AuthWorld({"scopes": ["write:/**"]})
        policy = Policy.from_document({"scopes": ["write:/**"]})
        policy.session_ids = world.session_ids
        core = self.decider(world, policy)
        permissions = core.permissions
        assert isinstance(permissions, TokenPermissions)
        self.assertIsNot(permissions._policy, policy)
        self.assertIsNot(permissions.memory, world.relay.permissions.memory)
        self.assertIsNone(core.options.message_rate)
        self.assertEqual(core.options.params.subject.max_params, 5)
        session = world.join("owner").session
        own = permissions._policy
        assert own is not None
        self.assertIsNotNone(own.session_ids.own_until_us("owner", session.id, world.clock.now_us()))

    def test_in_open_mode_everybody_may_do_everything(self) -> None:
        """There are no users whose shares could be counted."""
        core = self.decider(None)
        self.assertTrue(core.permissions.is_open)
        self.assertEqual(core.options.params.subject.max_params, 0)
