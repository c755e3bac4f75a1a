"""``clasp-relay token``, ``invite`` and ``hook``: manage device tokens, invites and webhooks.

They may be used while the relay runs. What a script needs (a new token, a list) goes to stdout and all else to stderr.
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

from clasp_relay.access.devices import make_device, parse_scopes
from clasp_relay.access.hooks import CHAT, MAX_HOOK_NAME, check_hook_address
from clasp_relay.access.names import name_keys
from clasp_relay.access.refusals import BadInput
from clasp_relay.access.tokens import digest_of
from clasp_relay.command_line.options import CommandParser, fail, settings_of
from clasp_relay.errors import RequestError, StartError
from clasp_relay.storage.audit import AuditEntry
from clasp_relay.storage.devices import DeviceToken
from clasp_relay.storage.folder import prepare_folder
from clasp_relay.storage.hooks import Hook, HookGone
from clasp_relay.storage.users import IdentityTaken, Invite, InviteGone, StoreBusy, TokenGone
from clasp_relay.storage.users_file import damage_told
from clasp_relay.storage.users_sqlite import SqliteUsers
from clasp_relay.wire.address import check_address

__all__ = ["COMMANDS", "COMMAND_LINE", "add_verb", "aligned", "parse_duration", "run", "time_text", "with_users"]

COMMANDS = ("token", "invite", "hook")
"""The first words of these command lines."""

COMMAND_LINE = "command line"
"""The actor in the audit log for what a command does."""

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_LONGEST_NAME = 100
_RELAY_OPTIONS = ("data-dir", "auth-db", "config")
"""Options of the relay that say where its users' database is."""


def parse_duration(text: str) -> int | None:
    """Returns the seconds of ``90s``, ``15m``, ``12h`` or ``30d``; None for ``never`` and ``0``.

    Raises:
        argparse.ArgumentTypeError: it is none of these.
    """
    if text in ("never", "0"):
        return None
    found = _DURATION.fullmatch(text)
    if found is None or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a duration such as 90s, 15m, 12h, 30d, or never")
    return int(found[1]) * _UNITS_S[found[2]]


def run(arguments: Sequence[str], out: TextIO | None = None) -> None:
    """Runs one of the commands.

    Args:
        arguments: from the word ``token``, ``invite`` or ``hook`` on.
        out: where a token or a list goes; None for stdout.

    Raises:
        SystemExit: something is wrong (1), or help was asked for (0).
    """
    asked = _parser().parse_args(arguments)
    with_users(asked, _COMMANDS[asked.noun, asked.verb], out)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="clasp-relay", allow_abbrev=False)
    nouns = parser.add_subparsers(dest="noun", required=True)
    tokens = nouns.add_parser("token", help="device tokens").add_subparsers(dest="verb", required=True)
    create = add_verb(tokens, "create", "Make a device token. It is printed once and kept nowhere in clear.")
    create.add_argument("--scopes", required=True, type=_scopes, help="what it may do: read:/a/**,write:/a/**")
    create.add_argument("--subject", help="an account, or a free id; default: one of its own, clasp.device.ID")
    create.add_argument("--name", default="", type=_name, help="for people: in lists and in the log")
    create.add_argument("--expires", default=None, type=parse_duration, help="90s, 15m, 12h, 30d, never (default)")
    listed = add_verb(tokens, "list", "List the device tokens that are not revoked.")
    listed.add_argument("--json", action="store_true", help="as JSON")
    revoke = add_verb(tokens, "revoke", "Revoke a device token; its sessions end within a second.")
    revoke.add_argument("id", metavar="ID", help="as token list shows it")
    invites = nouns.add_parser("invite", help="invites").add_subparsers(dest="verb", required=True)
    invite = add_verb(invites, "create", "Make an invite to register, for --registration invite.")
    invite.add_argument("--uses", default=1, type=_uses, help="how many may register with it (default: 1)")
    invite.add_argument("--expires", default="7d", type=parse_duration, help="90s, 15m, 12h, 7d (default), never")
    listed = add_verb(invites, "list", "List the invites that are valid.")
    listed.add_argument("--json", action="store_true", help="as JSON")
    revoke = add_verb(invites, "revoke", "Revoke an invite: nobody can register with it any more.")
    revoke.add_argument("id", metavar="ID", help="as invite list shows it")
    hooks = nouns.add_parser("hook", help="webhooks").add_subparsers(dest="verb", required=True)
    hook = add_verb(hooks, "create", "Make an incoming webhook. Its path is printed once and kept nowhere in clear.")
    hook.add_argument("--address", required=True, help="where its messages go: /chat/room/ROOM/messages")
    hook.add_argument("--template", default=CHAT, choices=[CHAT], help="what its messages are (default: chat)")
    hook.add_argument("--name", default="Webhook", type=_hook_name, help="whose name they show (default: Webhook)")
    listed = add_verb(hooks, "list", "List the webhooks.")
    listed.add_argument("--json", action="store_true", help="as JSON")
    revoke = add_verb(hooks, "revoke", "Revoke a webhook: nothing can be posted to it any more.")
    revoke.add_argument("id", metavar="ID", help="as hook list shows it")
    return parser


