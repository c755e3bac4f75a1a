"""Listens on ports and endpoints. A failure is a ``StartError`` whose text names the option."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import UNIXServerEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from clasp_relay.errors import StartError, cause_text
from clasp_relay.logs import events
from clasp_relay.net.open_files import is_none_left
from clasp_relay.net.tls import ServerTls

__all__ = ["BACKLOG", "TcpPlace", "Where", "address_text", "listen"]

BACKLOG = 1_024
"""Connections that the system queues until they are accepted, for example when all clients reconnect at once."""

ACCEPTED_AT_ONCE = 16
"""Connections that a port accepts in one turn of the event loop, about 0.1 ms each. Twisted accepts a hundred, and 20
more each time that this is not enough."""


TOLD_EVERY_S = 60.0
"""Shortest interval in s between two log lines of a port that cannot accept."""


class TcpPlace(NamedTuple):
    """An address, a port (0 for any free port), TLS or none, and whether other processes may listen there, too."""

    host: str
    port: int
    tls: ServerTls | None = None
    is_shared: bool = False


Where: TypeAlias = TcpPlace | str
"""A place, or a Twisted server endpoint string."""


def listen(
    reactor: Any, where: Where, factory: IProtocolFactory, option: str, backlog: int = BACKLOG
) -> IListeningPort:
    """Listens at a place; it accepts connections when this returns.

    Args:
        reactor: the reactor, which accepts the connections.
        where: the place; an endpoint string has its own backlog.
        factory: the factory of the protocols.
        option: the option that names the place, for the error.
        backlog: connections that the system queues until they are accepted.

    Raises:
        StartError: it cannot listen there; the text names the option, the place and the cause.
    """
    if isinstance(where, str):
        return _listen_at_endpoint(reactor, where, factory, option)
    host, port, tls, is_shared = where
    try:
        if is_shared:
            return _accepting_few(_share(reactor, where, factory, backlog))
        if tls is None:
            return _accepting_few(reactor.listenTCP(port, factory, backlog, host))
        return _accepting_few(reactor.listenSSL(port, factory, tls, backlog, host))
    except (CannotListenError, OSError, UnicodeError) as error:  # Unicode: not a valid host name
        raise StartError(
            f"{option}: cannot listen on {host}:{port} ({_cause(error)}); give another {option} or --host"
        ) from error


def _share(reactor: Any, place: TcpPlace, factory: IProtocolFactory, backlog: int) -> IListeningPort:
    """Listens with SO_REUSEPORT: the system gives each connection to one of the processes that listen there."""
    (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
        place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(backlog)
        listener.setblocking(False)
        if place.tls is not None:
            factory = TLSMemoryBIOFactory(place.tls, False, factory)
        # The reactor takes a copy of the descriptor.
        port: IListeningPort = reactor.adoptStreamPort(listener.fileno(), family, factory)
    return port


def _listen_at_endpoint(reactor: Any, text: str, factory: IProtocolFactory, option: str) -> IListeningPort:
    try:
        endpoint = serverFromString(reactor, text)
    # Each type of endpoint parses its own part of the string, also those of plugins, which may raise anything.
    except Exception as error:
        raise StartError(
            f"{option}: {text!r} is not a server endpoint ({_cause(error)}), "
            "expected one like tcp:7330:interface=127.0.0.1"
        ) from error
    if isinstance(endpoint, UNIXServerEndpoint):
        _remove_stale_lock(str(endpoint._address))
    results: list[object] = []
    listening: Deferred[object] = maybeDeferred(endpoint.listen, factory)
    listening.addBoth(results.append)
    if not results:
        listening.cancel()
        raise StartError(f"{option}: {text!r} does not listen at once; give an endpoint that does")
    (result,) = results
    if isinstance(result, Failure):
        cause = result.value
        assert cause is not None, "a failure without an exception"
        raise StartError(f"{option}: cannot listen on {text!r} ({_cause(cause)})") from cause
    if not IListeningPort.providedBy(result):
        raise StartError(f"{option}: {text!r} listens on no port; give an endpoint that does")
    return _accepting_few(result)


def _accepting_few(port: Any) -> IListeningPort:
    """Limits a port to ``ACCEPTED_AT_ONCE`` connections in a turn; others are accepted in the next one.

    Without a free descriptor Twisted closes new connections; that is logged once a minute.
    """
    accept = getattr(port, "doRead", None)
    if accept is not None:
        told_s = -TOLD_EVERY_S

        def do_read() -> None:
            nonlocal told_s
            before = port.sessionno
            port.numberAccepts = ACCEPTED_AT_ONCE
            accept()
            if port.sessionno == before and port.reactor.seconds() - told_s >= TOLD_EVERY_S and is_none_left():
                told_s = port.reactor.seconds()
                events.FILES_USED_UP.log()

        port.doRead = do_read
    return cast(IListeningPort, port)


def _remove_stale_lock(path: str) -> None:
    """Removes a socket file without a listener, and Twisted's lock file of it.

    The lock file has a process id. If a container was killed, that id may be 1, which is now the relay itself, or
    another process; Twisted then takes the lock as held.
    """
    lock = Path(f"{path}.lock")
    if not lock.is_symlink():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a listener with a full queue does not answer at once
        refusal = probe.connect_ex(path)
    if refusal in (errno.ENOENT, errno.ECONNREFUSED):
        lock.unlink(missing_ok=True)
        if Path(path).is_socket():
            Path(path).unlink()


def address_text(address: IAddress) -> str:
    """Returns the address of a port as text: ``127.0.0.1:7330``, ``[::1]:7330``, ``unix:/run/x.sock``."""
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, UNIXAddress) and address.name:
        return f"unix:{os.fsdecode(address.name)}"
    return "a socket without an address"


def _cause(error: BaseException) -> str:
    return cause_text(error.socketError if isinstance(error, CannotListenError) else error)
