"""Files that hold one secret each: the administrator's token, and the key for hashing client addresses."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from clasp_relay.access.tokens import ADMIN_SCOPES, TokenRecord, digest_of, make_token
from clasp_relay.core.session.identity import TOKEN_PREFIX
from clasp_relay.errors import StartError
from clasp_relay.logs import events

__all__ = [
    "ADMIN_SUBJECT",
    "admin_record",
    "read_or_make_admin_token",
    "read_or_make_key",
    "read_turn_secret",
    "replace_key",
]

ADMIN_SUBJECT = "clasp.admin"
"""The subject of the admin token. No user or guest can have this id, since it has a dot."""

KEY_BYTES = 32

_TOKEN = re.compile(rf"{TOKEN_PREFIX}[A-Za-z0-9_-]{{32,128}}")


def read_or_make_admin_token(path: Path, random_hex: Callable[[int], str]) -> str:
    """Returns the admin token in a file; makes the file (mode 0600) and its folder if there is none.

    Args:
        path: the file; it contains the token and nothing else.
        random_hex: as ``secrets.token_hex``.

    Raises:
        StartError: the file cannot be read or made, or contains something else.
    """
    try:
        token = _read(path)
    except FileNotFoundError:
        token = make_token(random_hex)
        _make(path, f"{token}\n".encode("ascii"), "admin token")
        return token
    except OSError as error:
        raise StartError(f"{path}: the admin token cannot be read: {error.strerror}") from error
    if _TOKEN.fullmatch(token) is None:
        raise StartError(
            f"{path}: not an admin token (cpsk_ and at least 32 letters, digits, _ or -); "
            "remove the file to have one made"
        )
    return token


def admin_record(token: str, now_s: float) -> TokenRecord:
    """Returns the record of the admin token.

    Args:
        token: as ``read_or_make_admin_token`` returns it.
        now_s: Unix seconds.
    """
    return TokenRecord(digest_of(token), ADMIN_SUBJECT, "admin", False, ADMIN_SCOPES, int(now_s), None)


def read_or_make_key(users_file: Path, random_bytes: Callable[[int], bytes]) -> bytes:
    """Returns the key that client addresses are hashed with; makes it if there is none.

    It is in a file of its own beside users.db, so that no address can be found from a copy of users.db.

    Args:
        users_file: users.db; the key's file has the same name and ``.key``.
        random_bytes: as ``secrets.token_bytes``.

    Raises:
        StartError: the file cannot be read or made, or holds something else.
    """
    path = users_file.with_name(f"{users_file.name}.key")
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = random_bytes(KEY_BYTES)
        _make(path, key, "key of address hashes")
    except OSError as error:
        raise StartError(f"{path}: the key of address hashes cannot be read: {error.strerror}") from error
    if len(key) != KEY_BYTES:
        raise StartError(f"{path}: not a key ({KEY_BYTES} bytes); remove the file to have one made")
    return key


def replace_key(users_file: Path, key: bytes) -> None:
    """Replaces the key that client addresses are hashed with; blocks.

    Args:
        users_file: users.db; see ``read_or_make_key``.
        key: the new key.

    Raises:
        StartError: the file cannot be written, or the key has another length.
    """
    path = users_file.with_name(f"{users_file.name}.key")
    if len(key) != KEY_BYTES:
        raise StartError(f"{path}: the cluster has no key of {KEY_BYTES} bytes")
    made = path.with_name(f"{path.name}.new")
    made.unlink(missing_ok=True)
    _make(made, key, "cluster's key of address hashes")
    try:
        made.replace(path)
    except OSError as error:
        raise StartError(f"{path}: the key of address hashes cannot be written: {error.strerror}") from error


def read_turn_secret(path: Path) -> str:
    """Returns the secret in a file that the relay shares with a TURN server.

    Raises:
        StartError: the file cannot be read, or holds something else.
    """
    try:
        secret = _read(path)
    except OSError as error:
        raise StartError(f"--turn-secret: {path} cannot be read: {error.strerror}") from error
    if not secret or not secret.isascii() or not secret.isprintable():
        raise StartError(f"--turn-secret: {path}: one line of printable ASCII is expected, as in static-auth-secret")
    return secret


def _read(path: Path) -> str:
    with path.open(encoding="ascii", errors="replace") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            events.ADMIN_TOKEN_EXPOSED.log(path=str(path))
        return file.read(1024).strip()


def _make(path: Path, content: bytes, what: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StartError(f"{path}: the {what} cannot be written: {error.strerror}") from error
    events.SECRET_MADE.log(path=str(path), what=what)
