"""Password hashes."""

from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.passwords import Passwords, make_hasher
from clasp_relay.access.refusals import BadInput
from tests.access.stack import HOME, CountingHasher, InlineWorkers

RUST_HASH = "$argon2id$v=19$m=19456,t=2,p=1$ne+mJzzhvr7A4JZ+ygfwdg$BWxctXQCItlR15nAM6Pkp7/5DY79dR71q9eTQcw+ffM"
"""Of «correct horse battery», made with the argon2 crate 0.5 and its defaults, as the Rust relay does."""


def always() -> None:
    """Admits."""


def never() -> None:
    """Does not admit."""
    raise BadInput("No.")


class PasswordsTests(SynchronousTestCase):
    """With cheap parameters."""

    def setUp(self) -> None:
        """Makes a hasher that counts."""
        self.hasher = CountingHasher()
        self.passwords = Passwords(self.hasher, InlineWorkers())

    def verify(self, stored: str | None, password: str) -> bool:
        """Verifies a password."""
        return self.successResultOf(Deferred.fromCoroutine(self.passwords.verify(stored, password, HOME, always)))

    def hash(self, password: str) -> str:
        """Hashes a password."""
        return self.successResultOf(Deferred.fromCoroutine(self.passwords.hash(password, HOME)))

    def test_password_is_recognised_by_its_hash(self) -> None:
        """Every character counts, and no two hashes are the same."""
        stored = self.hash("pässword ")
        self.assertTrue(self.verify(stored, "pässword "))
        for wrong in ("pässword", "PÄSSWORD ", "", "pa\u0308ssword "):
            with self.subTest(wrong=wrong):
                self.assertFalse(self.verify(stored, wrong))
        self.assertNotEqual(stored, self.hash("pässword "))

    def test_unknown_user_costs_as_much_as_a_wrong_password(self) -> None:
        """One hash is verified in either case, with the same parameters; also for a hash that cannot be read."""
        stored = self.hash("password")
        for what, known in (("wrong password", stored), ("nobody", None)):
            with self.subTest(what):
                self.hasher.verifications = 0
                self.assertFalse(self.verify(known, "nobody has this password"))
                self.assertEqual(self.hasher.verifications, 1)
        for broken in ("", "plain text", "$argon2id$v=19$m=8,t=1,p=1$AAAA$", "$2b$12$" + "x" * 53):
            with self.subTest(broken=broken):
                self.assertFalse(self.verify(broken, "password"))

    def test_verification_that_is_not_admitted_costs_nothing(self) -> None:
        """Nothing is computed."""
        failed = Deferred.fromCoroutine(self.passwords.verify(None, "password", HOME, never))
        self.failureResultOf(failed, BadInput)
        self.assertEqual(self.hasher.verifications, 0)

    def test_weaker_hash_is_told_from_one_as_strong_or_stronger(self) -> None:
        """Less memory or fewer rounds, another kind, an old version, a shorter hash."""
        passwords = Passwords(make_hasher(), InlineWorkers())
        salt, digest = "A" * 22, "A" * 43
        cases = [
            (f"$argon2id$v=19$m=19456,t=2,p=1${salt}${digest}", False),
            (f"$argon2id$v=19$m=65536,t=3,p=4${salt}${digest}", False),
            (f"$argon2id$v=19$m=47104,t=1,p=1${salt}${digest}", False),
            (f"$argon2id$v=19$m=4096,t=3,p=1${salt}${digest}", True),
            (f"$argon2i$v=19$m=65536,t=3,p=4${salt}${digest}", True),
            (f"$argon2id$v=16$m=65536,t=3,p=4${salt}${digest}", True),
            (f"$argon2id$v=19$m=19456,t=2,p=1${salt}${digest[:22]}", True),
        ]
        for stored, weaker in cases:
            with self.subTest(stored=stored):
                self.assertIs(passwords.is_weaker(stored), weaker)


class RealParametersTests(SynchronousTestCase):
    """As in service."""

    def test_hash_has_owasps_parameters_and_the_rust_relays_verify(self) -> None:
        """Argon2id, 19 MiB, two rounds, one lane; a hash of the Rust relay's is not weaker."""
        passwords = Passwords(make_hasher(), InlineWorkers())
        parameters = extract_parameters(self.successResultOf(Deferred.fromCoroutine(passwords.hash("password", HOME))))
        self.assertEqual(
            (parameters.type, parameters.memory_cost, parameters.time_cost, parameters.parallelism),
            (Type.ID, 19_456, 2, 1),
        )
        right = passwords.verify(RUST_HASH, "correct horse battery", HOME, always)
        self.assertTrue(self.successResultOf(Deferred.fromCoroutine(right)))
        wrong = passwords.verify(RUST_HASH, "correct horse", HOME, always)
        self.assertFalse(self.successResultOf(Deferred.fromCoroutine(wrong)))
        self.assertFalse(passwords.is_weaker(RUST_HASH))
        self.assertTrue(passwords.is_weaker(PasswordHasher(1, 8, 1).hash("password")))