def add_verb(verbs: argparse._SubParsersAction[CommandParser], verb: str, what: str) -> argparse.ArgumentParser:
    """Adds a verb, with the options that say where the users' database is.

    Args:
        verbs: the parser's verbs.
        verb: the word.
        what: what it does, in a sentence.
    """
    parser = verbs.add_parser(verb, description=what, help=what, allow_abbrev=False)
    for name in _RELAY_OPTIONS:
        parser.add_argument(f"--{name}", metavar="PATH", help="as the relay has it")
    return parser


def _scopes(text: str) -> tuple[str, ...]:
    try:
        return parse_scopes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _name(text: str) -> str:
    if not text.isprintable() or len(text) > _LONGEST_NAME:
        raise argparse.ArgumentTypeError(f"at most {_LONGEST_NAME} characters, none of them a control character")
    return text


def _hook_name(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > MAX_HOOK_NAME:
        raise argparse.ArgumentTypeError(f"1 to {MAX_HOOK_NAME} characters, none of them a control character")
    return text


def _uses(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,6}", text) is None or int(text) == 0:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 1 to 999999")
    return int(text)


def with_users(
    asked: argparse.Namespace, command: Callable[[argparse.Namespace, SqliteUsers, TextIO], None], out: TextIO | None
) -> None:
    """Runs a command on the users' database of the relay that options, variables and config file describe.

    Args:
        asked: the arguments.
        command: takes them, the database, and where its output goes.
        out: where that is; None for stdout.

    Raises:
        SystemExit: the database cannot be used.
    """
    try:
        settings = settings_of(asked, _RELAY_OPTIONS)
        prepare_folder("--data-dir" if settings.auth_db is None else "--auth-db", settings.users_file.parent)
        users = SqliteUsers(settings.users_file, name_keys)
        try:
            with damage_told(settings.users_file):
                command(asked, users, sys.stdout if out is None else out)
        finally:
            users.close()
    except StartError as error:
        fail(str(error))
    except StoreBusy as error:
        fail(f"{error}: another process holds the users' database; try again")


def _note(users: SqliteUsers, action: str, target: str, **detail: object) -> None:
    """Adds to the audit log what a command has done."""
    entry = AuditEntry(int(time.time()), action, actor_name=COMMAND_LINE, target=target, detail=detail)
    users.audit.add([entry])


def _create_token(asked: argparse.Namespace, users: SqliteUsers, out: TextIO) -> None:
    now_s = int(time.time())
    expires_s = None if asked.expires is None else now_s + asked.expires
    try:
        token, device = make_device(
            users.devices, asked.scopes, asked.subject, asked.name, now_s, expires_s, secrets.token_hex
        )
    except BadInput as error:
        fail(f"--subject: {error.sentence}")
    except IdentityTaken:
        fail(f"--subject: {asked.subject} is the id of a guest; name an account or another id")
    _note(users, "token.create", device.id, subject=device.subject, name=device.name)
    print(token, file=out)
    expiry = time_text(device.expires_s)
    print(f"device token {device.id} made: subject {device.subject}, expires: {expiry}", file=sys.stderr)


def _list_tokens(asked: argparse.Namespace, users: SqliteUsers, out: TextIO) -> None:
    devices = users.devices.all()
    if asked.json:
        print(json.dumps([_as_json(device) for device in devices], ensure_ascii=False, indent=2), file=out)
        return
    rows = [("ID", "NAME", "SUBJECT", "SCOPES", "EXPIRES")]
    for device in devices:
        expiry = time_text(device.expires_s)
        rows.append((device.id, device.name or "-", device.subject, ",".join(device.scopes), expiry))
    for line in aligned(rows):
        print(line, file=out)


def _as_json(device: DeviceToken) -> dict[str, object]:
    return {
        "id": device.id,
        "name": device.name,
        "subject": device.subject,
        "scopes": list(device.scopes),
        "created_at": device.created_s,
        "expires_at": device.expires_s,
    }


