"""Rules for names, user ids and passwords, and the keys by which names are compared.

A name is trimmed and normalised (NFKC) before it is checked. Two names are the same if they differ only in case,
compatibility forms or the width of their spaces; two that look the same are confusable (``confusables``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from clasp_relay.access.confusables import skeleton
from clasp_relay.access.refusals import BadInput
from clasp_relay.storage.users import NameKeys

__all__ = [
    "check_device",
    "check_guest_name",
    "check_password",
    "check_user_id",
    "check_username",
    "default_guest_name",
    "fold_name",
    "make_user_id",
    "name_keys",
    "normalise_name",
]

USERNAME_MIN_CHARACTERS = 2
NAME_MAX_CHARACTERS = 32
DEVICE_MAX_CHARACTERS = 64
MAX_RAW_CHARACTERS = 4 * NAME_MAX_CHARACTERS
"""Longer text is refused before NFKC, which takes quadratic time for long runs of combining marks."""

PASSWORD_MIN_CHARACTERS = 6
PASSWORD_MAX_CHARACTERS = 1024
"""A longer password makes hashing slower and is no safer."""

RESERVED_IDS = frozenset({"__auth", "__proto__", "constructor", "prototype", ".", "..", "clasp"})
"""Words with a special meaning as a segment of an address, or as a key of a JavaScript object."""

_USER_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})

_INVISIBLE = (
    # Letters, marks, symbols and reserved code points that are invisible
    # (Unicode's Default_Ignorable_Code_Point, and the Braille blank).
    (0x034F, 0x034F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x2065, 0x2065),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xFDD0, 0xFDEF),
    (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0xFFFE, 0xFFFF),
    (0x1D159, 0x1D159),
    (0xE0000, 0xE0FFF),
)


def normalise_name(text: str) -> str:
    """Returns a name as it is stored: NFKC, trimmed; text beyond :data:`MAX_RAW_CHARACTERS` is returned unchanged.

    A users.db of the Rust relay may hold longer names: they sign in by their exact spelling.
    """
    if len(text) > MAX_RAW_CHARACTERS:
        return text
    return unicodedata.normalize("NFKC", text).strip()


def fold_name(text: str) -> str:
    """Returns the form in which two spellings of one name are equal.

    Unicode's compatibility caseless match (The Unicode Standard, D146), with runs of spaces as one. Text beyond
    :data:`MAX_RAW_CHARACTERS` is returned unchanged.
    """
    if len(text) > MAX_RAW_CHARACTERS:
        return text
    folded = unicodedata.normalize("NFD", text)
    for _ in range(2):
        folded = unicodedata.normalize("NFKC", folded.casefold())
    return " ".join(folded.split())


def name_keys(text: str) -> NameKeys:
    """Returns the keys by which a name is compared. Text beyond :data:`MAX_RAW_CHARACTERS` is its own key."""
    if len(text) > MAX_RAW_CHARACTERS:
        return NameKeys(text, text, text)
    folded = fold_name(text)
    return NameKeys(folded, skeleton(normalise_name(text)), skeleton(folded))


def _is_shown(character: str) -> bool:
    category = unicodedata.category(character)
    if category in _REFUSED_CATEGORIES or (category == "Zs" and character != " "):
        return False
    code = ord(character)
    return not any(first <= code <= last for first, last in _INVISIBLE)


def _check_name(text: str, what: str, least: int) -> str:
    name = normalise_name(text)
    if len(text) > MAX_RAW_CHARACTERS or not least <= len(name) <= NAME_MAX_CHARACTERS:
        raise BadInput(f"A {what} has {least} to {NAME_MAX_CHARACTERS} characters.")
    if not all(map(_is_shown, name)):
        raise BadInput(f"A {what} cannot contain control or invisible characters.")
    return name


def check_username(text: str) -> str:
    """Returns the name that a user registers with, as it is stored.

    Raises:
        BadInput: not 2 to 32 characters, or a control or invisible one among them.
    """
    return _check_name(text, "username", USERNAME_MIN_CHARACTERS)


def check_guest_name(text: str) -> str:
    """Returns the name that a guest is shown under.

    Raises:
        BadInput: not 1 to 32 characters, or a control or invisible one among them.
    """
    return _check_name(text, "name", 1)


def check_password(text: str) -> None:
    """Checks a new password; it is used unchanged, so every character counts.

    Raises:
        BadInput: not 6 to 1,024 characters.
    """
    if len(text) < PASSWORD_MIN_CHARACTERS:
        raise BadInput(f"A password has at least {PASSWORD_MIN_CHARACTERS} characters.")
    if len(text) > PASSWORD_MAX_CHARACTERS:
        raise BadInput(f"A password has at most {PASSWORD_MAX_CHARACTERS} characters.")


def check_device(text: str | None) -> str:
    """Returns the name that a device or program gives itself, for its user to recognise; empty for None.

    Raises:
        BadInput: more than 64 characters, or a control or invisible one among them.
    """
    name = normalise_name(text or "")
    if len(name) > DEVICE_MAX_CHARACTERS:
        raise BadInput(f"A device name has at most {DEVICE_MAX_CHARACTERS} characters.")
    if not all(map(_is_shown, name)):
        raise BadInput("A device name cannot contain control or invisible characters.")
    return name


def check_user_id(text: str) -> None:
    """Checks an id that a client has sent.

    Raises:
        BadInput: not 1 to 64 letters, digits, ``_`` and ``-``, or a reserved word.
    """
    if _USER_ID.fullmatch(text) is None:
        raise BadInput("A user_id has 1 to 64 characters: letters, digits, _ and -.")
    if text.lower() in RESERVED_IDS:
        raise BadInput("This user_id is a reserved word. Choose another one, or leave it out to get one.")


def make_user_id(now_s: float, random_hex: Callable[[int], str]) -> str:
    """Returns a new id, ``u-{unix ms}-{8 random}``.

    Args:
        now_s: Unix seconds.
        random_hex: as ``secrets.token_hex``.
    """
    return f"u-{int(now_s * 1000)}-{random_hex(4)}"


def default_guest_name(user_id: str) -> str:
    """Returns the name of a guest who has sent none."""
    return f"guest-{user_id[-6:]}"
