"""``clasp-relay admin``: grants access to the console, and does what has to work without it.

It may be used while the relay runs: a relay with the same ``users.db`` applies the change within a second. What a
script needs (a list, a link, the audit log) goes to stdout and all else to stderr.
"""

from __future__ import annotations

import argparse
import calendar
import json
import re
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TextIO

from clasp_relay.access.names import fold_name, normalise_name
from clasp_relay.access.people import make_reset
from clasp_relay.access.tokens import digest_of
from clasp_relay.command_line.account_commands import COMMAND_LINE, add_verb, aligned, time_text, with_users
from clasp_relay.command_line.options import CommandParser, fail
from clasp_relay.storage.administration import AdminStore, Person
from clasp_relay.storage.audit import AuditEntry
from clasp_relay.storage.users import PersonGone
from clasp_relay.storage.users_sqlite import SqliteUsers

__all__ = ["COMMAND", "run"]

COMMAND = "admin"
"""The first word of these command lines."""

EXPORTED_AT_ONCE = 1_000
LATEST_S = 1 << 53


def run(arguments: Sequence[str], out: TextIO | None = None) -> None:
    """Runs one of the commands.

    Args:
        arguments: behind the word ``admin``.
        out: where a list, a link or the log goes; None for stdout.

    Raises:
        SystemExit: something is wrong (1), or help was asked for (0).
    """
    asked = _parser().parse_args(arguments)
    with_users(asked, _COMMANDS[asked.verb], out)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="clasp-relay admin", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, what in (
        ("grant", "Let a user sign in to the console at /console."),
        ("revoke", "Let a user no longer sign in to the console; console tokens end within a second."),
        ("disable", "Disable an account: sessions end within a second, tokens are revoked, nobody signs in to it."),
        ("enable", "Enable a disabled account."),
        ("reset-password", "Make a link with which a user chooses a new password: valid once, and for a day."),
    ):
        add_verb(verbs, verb, what).add_argument("user", metavar="USER", help="a user's name or id")
    delete = add_verb(
        verbs, "delete", "Delete a user or guest, with files and all params that are theirs. The name is free again."
    )
    delete.add_argument("user", metavar="USER", help="a user's name, or the id of a user or guest")
    delete.add_argument(
        "--messages",
        required=True,
        choices=["keep", "erase"],
        help="whether the relay's history keeps what they said; what browsers have stored stays there",
    )
    add_verb(verbs, "list", "List who may sign in to the console.").add_argument(
        "--json", action="store_true", help="as JSON"
    )
    audit = verbs.add_parser("audit", help="the audit log", allow_abbrev=False)
    export = add_verb(audit.add_subparsers(dest="audit_verb", required=True), "export", "Print it as JSON lines.")
    export.add_argument("--from", dest="from_s", default=0, type=_day, help="first day: 2026-01-31 (UTC)")
    export.add_argument("--to", dest="to_s", default=LATEST_S, type=_day, help="first day that is left out")
    return parser


def _day(text: str) -> int:
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is None:
            raise ValueError(text)
        return calendar.timegm(time.strptime(text, "%Y-%m-%d"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a day such as 2026-01-31") from None


def _find(asked: argparse.Namespace, users: SqliteUsers) -> Person:
    name = normalise_name(asked.user)
    try:
        return users.administration.find(name, fold_name(name))
    except PersonGone:
        fail(f"admin {asked.verb}: there is no user {asked.user!r}")


def _entry(action: str, person: Person) -> AuditEntry:
    return AuditEntry(int(time.time()), action, actor_name=COMMAND_LINE, target=person.user_id)


class _Change(NamedTuple):
    """A command that changes one thing about a user."""

    make: Callable[[AdminStore, str, AuditEntry], None]
    done: str
    """The message once it is done, behind the user's name."""
    not_so: str = ""
    """The message if there is nothing to change."""


_CHANGES = {
    "grant": _Change(AdminStore.grant, "may sign in to the console at /console"),
    "revoke": _Change(
        AdminStore.withdraw,
        "may no longer sign in to the console",
        "is no administrator; see clasp-relay admin list",
    ),
    "disable": _Change(AdminStore.disable, "is disabled"),
    "enable": _Change(AdminStore.enable, "is enabled", "is not disabled"),
}


def _change(asked: argparse.Namespace, users: SqliteUsers, _out: TextIO) -> None:
    person, change = _find(asked, users), _CHANGES[asked.verb]
    try:
        change.make(users.administration, person.user_id, _entry(f"admin.{asked.verb}", person))
    except PersonGone:
        fail(f"admin {asked.verb}: {person.username} {change.not_so}")
    print(f"{person.username} ({person.user_id}) {change.done}", file=sys.stderr)


def _delete(asked: argparse.Namespace, users: SqliteUsers, _out: TextIO) -> None:
    people, erases = users.administration, asked.messages == "erase"
    name = normalise_name(asked.user)
    try:
        # Names first: a guest may have chosen a user's name as an id.
        person = people.find(name, fold_name(name))
    except PersonGone:
        try:
            person = people.person(asked.user, int(time.time()))
        except PersonGone:
            fail(f"admin delete: there is no user or guest {asked.user!r}")
    entry = _entry("admin.delete", person)._replace(detail={"messages": asked.messages})
    people.delete(person.user_id, entry, erases_messages=erases)
    what = "params, files and messages" if erases else "params and files"
    print(
        f"{person.username} ({person.user_id}) is deleted; a running relay removes their {what} within a moment, "
        "another one when it starts",
        file=sys.stderr,
    )


def _reset_password(asked: argparse.Namespace, users: SqliteUsers, out: TextIO) -> None:
    person = _find(asked, users)
    link = make_reset(time.time(), secrets.token_hex)
    entry = _entry("admin.reset_password", person)
    users.administration.add_reset(person.user_id, digest_of(link.secret), link.expires_s, entry)
    print(link.path, file=out)
    until = time_text(link.expires_s)
    print(
        f"{person.username} ({person.user_id}) opens this path of the relay and chooses a new password, until {until}",
        file=sys.stderr,
    )


def _list(asked: argparse.Namespace, users: SqliteUsers, out: TextIO) -> None:
    people = users.administration.administrators()
    if asked.json:
        shown = [{"user_id": each.user_id, "username": each.username, "disabled": each.is_disabled} for each in people]
        print(json.dumps(shown, ensure_ascii=False, indent=2), file=out)
        return
    rows = [("ID", "NAME", "DISABLED")]
    rows += [(each.user_id, each.username, "yes" if each.is_disabled else "no") for each in people]
    for line in aligned(rows):
        print(line, file=out)


def _export(asked: argparse.Namespace, users: SqliteUsers, out: TextIO) -> None:
    seq = 0
    while rows := users.audit.after(seq, EXPORTED_AT_ONCE):
        seq = rows[-1].seq
        for row in rows:
            if asked.from_s <= row.entry.at_s < asked.to_s:
                print(row.as_line(), file=out)


_COMMANDS: dict[str, Callable[[argparse.Namespace, SqliteUsers, TextIO], None]] = {
    **dict.fromkeys(_CHANGES, _change),
    "delete": _delete,
    "reset-password": _reset_password,
    "list": _list,
    "audit": _export,
}
