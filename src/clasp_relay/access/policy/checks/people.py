"""Checks about users: their presence, what they wrote, and addresses that name them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clasp_relay.access.policy.checks.base import Check, CheckParser
from clasp_relay.access.policy.language.captures import Path, Template
from clasp_relay.access.policy.language.maps import is_map, names_in
from clasp_relay.access.policy.language.question import Question

DM_PREFIX = "dm-"
"""The prefix of the id of a direct-message room."""

DM_ID_PART = 8
"""Number of characters of each user's id in the id of their room."""

LONGEST_DM_ID = len(DM_PREFIX) + DM_ID_PART + len("-") + DM_ID_PART


@dataclass(frozen=True, slots=True)
class SegmentEqualsSession(Check):
    """A captured segment equals the subject."""

    kind: ClassVar[str] = "segment_equals_session"
    segment: str
    place: int

    @classmethod
    def parse(cls, parser: CheckParser) -> Check:
        """Parses the one key, which is the name of a capture."""
        return cls(parser.keys.text("segment"), parser.capture("segment"))

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        return question.words[self.place] == question.subject

    def refusal(self, question: Question) -> str:
        """Returns what a refused writer reads."""
        return f"{self.segment} in the address must be your id, {question.subject!r}"


@dataclass(frozen=True, slots=True)
class RejectUnlessPathMatches(Check):
    """The address also matches another path."""

    kind: ClassVar[str] = "reject_unless_path_matches"
    pattern: Path
    message: str

    @classmethod
    def parse(cls, parser: CheckParser) -> Check:
        """Parses the keys; the message has a default that names the pattern."""
        path = parser.path("pattern")
        return cls(path, parser.keys.text("message", f"the address must be of the form {path.text}"))

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        return self.pattern.bind(question.address) is not None

    def refusal(self, question: Question) -> str:  # noqa: ARG002
        """Returns what a refused writer reads."""
        return self.message


@dataclass(frozen=True, slots=True)
class DmUsersMatchRoom(Check):
    """The two users of a direct-message room are those that its id is made of.

    An id is made of the first 8 characters of both users' ids, ``dm-{smaller}-{larger}``: anybody can work it out. Any
    other id, such as a longer one that was drawn at random, belongs to whoever uses it first; so it passes, and so does
    a value that is no map.
    """

    kind: ClassVar[str] = "dm_users_match_room"
    segment: str
    place: int
    field: bytes

    @classmethod
    def parse(cls, parser: CheckParser) -> Check:
        """Parses the keys: the name of a capture, and a field."""
        return cls(parser.keys.text("segment"), parser.capture("segment"), parser.keys.text("field").encode())

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        room = question.words[self.place]
        if not room.startswith(DM_PREFIX) or len(room) > LONGEST_DM_ID or not is_map(question.value):
            return True
        users = sorted(names_in(question.value_field(self.field)))
        return len(users) == 2 and room == DM_PREFIX + "-".join(user[:DM_ID_PART] for user in users)

    @property
    def value_keys(self) -> tuple[bytes, ...]:
        """The field of the users."""
        return (self.field,)

    def refusal(self, question: Question) -> str:
        """Returns what a refused writer reads."""
        return f"the id {question.words[self.place]!r} belongs to two other users: {self.field.decode()!r} must be they"


@dataclass(frozen=True, slots=True)
class WriterIsAccount(Check):
    """The writer is a registered user, and no guest. In write rules only: of readers it is not known."""

    kind: ClassVar[str] = "writer_is_account"
    about_writer: ClassVar[bool] = True

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        return question.is_account

    def refusal(self, question: Question) -> str:  # noqa: ARG002
        """Returns what a refused writer reads."""
        return "only registered users may do this; you are a guest"


@dataclass(frozen=True, slots=True)
class SegmentIsOwnSessionId(Check):
    """A captured segment is the id of a session of the writer's. In write rules only: of readers it is not known.

    A client that connects again may go on to use the id of its first session, so older ones count for a day, too
    (``access.session_ids``).
    """

    kind: ClassVar[str] = "segment_is_own_session_id"
    about_writer: ClassVar[bool] = True
    segment: str
    place: int

    @classmethod
    def parse(cls, parser: CheckParser) -> Check:
        """Parses the key: the name of a capture."""
        return cls(parser.keys.text("segment"), parser.capture("segment"))

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        return question.owns_session_id(question.words[self.place])

    def refusal(self, question: Question) -> str:
        """Returns what a refused writer reads."""
        return f"{question.words[self.place]!r} is the id of no session of yours"


@dataclass(frozen=True, slots=True)
class Present(Check):
    """The subject is present: an address is set, or was set until less than ``grace_secs`` ago.

    The grace counts after the subject's own null and after an expiry; the null of somebody else ends presence at once.
    """

    kind: ClassVar[str] = "present"
    looks_at_existence: ClassVar[bool] = True
    lookup: Template
    grace_secs: float

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        address = question.at(self.lookup)
        if question.is_set(address):
            return True
        ended = question.ended(address)
        if ended is None or ended.subject not in ("", question.subject):
            return False
        return question.is_before(ended.when_us + round(self.grace_secs * 1_000_000))

    def refusal(self, question: Question) -> str:
        """Returns what a refused writer reads."""
        return f"you are not present: nothing is set at {question.at(self.lookup)}"


@dataclass(frozen=True, slots=True)
class LastWriterIsSession(Check):
    """The subject wrote last what is set at an address, or at one that a pattern matches."""

    kind: ClassVar[str] = "last_writer_is_session"
    takes_wildcards: ClassVar[bool] = True
    lookup: Template
    allow_if_missing: bool

    def passes(self, question: Question) -> bool:
        """Tells whether it holds."""
        address = question.at(self.lookup)
        if "*" in address:
            writers = {param.subject for param in question.match(address)}
        else:
            param = question.param(address)
            writers = set() if param is None else {param.subject}
        return question.subject in writers if writers else self.allow_if_missing

    def refusal(self, question: Question) -> str:
        """Returns what a refused writer reads."""
        return f"only the last writer of {question.at(self.lookup)} may do this"
