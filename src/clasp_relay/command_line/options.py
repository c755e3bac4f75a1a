"""The command line: reads arguments, environment and config file into ``Settings``, by the table of options."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from twisted.python import usage

from clasp_relay import __version__
from clasp_relay.command_line.config_file import ConfigError, read_config
from clasp_relay.command_line.option_table import NOT_SUPPORTED, OPTIONS, Option
from clasp_relay.command_line.upstream_options import (
    ABOUT_ACCOUNTS,
    IGNORED,
    OPEN_SOURCE,
    UpstreamOptions,
    reason_against,
    reason_against_value,
)
from clasp_relay.logs.levels import LOG_FORMATS
from clasp_relay.settings import LOG_LEVELS, Contradiction, Settings

__all__ = ["CommandParser", "Options", "fail", "rust_log_level", "settings_of"]

_BY_NAME: Mapping[str, Option] = {
    ("-" if len(name) == 1 else "--") + name: option for option in OPTIONS for name in (option.name, *option.aliases)
}
_OWN = ("--help", "--version")
_KUBERNETES = re.compile(r"(tcp|udp|sctp)://")


def rust_log_level(text: str) -> str | None:
    """Returns the default level in a ``RUST_LOG``, or None.

    In ``info,clasp_router=debug`` that is ``info``. The variable is shared with other programs, so words that are not
    understood are no error.
    """
    words = [word.strip().lower() for word in text.split(",")]
    return next((word for word in reversed(words) if word in LOG_LEVELS), None)


def fail(message: str) -> NoReturn:
    """Ends the process with one line on stderr and exit status 1.

    twistd would print all of its usage, or a traceback. ``sys.__stderr__``, because twistd turns
    ``sys.stderr`` into log events.

    Raises:
        SystemExit: always.
    """
    print("clasp-relay: " + " ".join(message.split()), file=sys.__stderr__)
    raise SystemExit(1)


class CommandParser(argparse.ArgumentParser):
    """Reads the arguments of a command such as ``token``; errors are one line on stderr, exit status 1."""

    def error(self, message: str) -> NoReturn:
        """See the base class."""
        fail(f"{self.prog.removeprefix('clasp-relay ')}: {message}; see {self.prog} --help")


def settings_of(asked: argparse.Namespace, names: Sequence[str]) -> Settings:
    """Returns the settings of the relay that a command is about.

    Args:
        asked: the command's arguments.
        names: those of them that are options of the relay, without dashes in front; None stands for one not given.

    Raises:
        SystemExit: they are wrong; one line on stderr has said why.
    """
    given = {name: getattr(asked, name.replace("-", "_")) for name in names}
    options = Options()
    options.parseOptions([f"--{name}={value}" for name, value in given.items() if value is not None])
    return options.settings


def _refuse(shown: str, name: str) -> NoReturn:
    """Refuses an option that does not exist, by its name."""
    if name in NOT_SUPPORTED:
        raise usage.UsageError(f"{shown}: not supported{reason_against(name)}")
    raise usage.UsageError(f"unknown option {shown}; see --help")


def _spelled_out(arguments: Sequence[str], upstream: UpstreamOptions) -> list[str]:
    """Writes every argument as ``--name=value``, with the option's own name.

    Options of the Rust relay that have no effect are left out and noted in ``upstream``.

    ``getopt`` also takes abbreviations, whose meaning would change when an option is added, and its error texts name
    neither the given value nor the expected one.
    """
    result: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        shown, has_value, value = _split(argument)
        upstream.note(shown)
        option = _BY_NAME.get(shown)
        if option is None and shown.startswith("--") and shown[2:] in IGNORED:
            _ignore(upstream, shown, value if has_value else next(rest, None))
            continue
        if option is None and shown not in _OWN:
            _refuse(shown, shown.lstrip("-"))
        if option is None or option.is_flag:
            if has_value:
                raise usage.UsageError(f"{shown}: got {value!r}, expected no value")
            result.append(shown)
            continue
        if not has_value:
            following = next(rest, None)
            if following is None:
                raise usage.UsageError(f"{shown}: got no value, expected {option.expected}")
            value = following
        if option.is_repeatable:
            start = f"--{option.name}="
            before = [each for each in result if each.startswith(start)]
            value = ",".join([each.removeprefix(start) for each in before] + [value])
            result = [each for each in result if not each.startswith(start)]
        result.append(f"--{option.name}={value}")
    return result


def _ignore(upstream: UpstreamOptions, shown: str, value: str | None) -> None:
    """Notes an option that has no effect; one with a bad value is refused all the same."""
    expected = IGNORED[shown[2:]][0].expected
    if value is None:
        raise usage.UsageError(f"{shown}: got no value, expected {expected}")
    try:
        upstream.ignore(shown[2:], value)
    except ValueError:
        raise usage.UsageError(f"{shown}: got {value!r}, expected {expected}") from None


def _split(argument: str) -> tuple[str, bool, str]:
    """Splits an argument into the option with its dashes, whether it contains a value, and the value."""
    if argument.startswith("--"):
        shown, equals, value = argument.partition("=")
        return shown, bool(equals), value
    if argument.startswith("-") and argument != "-":
        return argument[:2], len(argument) > 2, argument[2:]
    raise usage.UsageError(f"unexpected argument {argument!r}; see --help")


def _contents(option: Option, shown: str, text: str) -> object:
    """Parses the text of an option or variable; None when it sets nothing."""
    try:
        return option.parse(text)
    except ValueError:
        reason = reason_against_value(option.name, text)
        if reason is not None:
            raise usage.UsageError(f"{shown}: {text!r} is not supported: {reason}") from None
        raise usage.UsageError(f"{shown}: got {text!r}, expected {option.expected}") from None


class Options(usage.Options):
    """The options of ``twistd clasp-relay`` and ``clasp-relay``.

    Attributes:
        settings: the result of ``parseOptions``.
        sources: the option or variable that set each field which is not at its default.
        notices: what was ignored, as lines for the log.
    """

    synopsis = "[options]"
    longdesc = (
        "Every option can also be given as an environment variable (--data-dir as CLASP_DATA_DIR) "
        "and in a config file (data-dir = ...)."
    )
    optParameters = [  # noqa: RUF012  usage reads these two from the class
        [option.name, option.letter, None, option.described] for option in OPTIONS if not option.is_flag
    ]
    optFlags = [[option.name, option.letter, option.described] for option in OPTIONS if option.is_flag]  # noqa: RUF012

    settings: Settings

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Takes the variables from ``environment``, by default the process's own."""
        usage.Options.__init__(self)
        self.sources: dict[str, str] = {}
        self.notices: list[str] = []
        self._upstream = UpstreamOptions()
        self._environment = os.environ if environment is None else environment

    def opt_version(self) -> None:
        """Display the version and exit."""
        print(f"clasp-relay {__version__}")
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Reads the arguments and the environment into ``settings``.

        Raises:
            SystemExit: bad input; one line on stderr has said what is wrong.
        """
        try:
            arguments = sys.argv[1:] if options is None else options
            usage.Options.parseOptions(self, _spelled_out(arguments, self._upstream))
        except usage.UsageError as error:
            fail(str(error))

    def postOptions(self) -> None:
        """Makes ``settings``. A variable is not read where the command line sets the field."""
        given = {option: str(self[option.name]) for option in OPTIONS if self[option.name] not in (None, 0)}
        values = self._read(given, lambda option: f"--{option.name}")
        given = {option: text for option, text in self._variables().items() if option.field not in values}
        values |= self._read(given, lambda option: option.variable)
        values |= self._read_file(values)
        self._take_upstream(values)
        log_format = self._environment.get("LOG_FORMAT", "").lower()
        for field, value, variable in (
            ("log_level", rust_log_level(self._environment.get("RUST_LOG", "")), "RUST_LOG"),
            ("log_format", log_format if log_format in LOG_FORMATS else None, "LOG_FORMAT"),
        ):
            if field not in values and value is not None:
                values[field] = value
                self.sources[field] = variable
        try:
            self.settings = Settings(**values)
            self.settings.check_together(values)
        except Contradiction as error:
            raise usage.UsageError(error.said(self._name_of)) from None

    def _take_upstream(self, values: dict[str, Any]) -> None:
        """Warns of what is ignored, and turns accounts off where the Rust relay would have none.

        That relay has accounts only with ``--auth-port``. A command line that is clearly for it, and says nothing about
        accounts, means the same here.
        """
        self.notices += self._upstream.notices
        spelling = self._upstream.spelling
        if spelling and not ABOUT_ACCOUNTS & values.keys():
            values["auth_port"] = 0
            self.sources["auth_port"] = OPEN_SOURCE.format(spelling=spelling)
            self.notices.append(
                f"{spelling} is an option of the Rust relay, which has no accounts without --auth-port: "
                "neither has this relay now; --auth-port 7350 turns them on"
            )

    def _variables(self) -> dict[Option, str]:
        """Returns what the environment sets, by option.

        An empty variable counts as unset: Compose files pass ``CLASP_PORT: ${CLASP_PORT:-}``. Kubernetes sets
        ``CLASP_PORT=tcp://10.0.0.1:7330`` in every container where there is a Service called ``clasp``.
        """
        found: dict[Option, str] = {}
        for option in OPTIONS:
            text = self._environment.get(option.variable, "")
            if option.name.endswith("port") and _KUBERNETES.match(text):
                self.notices.append(
                    f"{option.variable}={text} is ignored: Kubernetes sets it for a Service of that name; "
                    f"--{option.name} sets the port"
                )
            elif text:
                found[option] = text
        return found

    def _read_file(self, above: Mapping[str, object]) -> dict[str, Any]:
        """Reads the config file, if there is one, for fields that neither command line nor environment set."""
        path = above.get("config_file")
        if not isinstance(path, Path):
            return {}
        try:
            found = read_config(path)
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None
        given = {option: text for option, text in found.items() if option.field not in above}
        return self._read(given, lambda option: f"{path}: {option.name}")

    def _read(self, given: Mapping[Option, str], name_of: Callable[[Option], str]) -> dict[str, Any]:
        """Parses texts into values by field; two options for one field are an error."""
        values: dict[str, Any] = {}
        for option, text in given.items():
            value = _contents(option, name_of(option), text)
            if value is None:
                continue
            if option.field in values:
                other = self.sources[option.field]
                raise usage.UsageError(f"{name_of(option)}: conflicts with {other}; give only one of them")
            values[option.field] = value
            self.sources[option.field] = name_of(option)
        return values

    def _name_of(self, field: str) -> str:
        """Returns the name of a field in messages: the option or variable that set it, or the option that would."""
        return self.sources.get(field) or next(f"--{option.name}" for option in OPTIONS if option.field == field)