def aligned(rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    """Yields the rows of a table as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def time_text(at_s: int | None) -> str:
    """Formats a time in Unix seconds for people; None is never."""
    return "never" if at_s is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))


def _revoke_token(asked: argparse.Namespace, users: SqliteUsers, _out: TextIO) -> None:
    try:
        users.devices.revoke(asked.id, int(time.time()))
    except TokenGone:
        fail(f"token revoke: no device token has the id {asked.id!r}; see clasp-relay token list")
    _note(users, "token.revoke", asked.id)
    print(f"device token {asked.id} revoked", file=sys.stderr)


def _create_invite(asked: argparse.Namespace, users: SqliteUsers, out: TextIO) -> None:
    now_s = int(time.time())
    invite = secrets.token_hex(16)
    expires_s = None if asked.expires is None else now_s + asked.expires
    users.add_invite(digest_of(invite), now_s, expires_s, asked.uses)
    _note(users, "invite.create", Invite(digest_of(invite), now_s, expires_s, asked.uses).id, uses=asked.uses)
    print(invite, file=out)
    made = Invite(digest_of(invite), now_s, expires_s, asked.uses)
    print(f"invite {made.id} made: uses: {asked.uses}, expires: {time_text(expires_s)}", file=sys.stderr)


def _list_invites(asked: argparse.Namespace, users: SqliteUsers, out: TextIO) -> None:
    invites = users.invites(int(time.time()))
    if asked.json:
        shown = [
            {"id": each.id, "uses_left": each.uses_left, "created_at": each.created_s, "expires_at": each.expires_s}
            for each in invites
        ]
        print(json.dumps(shown, indent=2), file=out)
        return
    rows = [("ID", "USES", "EXPIRES"), *((each.id, str(each.uses_left), time_text(each.expires_s)) for each in invites)]
    for line in aligned(rows):
        print(line, file=out)


def _revoke_invite(asked: argparse.Namespace, users: SqliteUsers, _out: TextIO) -> None:
    try:
        users.revoke_invite(asked.id)
    except InviteGone:
        fail(f"invite revoke: no invite has the id {asked.id!r}; see clasp-relay invite list")
    _note(users, "invite.revoke", asked.id)
    print(f"invite {asked.id} revoked", file=sys.stderr)


def _create_hook(asked: argparse.Namespace, users: SqliteUsers, out: TextIO) -> None:
    try:
        check_address(asked.address)
        check_hook_address(asked.template, asked.address)
    except (RequestError, ValueError) as error:
        fail(f"--address: {error.message if isinstance(error, RequestError) else error}")
    secret = secrets.token_hex(16)
    hook = Hook(digest_of(secret), asked.address, asked.template, asked.name, int(time.time()))
    users.hooks.add(hook)
    _note(users, "hook.create", hook.id, address=hook.address)
    print(f"/hooks/{secret}", file=out)
    print(f"hook {hook.id} made: posts to {hook.address}", file=sys.stderr)


def _list_hooks(asked: argparse.Namespace, users: SqliteUsers, out: TextIO) -> None:
    hooks = users.hooks.all()
    if asked.json:
        shown = [
            {"id": each.id, "name": each.name, "address": each.address, "template": each.template}
            | {"created_at": each.created_s}
            for each in hooks
        ]
        print(json.dumps(shown, ensure_ascii=False, indent=2), file=out)
        return
    rows = [
        ("ID", "NAME", "TEMPLATE", "ADDRESS"),
        *((each.id, each.name, each.template, each.address) for each in hooks),
    ]
    for line in aligned(rows):
        print(line, file=out)


def _revoke_hook(asked: argparse.Namespace, users: SqliteUsers, _out: TextIO) -> None:
    try:
        users.hooks.revoke(asked.id)
    except HookGone:
        fail(f"hook revoke: no hook has the id {asked.id!r}; see clasp-relay hook list")
    _note(users, "hook.revoke", asked.id)
    print(f"hook {asked.id} revoked", file=sys.stderr)


_COMMANDS = {
    ("token", "create"): _create_token,
    ("token", "list"): _list_tokens,
    ("token", "revoke"): _revoke_token,
    ("invite", "create"): _create_invite,
    ("invite", "list"): _list_invites,
    ("invite", "revoke"): _revoke_invite,
    ("hook", "create"): _create_hook,
    ("hook", "list"): _list_hooks,
    ("hook", "revoke"): _revoke_hook,
}
