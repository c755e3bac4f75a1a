"""Clients without an account: sessions without a token."""

from __future__ import annotations

import json

from clasp_relay.wire.messages import Error, Hello, Subscribe
from tests.integration.accounts import AccountsRelay, AccountsTestCase, Person, put, told
from tests.integration.raw import RawClient

STUDIO = {
    "scopes": ["read:/studio/**", "write:/studio/**"],
    "anonymous": {
        "scopes": ["read:/studio/light/**", "write:/studio/fader/*"],
        "message_rate": {"per_second": 5, "burst": 20},
    },
    "write_rules": [{"path": "/studio/fader/{name}", "stamp": {"field": "by"}, "checks": [{"type": "value_is_map"}]}],
}
"""A studio where everybody sees the lights and moves faders."""


class NoAccountCase(AccountsTestCase):
    """Runs relays under the studio's policy."""

    def wait_for_429(self, person: Person) -> None:
        """Reads on until the message limit is told; a PING would be over the limit, too."""
        messages = person.receive_until(lambda message: isinstance(message, Error))
        self.assertEqual([each.error for each in messages if isinstance(each, Error)], [429])

    def start_studio(self, *options: str) -> AccountsRelay:
        """Starts a relay on that policy."""
        (self.folder / "studio.json").write_text(json.dumps(STUDIO), "utf-8")
        return self.start_accounts("--app-config", "studio.json", *options)


class AnonymousTests(NoAccountCase):
    """A HELLO without a token, where the policy lets it in."""

    def test_session_without_a_token_reads_and_writes_within_its_scopes(self) -> None:
        """Its subject is in the log, rules hold for it, and its own message rate does."""
        relay = self.start_studio()
        self.assertIn("sessions without a token are let in; their scopes: read:/studio/light/**", relay.log)
        visitor, member = self.sign_in(relay, ""), self.guest(relay, "ann")
        subject = f"clasp.anon.{visitor.session}"
        self.assertEqual(visitor.code(put("/studio/light/1", 1), 1), 301)
        self.assertEqual(visitor.code(put("/studio/fader/1", 1), 1), 403)
        self.assertEqual(visitor.code(put("/studio/fader/1", {"v": 1}), 1), 0)
        shown = told(member.ask(Subscribe(1, "/studio/fader/**")))
        self.assertEqual(shown, [("/studio/fader/1", {"v": 1, "by": subject})])
        self.assertEqual(told(visitor.ask(Subscribe(1, "/studio/light/**"))), [])
        member.ask(put("/studio/light/1", 0.5))
        self.assertEqual(told(visitor.settle()), [("/studio/light/1", 0.5)])
        self.assertEqual(visitor.code(Subscribe(2, "/studio/**")), 301)
        visitor.send(*(put("/studio/fader/2", {"v": number}) for number in range(40)), qos=1)
        self.wait_for_429(visitor)
        self.assertIn(f"user {subject}", relay.log)

    def test_wrong_token_is_refused_and_no_reason_to_be_anonymous(self) -> None:
        """With 300 and a Close."""
        relay = self.start_studio()
        client = RawClient(relay.port)
        self.addCleanup(client.close)
        client.send(Hello(1, 0xF8, "test", "cpsk_" + 32 * "0"))
        messages, closed = client.end()
        self.assertEqual([getattr(message, "error", None) for message in messages], [300])
        self.assertEqual(closed.code, 1008)
