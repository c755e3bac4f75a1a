"""Tests of clasp_relay.access.console: who is let in to the console, and for how long."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access import console as module
from clasp_relay.access.console import MAX_EARLY_TOKENS, GivenToken
from clasp_relay.access.people import RESET_S
from clasp_relay.access.refusals import BadInput, Forbidden, Limited, Refusal, Unauthenticated
from clasp_relay.access.tokens import ADMIN_SCOPES, TokenUnknown
from clasp_relay.storage.audit import AuditEntry
from clasp_relay.storage.users_sqlite import SqliteUsers
from tests.access.console_world import ADMIN_TOKEN, PASSWORD, ConsoleWorld, digest_is_valid, result_of
from tests.access.stack import HOME


class ConsoleTests(SynchronousTestCase):
    """One relay, with the administrator Root and the user Alice."""

    def setUp(self) -> None:
        """Makes it."""
        self.world = ConsoleWorld()
        self.addCleanup(self.world.close)
        self.console = self.world.console
        self.store: SqliteUsers = self.world.stack.store
        self.alice_token = self.world.register("Alice", "a1")

    def entry(self) -> AuditEntry:
        """Returns an entry for the audit log."""
        return self.world.audit.entry("admin.test", self.world.root.actor(HOME))

    def assert_refused(self, kind: type[Refusal], done: Deferred[Any], words: str = "") -> None:
        """Asserts that a call is refused."""
        self.assertIn(words, str(self.failureResultOf(done, kind).value))

    def test_administrator_gets_a_token_for_an_hour(self) -> None:
        """Of the console only: the relay and the auth API do not know it."""
        issued = result_of(self.console.sign_in("root", PASSWORD, HOME))
        self.assertRegex(issued.token, r"^cpca_[0-9a-f]{32}$")
        self.assertNotIn(issued.token, repr(issued))
        who = self.console.admit(issued.token)
        self.assertEqual((who.user_id, who.username, who.expires_s), ("root", "Root", issued.expires_s))
        self.assertTrue(who.is_console)
        self.assertFalse(digest_is_valid(self.world, issued.token))
        self.assertRaises(Unauthenticated, self.world.stack.accounts.me, issued.token)
        self.world.stack.clock.advance(module.CONSOLE_TOKEN_S - 1)
        self.console.admit(issued.token)
        self.world.stack.clock.advance(1)
        self.assertRaises(Unauthenticated, self.console.admit, issued.token)
        self.assertFalse(digest_is_valid(self.world, who.token))

    def test_others_are_refused(self) -> None:
        """Whatever they present; failures of the password count as those of a login."""
        self.assert_refused(Forbidden, self.console.sign_in("Alice", PASSWORD, HOME), "may not use the console")
        for bearer in (None, "", "cpca_" + "0" * 32, "cpsk_" + "1" * 32, "x" * 10_000):
            with self.subTest(bearer=bearer):
                self.assertRaises(Unauthenticated, self.console.admit, bearer)
        for token in (self.alice_token, self.world.root_token, self.world.guest("Gina", "g1")):
            self.assertRaises(Forbidden, self.console.admit, token)
        for _ in range(5):
            self.assert_refused(Unauthenticated, self.console.sign_in("Root", "wrong", "192.0.2.9"))
        self.assert_refused(Limited, self.console.sign_in("Root", PASSWORD, "192.0.2.9"))
        self.assert_refused(Limited, self.world.stack.accounts.login("Root", PASSWORD, "192.0.2.9"))

    def test_token_of_another_relay_is_good_here_until_it_ends(self) -> None:
        """There or here, and where its bearer ceases to be an administrator; others' are not taken at all."""
        given: list[GivenToken] = []
        ended: list[bytes] = []
        self.console.when_given, self.console.when_ended = given.append, ended.append
        issued = result_of(self.console.sign_in("root", PASSWORD, HOME))
        self.assertTrue(self.console.knows(issued.token))
        (token,) = given
        self.console.learn(token)
        who = self.console.admit(issued.token)
        self.console.forget(token.digest)
        self.assertRaises(Unauthenticated, self.console.admit, issued.token)
        self.assertFalse(digest_is_valid(self.world, who.token))
        self.assertEqual(ended, [])
        self.console.learn(token._replace(user_id="a1"))
        self.assertFalse(self.console.knows(issued.token))
        self.console.learn(token)
        again = self.console.admit(issued.token)
        self.assertEqual((again.user_id, again.expires_s), (who.user_id, who.expires_s))
        self.assertTrue(digest_is_valid(self.world, again.token))
        self.assertTrue(self.console.end(issued.token))
        self.assertEqual(ended, [token.digest])

    def test_token_of_another_relay_waits_until_its_bearer_is_known(self) -> None:
        """That relay knew first who is an administrator; not what has ended meanwhile, and not for ever."""
        given: list[GivenToken] = []
        self.console.when_given = given.append
        issued = [result_of(self.console.sign_in("root", PASSWORD, HOME)) for _ in range(3)]
        kept, ended, old = given
        for token in given:
            self.console.forget(token.digest)
        decided = self.console.decided
        self.console._take(decided._replace(administrators=frozenset()))
        for token in (kept, ended, old._replace(expires_s=0)):
            self.console.learn(token)
        self.console.forget(ended.digest)
        self.assertEqual([self.console.knows(each.token) for each in issued], [False, False, False])
        self.console._take(decided)
        self.assertEqual([self.console.knows(each.token) for each in issued], [True, False, False])
        for number in range(MAX_EARLY_TOKENS + 1):
            self.console.learn(GivenToken(b"%d" % number, "a1", "Ann", kept.expires_s))
        self.assertEqual(len(self.console._early), MAX_EARLY_TOKENS)

    def test_admin_token_is_taken(self) -> None:
        """It has no end, and signing out of the console does not end it."""
        who = self.console.admit(ADMIN_TOKEN)
        self.assertEqual((who.is_console, who.expires_s, who.token), (False, None, ADMIN_TOKEN))
        self.assertFalse(self.console.end(ADMIN_TOKEN))
        self.console.admit(ADMIN_TOKEN)

    def test_signing_out_ends_the_token_and_what_stands_behind_it(self) -> None:
        """Others of the same administrator stay."""
        first, second = self.world.sign_in(), self.world.sign_in()
        inner = self.console.admit(first).token
        self.assertEqual(self.world.stack.tokens.lookup(inner).scopes_name, ADMIN_SCOPES)
        self.assertTrue(self.console.end(first))
        self.assertRaises(TokenUnknown, self.world.stack.tokens.lookup, inner)
        self.assertRaises(Unauthenticated, self.console.admit, first)
        self.console.admit(second)

    def test_tokens_end_with_the_right_and_with_the_password(self) -> None:
        """Whoever took the right away, in this process or another one."""
        for way in ("withdraw", "disable", "delete", "password"):
            with self.subTest(way=way):
                self.setUp()
                token = self.world.sign_in()
                if way == "password":
                    auth = result_of(self.world.stack.accounts.login("Root", PASSWORD, HOME)).token
                    result_of(self.world.stack.accounts.change_password(PASSWORD, "new password", auth, HOME))
                else:
                    how = {"erases_messages": False} if way == "delete" else {}
                    getattr(self.store.administration, way)("root", self.entry(), **how)
                    self.world.do(self.console.reload())
                self.assertRaises(Unauthenticated, self.console.admit, token)

    def test_number_of_tokens_is_bounded(self) -> None:
        """The oldest goes."""
        self.patch(module, "MAX_CONSOLE_TOKENS", 2)
        tokens = [self.world.sign_in() for _ in range(3)]
        self.assertRaises(Unauthenticated, self.console.admit, tokens[0])
        self.console.admit(tokens[1])

    def test_link_sets_a_password_and_ends_all_tokens(self) -> None:
        """Once; a password that is too short leaves it valid."""
        link = self.world.do(self.world.people.reset_password(self.world.root, HOME, "a1"))
        self.assert_refused(BadInput, self.console.reset(link.secret, "short", HOME))
        self.assert_refused(Unauthenticated, self.console.reset("0" * 32, "new password", HOME), "not valid any more")
        self.assertEqual(result_of(self.console.reset(link.secret, "new password", HOME)), "Alice")
        self.assertEqual(self.world.live_tokens("a1"), 0)
        self.assert_refused(Unauthenticated, self.console.reset(link.secret, "newer password", HOME))
        result_of(self.world.stack.accounts.login("Alice", "new password", HOME))
        self.assert_refused(Unauthenticated, self.world.stack.accounts.login("Alice", PASSWORD, HOME))
        events = [(row.entry.action, row.entry.outcome, row.entry.actor) for row in self.store.audit.after(0, 100)]
        self.assertIn(("reset", "ok", "a1"), events)
        old = self.world.do(self.world.people.reset_password(self.world.root, HOME, "a1"))
        self.world.stack.clock.advance(RESET_S)
        self.assert_refused(Unauthenticated, self.console.reset(old.secret, "new password", HOME))

    def test_password_that_changes_meanwhile_lets_nobody_in(self) -> None:
        """What was verified a moment ago is the old one."""
        link = self.world.do(self.world.people.reset_password(self.world.root, HOME, "root"))
        accounts = self.world.stack.accounts
        verify = accounts.verify

        async def slow(*args: Any) -> Any:
            user = await verify(*args)
            result_of(self.console.reset(link.secret, "new password", HOME))
            return user

        self.patch(accounts, "verify", slow)
        self.assert_refused(Unauthenticated, self.console.sign_in("Root", PASSWORD, HOME))
        self.assertEqual(self.console._by_digest, {})

    def test_link_ends_with_what_it_was_made_for(self) -> None:
        """When the account is disabled, or its owner has changed the password: whoever finds it then is a stranger."""
        for way in ("disable", "password"):
            with self.subTest(way=way):
                link = self.world.do(self.world.people.reset_password(self.world.root, HOME, "a1"))
                if way == "disable":
                    self.world.do(self.world.people.disable(self.world.root, HOME, "a1"))
                    self.world.do(self.world.people.enable(self.world.root, HOME, "a1"))
                else:
                    token = result_of(self.world.stack.accounts.login("Alice", PASSWORD, HOME)).token
                    result_of(self.world.stack.accounts.change_password(PASSWORD, "second password", token, HOME))
                self.assert_refused(Unauthenticated, self.console.reset(link.secret, "third password", HOME))

    def test_new_name_is_that_of_what_is_done_from_then_on(self) -> None:
        """An open console has it, too, so that the audit log names who acts as they are called then."""
        token = self.world.sign_in()
        self.world.do(self.world.people.rename(self.world.root, HOME, "root", "Toor"))
        who = self.console.admit(token)
        self.assertEqual((who.username, who.actor(HOME).name), ("Toor", "Toor"))

    def test_decisions_of_another_process_hold_once_they_are_read(self) -> None:
        """Who may register, and who may not come in."""
        self.store.administration.disable("a1", self.entry())
        self.store.administration.choose({"registration": "closed", "guests": "off"}, self.entry())
        self.assertEqual(self.world.live_tokens("a1"), 1)
        self.world.do(self.console.reload())
        self.assertEqual(self.world.live_tokens("a1"), 0)
        admission = self.world.stack.accounts.admission
        self.assertEqual((admission.registration, admission.guests, self.console.source), ("closed", False, "console"))
