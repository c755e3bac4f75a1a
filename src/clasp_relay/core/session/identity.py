"""Whom a session speaks for. Not compiled (``setup.py``): ``access`` derives from it."""

from __future__ import annotations

from dataclasses import dataclass, field

TOKEN_PREFIX = "cpsk_"  # noqa: S105  no secret: a rule of the protocol
"""How every token begins; no password that begins so lets anybody in."""


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """Whom a session speaks for; ``access`` adds to it what it needs to decide.

    Args:
        subject: the user id of its token, empty in open mode.
        token: what its token is known by, so that its sessions can be ended with it; empty where there is none.
        label: what an operator called the subject, for the log; may be empty.
        message_rate: messages a second and burst of its sessions; None for the relay's.
        ends_with_session: whether nothing is done for it once its session has ended: it had no token.
    """

    subject: str = ""
    token: bytes = b""
    label: str = field(default="", kw_only=True)
    message_rate: tuple[float, float] | None = field(default=None, kw_only=True)
    ends_with_session: bool = field(default=False, kw_only=True)
