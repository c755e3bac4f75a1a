"""``clasp-relay``: ``twistd -n clasp-relay`` without typing twistd."""

from __future__ import annotations

import os
import select
import sys

from twisted.application import app
from twisted.scripts import twistd

from clasp_relay.collecting import keep_collections_short
from clasp_relay.tap import relay

__all__ = ["main"]


class _Twistd(twistd.ServerOptions):  # type: ignore[misc, name-defined]  # imported there, not re-exported in words
    """twistd's own options, knowing one plugin: looking for others takes time, and needs a folder to look in."""

    synopsis = "Usage:"
    loadedPlugins = {relay.tapname: relay}  # noqa: N815, RUF012  twistd's names and types, here and below
    subCommands = [[relay.tapname, None, relay.options, relay.description]]  # noqa: N815, RUF012


def main() -> None:
    """Runs the relay in the foreground; the arguments are those of ``twistd clasp-relay``.

    Behind the word ``check-config`` they are those of ``check_config.run``, and no relay runs.

    No pid file: a process that was killed leaves one, and in a container the next one finds its own number in it
    and refuses to start.

    Raises:
        SystemExit: it could not start (1), or help was asked for (0).
    """
    if sys.argv[1:2] == ["check-config"]:
        _check_config(sys.argv[2:])
        return
    _choose_reactor()
    sys.argv[1:] = ["--nodaemon", "--pidfile=", relay.tapname, *sys.argv[1:]]
    app.run(twistd.runApp, _Twistd)


def _check_config(arguments: list[str]) -> None:
    from clasp_relay.check_config import run  # noqa: PLC0415  what only this needs is not loaded for a relay

    try:
        run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has seen enough; without this, Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _choose_reactor() -> None:
    if hasattr(select, "epoll"):
        from clasp_relay.net.reactor import install  # noqa: PLC0415  it is Linux only

        install()
    from twisted.internet import reactor  # noqa: PLC0415  installed above, or Twisted's choice

    reactor.callWhenRunning(keep_collections_short, reactor)
