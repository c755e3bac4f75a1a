"""Device tokens: how they are made, and how the relay takes note."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.devices import DeviceWatch, device_record, make_device, parse_scopes
from clasp_relay.access.refusals import BadInput, Busy
from clasp_relay.access.tokens import EndOfToken, TokenExpired, TokenUnknown, digest_of
from tests.access.stack import START_S, Stack, SteppedWorkers, hexadecimal


class ScopesTests(SynchronousTestCase):
    """What follows ``--scopes``."""

    def test_scopes_are_separated_where_an_action_follows(self) -> None:
        """A comma may be part of a pattern."""
        self.assertEqual(parse_scopes("read:/a/**, write:/a,b/*"), ("read:/a/**", "write:/a,b/*"))
        self.assertEqual(parse_scopes("admin:/**"), ("admin:/**",))

    def test_text_that_is_no_scope_is_named(self) -> None:
        """With what is wrong."""
        for text in ("", "read", "reed:/a", "read:/a,reed:/b", "read:a", "read:/{room}"):
            with self.subTest(text), self.assertRaises(ValueError) as caught:
                parse_scopes(text)
            self.assertIn("scope" if ":" not in text or "reed" in text else ":", str(caught.exception))


class WatchTests(SynchronousTestCase):
    """A relay and its operator, on one store."""

    def setUp(self) -> None:
        """No token yet."""
        self.workers = SteppedWorkers()
        self.stack = Stack()
        self.store = self.stack.store.devices
        self.watch = DeviceWatch(self.store, self.workers, self.stack.tokens)
        self.random_hex = hexadecimal()
        # Two connections are needed for SQLite to tell; the tests of the store have them.
        self.patch(self.store, "changed", self.store.all)

    def make(self, expires_s: int | None = None, subject: str | None = None) -> tuple[str, str]:
        """Makes a token and returns it and its id."""
        scopes = ("read:/a/{userId}",)
        token, device = make_device(self.store, scopes, subject, "desk", START_S, expires_s, self.random_hex)
        return token, device.id

    def look(self) -> None:
        """Has the relay look once."""
        done = Deferred.fromCoroutine(self.watch.look())
        self.workers.finish()
        self.successResultOf(done)

    def test_token_is_valid_when_the_relay_has_looked_and_ends_when_it_is_revoked(self) -> None:
        """Its record has its own scopes, in the place of the policy's."""
        token, token_id = self.make()
        self.assertRaises(TokenUnknown, self.stack.tokens.lookup, token)
        self.watch.load()
        record = self.stack.tokens.lookup(token)
        subject = f"clasp.device.{token_id}"
        self.assertEqual((record.subject, record.username, record.expires_s), (subject, "desk", None))
        self.assertEqual(record.scopes, (f"read:/a/{subject}",))
        self.store.revoke(token_id, START_S)
        self.look()
        self.assertEqual(self.stack.ends, [(subject, EndOfToken.REVOKED)])
        self.assertRaises(TokenUnknown, self.stack.tokens.lookup, token)

    def test_read_does_not_undo_what_the_log_of_a_cluster_said_meanwhile(self) -> None:
        """Neither an end nor a beginning; once the file has both it is read again."""
        tokens = self.stack.tokens
        revoked, revoked_id = self.make()
        self.watch.load()
        (device,) = self.store.all()
        new = device._replace(id="new", digest=digest_of("cpsk_new"), subject="clasp.device.new")
        reading = Deferred.fromCoroutine(self.watch.reload())
        self.watch.follow(device, is_revoked=True)
        self.watch.follow(new, is_revoked=False)
        for write in (
            lambda: self.store.revoke(revoked_id, START_S),
            lambda: self.store.add(new, is_own_subject=True),
            None,
        ):
            self.workers.finish()
            self.successResultOf(reading)
            self.assertRaises(TokenUnknown, tokens.lookup, revoked)
            self.assertEqual(tokens.lookup("cpsk_new").subject, "clasp.device.new")
            if write is not None:
                write()
                self.watch.written(1)
                reading = Deferred.fromCoroutine(self.watch.reload())
        self.assertEqual([why for _, why in self.stack.ends], [EndOfToken.REVOKED])

    def test_token_expires_in_its_time_and_is_told_so_after_a_restart(self) -> None:
        """Not unknown, but expired."""
        token, _ = self.make(expires_s=START_S + 60)
        self.look()
        self.stack.tokens.lookup(token)
        self.stack.clock.advance(61)
        self.assertEqual([why for _, why in self.stack.ends], [EndOfToken.EXPIRED])
        self.look()
        self.stack.restart()
        DeviceWatch(self.store, self.workers, self.stack.tokens).load()
        self.assertRaises(TokenExpired, self.stack.tokens.lookup, token)

    def test_sign_ins_make_no_room_at_the_cost_of_a_device(self) -> None:
        """However many there are of one account."""
        token, _ = self.make(subject="alice")
        self.look()
        self.assertEqual(self.stack.tokens.surplus(self.stack.tokens.lookup(token), own_address_only=False), [])

    def test_subject_must_be_an_id_or_another_device_s(self) -> None:
        """So a second token may take the place of a first."""
        _, token_id = self.make()
        self.make(subject=f"clasp.device.{token_id}")
        for subject in ("clasp.device.none", "clasp.admin", "a/b", "clasp"):
            with self.subTest(subject):
                self.assertRaises(BadInput, self.make, subject=subject)

    def test_busy_relay_looks_the_next_time(self) -> None:
        """And tells nobody."""
        done = Deferred.fromCoroutine(self.watch.look())
        self.workers.fail(Busy("busy", 1))
        self.successResultOf(done)

    def test_scopes_that_cannot_be_read_let_nobody_in(self) -> None:
        """The other tokens do; a file may be edited by hand."""
        token, token_id = self.make()
        broken = self.store.all()[0]._replace(id="b", digest=b"b", scopes=("nonsense",))
        self.store.add(broken, is_own_subject=True)
        self.look()
        self.stack.tokens.lookup(token)
        self.assertFalse(self.stack.tokens.is_valid(device_record(broken).digest))
        self.assertTrue(token_id)
