"""``clasp-relay`` and ``python -m clasp_relay``: ``twistd -n clasp-relay`` without typing twistd.

Nothing large is imported before ``main`` has set the signal handlers: importing Twisted takes most of a second, and
process 1 of a container loses every signal that it has no handler for.
"""

from __future__ import annotations

import os
import signal
import sys
from io import TextIOWrapper
from typing import Any, NoReturn

__all__ = ["main"]


def main() -> None:
    """Runs the relay in the foreground; the arguments are those of ``twistd clasp-relay``.

    Behind the words ``check-config``, ``token``, ``invite``, ``hook``, ``admin`` and ``journal`` they are those of
    ``check_config.run``, ``account_commands.run``, ``admin_commands.run`` and ``journal_commands.run``, and no relay
    runs.

    No pid file: a process that was killed leaves one, and in a container the next one finds its own number in it
    and refuses to start.

    Raises:
        SystemExit: it could not start (1), it could not save when it stopped (1), or help was asked for (0).
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an ASCII terminal shows every text, escaped
    if sys.argv[1:2] and sys.argv[1] in ("check-config", "token", "invite", "hook", "admin", "journal"):
        _run_command(sys.argv[1:])
        return
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, _end_before_start)
    from twisted.application import app  # noqa: PLC0415
    from twisted.scripts import twistd  # noqa: PLC0415

    from clasp_relay.tap import relay  # noqa: PLC0415

    sys.argv[1:] = ["--nodaemon", "--pidfile=", relay.tapname, *sys.argv[1:]]
    app.run(twistd.runApp, _options_of_twistd(twistd, relay))


def _end_before_start(_number: int, _frame: object) -> NoReturn:
    """Ends a relay that has not started: nothing has changed, so there is nothing to save."""
    os._exit(0)


def _options_of_twistd(twistd: Any, relay: Any) -> type:
    """Returns twistd's own options with one plugin: a search for others takes time, and needs a folder to search."""

    class Options(twistd.ServerOptions):  # type: ignore[misc]
        synopsis = "Usage:"
        loadedPlugins = {relay.tapname: relay}  # noqa: N815, RUF012  twistd's names and types, here and below
        subCommands = [[relay.tapname, None, relay.options, relay.description]]  # noqa: N815, RUF012

    return Options


def _run_command(arguments: list[str]) -> None:
    from clasp_relay.command_line import (  # noqa: PLC0415  not loaded for a relay
        account_commands,
        admin_commands,
        check_config,
        journal_commands,
    )

    try:
        if arguments[0] in account_commands.COMMANDS:
            account_commands.run(arguments)
        elif arguments[0] == admin_commands.COMMAND:
            admin_commands.run(arguments[1:])
        elif arguments[0] == journal_commands.COMMAND:
            journal_commands.run(arguments[1:])
        else:
            check_config.run(arguments[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed stdout; without this, Python would print another error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
