"""How much of the disk files may take."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from clasp_relay.access.file_quotas import (
    BLOCK_BYTES,
    GUEST_ADDRESS_BYTES,
    GUEST_BYTES,
    MIB,
    UPLOADS_AT_ONCE,
    UPLOADS_IN_A_CROWD,
    UPLOADS_PER_ADDRESS,
    UPLOADS_PER_OWNER,
    FileLimits,
    FileOwner,
    FileQuotas,
    charge,
)
from clasp_relay.access.refusals import BadInput, Limited, NoRoom, Refusal, TooLarge

LIMITS = FileLimits(file=25 * MIB, subject=200 * MIB, whole=1024 * MIB)
ALICE, BOB = FileOwner("alice"), FileOwner("bob")


def guest(number: int, address: bytes = b"home") -> FileOwner:
    """Returns a guest at an address."""
    return FileOwner(f"guest-{number}", address)


class FileQuotasTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Nothing is there."""
        self.quotas = FileQuotas(LIMITS)

    def keep(self, owner: FileOwner, size_bytes: int) -> None:
        """A file arrives."""
        self.quotas.begin(owner, size_bytes)
        self.quotas.end(owner)

    def test_file_counts_in_blocks(self) -> None:
        """At least one: millions of tiny files cost the disk what they take, too."""
        for size, charged in ((1, 1), (BLOCK_BYTES, 1), (BLOCK_BYTES + 1, 2), (25 * MIB, 6400)):
            with self.subTest(size=size):
                self.assertEqual(charge(size), charged * BLOCK_BYTES)

    def test_user_has_a_share(self) -> None:
        """It is full to the byte, nobody else's is touched, and what is deleted is free again."""
        for _ in range(8):
            self.keep(ALICE, 25 * MIB)
        with self.assertRaises(Limited) as caught:
            self.quotas.begin(ALICE, 1)
        self.assertIn("more than 200 MiB", caught.exception.sentence)
        self.keep(BOB, 25 * MIB)
        self.quotas.give_back(ALICE, 25 * MIB)
        self.keep(ALICE, 25 * MIB)
        self.assertEqual(self.quotas.used_by("alice"), 200 * MIB)

    def test_what_can_never_be_accepted_is_too_large(self) -> None:
        """A file that is longer than any, or than all that its owner may have."""
        for owner, size, limits in (
            (ALICE, 25 * MIB + 1, LIMITS),
            (ALICE, 11 * MIB, FileLimits(file=25 * MIB, subject=10 * MIB, whole=100 * MIB)),
            (guest(1), 26 * MIB, FileLimits(file=100 * MIB, subject=200 * MIB, whole=1000 * MIB)),
        ):
            with self.subTest(owner=owner.subject, size=size), self.assertRaises(TooLarge):
                FileQuotas(limits).begin(owner, size)
        for size in (0, -1):
            with self.subTest(size=size), self.assertRaises(BadInput):
                self.quotas.begin(ALICE, size)

    def test_no_limit_for_users_leaves_guests_theirs(self) -> None:
        """0 is no limit."""
        quotas = FileQuotas(FileLimits(file=1000 * MIB, subject=0, whole=1000 * MIB))
        quotas.begin(ALICE, 999 * MIB)
        with self.assertRaises(TooLarge):
            quotas.begin(guest(1), GUEST_BYTES + 1)

    def test_guests_of_one_address_share(self) -> None:
        """A crowd of invented guests has no more than four of them."""
        for number in range(GUEST_ADDRESS_BYTES // GUEST_BYTES):
            self.keep(guest(number), GUEST_BYTES)
        with self.assertRaises(Limited):
            self.quotas.begin(guest(99), 1)
        self.keep(guest(100, b"work"), 1)
        self.keep(ALICE, 1)

    def test_half_is_kept_for_accounts(self) -> None:
        """Guests of any number of addresses get no more than half; accounts get all."""
        quotas = FileQuotas(FileLimits(file=25 * MIB, subject=200 * MIB, whole=100 * MIB))
        for number in range(2):
            quotas.begin(guest(number, b"%d" % number), GUEST_BYTES)
        with self.assertRaises(NoRoom):
            quotas.begin(guest(3, b"3"), 1)
        quotas.begin(ALICE, 25 * MIB)
        quotas.begin(BOB, 25 * MIB)
        with self.assertRaises(NoRoom):
            quotas.begin(ALICE, 1)

    def test_uploads_at_once_are_few(self) -> None:
        """Of one user, and of the guests at one address together; and of all."""
        for owners in ([ALICE] * 11, [guest(number) for number in range(11)]):
            with self.subTest(owner=owners[0].subject):
                for owner in owners[:UPLOADS_PER_OWNER]:
                    self.quotas.begin(owner, 1)
                with self.assertRaises(Limited):
                    self.quotas.begin(owners[-1], 1)
        for number in range(UPLOADS_AT_ONCE - 2 * UPLOADS_PER_OWNER):
            self.quotas.begin(FileOwner(f"u{number}"), 1)
        with self.assertRaises(Limited):
            self.quotas.begin(BOB, 1)
        self.quotas.end(ALICE)
        self.quotas.begin(BOB, 1)

    def test_accounts_of_one_address_leave_others_their_turn(self) -> None:
        """A crowd of accounts that one person has registered, and of guests, sends half of what may arrive at once."""
        crowd = [FileOwner(f"u{number}", address=b"home") for number in range(UPLOADS_PER_ADDRESS - 1)]
        crowd.append(FileOwner("guest", b"home", b"home"))
        for owner in crowd:
            self.quotas.begin(owner, 1)
        with self.assertRaises(Limited):
            self.quotas.begin(ALICE._replace(address=b"home"), 1)
        self.quotas.begin(BOB._replace(address=b"work"), 1)
        self.quotas.end(crowd[0])
        self.quotas.begin(ALICE._replace(address=b"home"), 1)

    def test_few_cannot_take_all_places(self) -> None:
        """Where half of them are taken, whoever sends some already has to wait for others."""
        for number in range(UPLOADS_PER_ADDRESS):
            self.quotas.begin(FileOwner(f"u{number}", address=b"home"), 1)
        for number in range(UPLOADS_IN_A_CROWD):
            self.quotas.begin(FileOwner(f"v{number}", address=b"work"), 1)
        for owner in (FileOwner("v9", address=b"work"), ALICE._replace(address=b"home")):
            with self.subTest(owner=owner.subject), self.assertRaises(Limited):
                self.quotas.begin(owner, 1)
        self.quotas.begin(BOB._replace(address=b"school"), 1)

    def test_restart_counts_what_is_there(self) -> None:
        """From the records."""
        self.quotas.load([(ALICE, 200 * MIB), (guest(1), GUEST_BYTES)])
        for owner in (ALICE, guest(1)):
            with self.subTest(owner=owner.subject), self.assertRaises(Limited):
                self.quotas.begin(owner, 1)
        self.assertEqual((self.quotas.bytes, self.quotas.guest_bytes), (225 * MIB, GUEST_BYTES))

    def test_sentence_tells_the_amount(self) -> None:
        """In the unit that suits it."""
        for size, told in ((1024, "1 KiB"), (1500, "1.5 KiB"), (MIB, "1 MiB"), (3 * MIB // 2, "1.5 MiB")):
            with self.subTest(size=size), self.assertRaises(TooLarge) as caught:
                FileQuotas(FileLimits(file=size, subject=0, whole=MIB)).begin(ALICE, size + 1)
            self.assertIn(f"up to {told}.", caught.exception.sentence)

    @given(
        st.lists(
            st.tuples(st.integers(0, 3), st.sampled_from([b"", b"a", b"b"]), st.integers(1, 30 * MIB), st.booleans())
        )
    )
    def test_counts_are_those_of_a_list(self, wanted: list[tuple[int, bytes, int, bool]]) -> None:
        """Whatever comes and goes, no bound is exceeded, and nothing is left when all is gone."""
        quotas = FileQuotas(LIMITS)
        kept: list[tuple[FileOwner, int]] = []
        for number, origin, size, is_removed in wanted:
            owner = FileOwner(f"u{number}{origin.decode()}", origin)
            try:
                quotas.begin(owner, size)
                quotas.end(owner)
                kept.append((owner, size))
            except Refusal:
                pass
            if is_removed and kept:
                quotas.give_back(*kept.pop(0))
            self.assertEqual(quotas.bytes, sum(charge(size) for _, size in kept))
            self.assertLessEqual(quotas.guest_bytes, LIMITS.whole // 2)
            self.assertLessEqual(quotas.used_by(owner.subject), GUEST_BYTES if origin else LIMITS.subject)
        for owner, size in kept:
            quotas.give_back(owner, size)
        self.assertEqual((quotas.bytes, quotas.guest_bytes, quotas.arriving), (0, 0, 0))
