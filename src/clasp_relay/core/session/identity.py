"""The identity of a session. Not compiled (``setup.py``), since ``access`` has a subclass."""

from __future__ import annotations

from dataclasses import dataclass, field

TOKEN_PREFIX = "cpsk_"  # noqa: S105  no secret: a rule of the protocol
"""The prefix of every token; a password with it is never accepted."""


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """The identity of a session; the subclass in ``access`` adds what decisions need.

    Args:
        subject: the user id of its token, empty in open mode.
        token: the id of its token, by which the token's sessions can be ended; empty without a token.
        label: the name that an operator gave the subject, for the log; may be empty.
        message_rate: messages a second and burst of its sessions; None for the relay's default.
        ends_with_session: whether its scheduled bundles are dropped when its session ends: it had no token.
    """

    subject: str = ""
    token: bytes = b""
    label: str = field(default="", kw_only=True)
    message_rate: tuple[float, float] | None = field(default=None, kw_only=True)
    ends_with_session: bool = field(default=False, kw_only=True)
