"""``clasp-relay check-config``: checks a policy and explains what it allows, or prints the settings in force."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from clasp_relay.access.policy import Explanation, Policy, explain_read, explain_write
from clasp_relay.access.policy.language.json_keys import parse_json
from clasp_relay.access.policy_choice import choose_history, choose_policy, load_policy
from clasp_relay.command_line.option_table import OPTIONS, Option
from clasp_relay.command_line.options import Options, fail
from clasp_relay.core.state.params import ParamLimits, Params
from clasp_relay.errors import RequestError, StartError
from clasp_relay.rules.rule_file import Rules, load_rules
from clasp_relay.settings import Settings
from clasp_relay.storage.state_file import StateFile
from clasp_relay.wire.address import check_address
from clasp_relay.wire.messages import NULL
from clasp_relay.wire.values import encode_value

__all__ = ["run"]

_ABOUT_A_FILE = ("--as", "--state", "--read", "--write", "--value", "--guest", "--session", "--help", "-h")


class _Parser(argparse.ArgumentParser):
    """Reports errors as the relay does: one line on stderr, exit status 1."""

    def error(self, message: str) -> NoReturn:
        """See the base class."""
        fail(f"check-config: {message}; see clasp-relay check-config --help")


def run(arguments: Sequence[str], out: TextIO | None = None) -> None:
    """Runs the command: the answer goes to stdout, an error is one line on stderr.

    Args:
        arguments: the arguments behind ``check-config``: a policy file and options about it, or options of the relay.
        out: where the answer goes; None for stdout.

    Raises:
        SystemExit: something is wrong (1), or help was asked for (0).
    """
    out = sys.stdout if out is None else out
    try:
        if _is_about_a_file(arguments):
            _check_file(_parser().parse_args(arguments), out)
        else:
            _show_settings(arguments, out)
    except StartError as error:
        fail(str(error))


def _is_about_a_file(arguments: Sequence[str]) -> bool:
    if arguments and not arguments[0].startswith("-"):
        return True
    return any(argument.partition("=")[0] in _ABOUT_A_FILE for argument in arguments)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="clasp-relay check-config",
        usage="%(prog)s [options of the relay]\n       %(prog)s FILE [--as USER --read ADDRESS | --write ADDRESS] ...",
        description="Without FILE: prints the settings in force and where each comes from. With FILE: checks that it "
        "is a valid policy and, with --as, explains what a user may do, by which rule, and why.",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="the policy: a JSON file, chat or chat-compat")
    parser.add_argument("--as", dest="user", metavar="USER", help="id of the user")
    parser.add_argument("--guest", action="store_true", help="the user is a guest (default: a registered user)")
    parser.add_argument(
        "--session", metavar="ID", help="id of a session of the user, for segment_is_own_session_id (default: none)"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--read", metavar="ADDRESS", help="explain whether the user may read this address")
    what.add_argument("--write", metavar="ADDRESS", help="explain whether the user may write this address")
    parser.add_argument("--value", metavar="JSON", help="value to write (default: null)")
    parser.add_argument(
        "--state", metavar="FILE", type=Path, help="state.json with the params that are set (default: none)"
    )
    return parser


def _check_file(asked: argparse.Namespace, out: TextIO) -> None:
    """Checks a policy, and explains what is asked about it."""
    address = asked.read or asked.write
    if (asked.user is None) != (address is None):
        fail("check-config: --as needs --read or --write, and --read and --write need --as")
    if asked.value is not None and asked.write is None:
        fail("check-config: --value needs --write")
    if asked.guest and asked.write is None:
        fail("check-config: --guest needs --write")
    if asked.session is not None and asked.write is None:
        fail("check-config: --session needs --write")
    if asked.state is not None and address is None:
        fail("check-config: --state needs --read or --write")
    policy = load_policy(asked.file)
    print(f"{asked.file}: valid policy", file=out)
    for notice in policy.document.notices:
        print(f"{asked.file}: {notice}", file=out)
    for entry in policy.document.history:
        print(f"{asked.file}: history of {entry.path.text}: {entry.describe()}", file=out)
    if address is not None:
        print(_explain(policy, asked, address), file=out)


def _explain(policy: Policy, asked: argparse.Namespace, address: str) -> Explanation:
    state = Params(ParamLimits(max_params=sys.maxsize, max_state_bytes=sys.maxsize))
    if asked.state is not None:
        loaded = StateFile(asked.state).load()
        if not loaded.found:
            fail(f"--state: {asked.state} is missing")
        state.load(loaded.image)
    now_us = time.time_ns() // 1_000
    try:
        check_address(address)
    except RequestError as error:
        fail(f"--{'write' if asked.read is None else 'read'}: {error.message}: {address}")
    try:
        if asked.read is not None:
            return explain_read(policy, asked.user, address, state, now_us)
        return explain_write(
            policy,
            asked.user,
            address,
            _value(asked.value),
            state,
            now_us,
            is_account=not asked.guest,
            session_ids=_Session(asked.session),
        )
    except ValueError as error:  # the user's id is not valid in a scope
        fail(f"--as: {error}")


class _Session:
    """Implements ``SessionIds``: the user has one session, or none."""

    def __init__(self, session_id: str | None) -> None:
        self._session_id = session_id

    def own_until_us(self, _subject: str, session_id: str, now_us: int) -> int | None:
        """See ``SessionIds``."""
        return now_us + 1 if session_id == self._session_id else None


def _value(text: str | None) -> bytes:
    if text is None:
        return NULL
    value = parse_json(text, "--value")
    try:
        return encode_value(value)
    except ValueError as error:
        fail(f"--value: {error}")


def _show_settings(arguments: Sequence[str], out: TextIO) -> None:
    """Prints every setting with its source, and the policy in force."""
    options = Options()
    options.parseOptions(arguments)
    settings = options.settings
    for option in OPTIONS:
        if not option.is_flag:
            source = options.sources.get(option.field)
            value = _shown(option, getattr(settings, option.field))
            print(f"--{option.name}: {value} ({source or 'default'})", file=out)
    if settings.rules is not None:
        _show_rules(load_rules(settings.rules), out)
    policy, why = (None, "none (open mode)") if settings.is_open_mode else choose_policy(settings.app_config)
    print(f"policy in force: {why}", file=out)
    for line in _history(settings, policy):
        print(f"history in force: {line}", file=out)


def _history(settings: Settings, policy: Policy | None) -> list[str]:
    """Returns a line for each history rule in force."""
    by_name = settings.asks_for_journal
    rules = choose_history(policy, settings.history, by_name=by_name) if settings.keeps_entries else None
    if rules is None:
        return ["none"]
    return [f"{entry.path.text} ({entry.describe()})" for entry in rules.entries]


def _show_rules(rules: Rules, out: TextIO) -> None:
    """Prints the trigger and the actions of each rule."""
    print(f"rules: {len(rules.rules)} at work, {rules.disabled} disabled", file=out)
    if rules.scopes is not None:
        print(f"rules may do: {', '.join(rules.scopes) or 'nothing'}", file=out)
    for rule in rules.rules:
        trigger = rule.trigger
        what = f"{trigger.seconds:g} s" if trigger.pattern is None else trigger.pattern.text
        does = ", ".join(f"{action.kind} {action.address or f'{action.delay_s:g} s'}" for action in rule.actions)
        print(f"rule {rule.id}: {trigger.kind} {what} -> {does or 'nothing'}", file=out)


def _shown(option: Option, value: object) -> str:
    if value is None or value == ():
        return option.default_text or "not set"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
