"""Hosts for processes and clients: this machine's loopback, or hosts with addresses of their own and a router between.

Each host of a :class:`Network` is a network namespace with one link to a router, which is another one. The router drops
what one host sends to another when it is told to, in one direction or in both, as a cable or a firewall would: without
a word to either. Nothing outside the namespaces changes.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tests.deploy import tools

Result = TypeVar("Result")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


class Host:
    """The loopback of this machine.

    Args:
        name: in messages.
        address: of its network interface.
    """

    prefix: tuple[str, ...] = ()
    """What stands before a command that runs there."""

    def __init__(self, name: str = "here", address: str = "127.0.0.1") -> None:
        self.name = name
        self.address = address

    def enter(self) -> None:
        """Gives the sockets that this thread makes from now on to the host."""

    def call(self, function: Callable[[], Result]) -> Result:
        """Returns what a function returns whose sockets belong to the host."""
        return function()


HERE = Host()


class NamespaceHost(Host):
    """A host of a :class:`Network`.

    Args:
        name: in messages.
        address: of its network interface.
        namespace: the name of its network namespace.
    """

    def __init__(self, name: str, address: str, namespace: str) -> None:
        super().__init__(name, address)
        self.namespace = namespace
        self.prefix = ("nsenter", f"--net=/run/netns/{namespace}")

    def enter(self) -> None:
        """Gives the sockets that this thread makes from now on to the host."""
        with open(f"/run/netns/{self.namespace}", "rb") as namespace:
            if _libc.setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns: {self.namespace}")

    def call(self, function: Callable[[], Result]) -> Result:
        """Returns what a function returns whose sockets belong to the host; a socket stays where it was made."""
        with ThreadPoolExecutor(1, initializer=self.enter) as thread:
            return thread.submit(function).result()


class Network:
    """Some hosts and the router between them.

    Args:
        names: of the hosts.

    Raises:
        SkipTest: one may not make any here; in CI that is an error.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._ip = tools.required(tools.network_namespaces)
        own = f"clasp-{os.getpid()}-{next(_numbers)}"
        self._router = f"{own}-router"
        self._namespaces: list[str] = []
        self._cuts: set[tuple[str, str]] = set()
        self.hosts: dict[str, NamespaceHost] = {}
        try:
            self._make(self._router)
            forwarding = "echo 1 > /proc/sys/net/ipv4/ip_forward"
            subprocess.run(["nsenter", f"--net=/run/netns/{self._router}", "sh", "-c", forwarding], check=True)
            for number, name in enumerate(names):
                self._add(number, NamespaceHost(name, f"10.87.{number}.2", f"{own}-{name}"))
        except BaseException:
            self.close()
            raise

    def cut(self, sender: Host, receiver: Host) -> None:
        """Drops what one host sends to another from now on; what goes the other way arrives."""
        pair = (sender.address, receiver.address)
        if pair not in self._cuts:
            self._cuts.add(pair)
            self._rule("add", *pair)

    def part(self, one: Host, other: Host) -> None:
        """Drops all between two hosts."""
        self.cut(one, other)
        self.cut(other, one)

    def mend(self) -> None:
        """Drops nothing any more."""
        for pair in self._cuts:
            self._rule("del", *pair)
        self._cuts.clear()

    def close(self) -> None:
        """Removes all of it; the processes there should have ended."""
        while self._namespaces:
            self._run("netns", "del", self._namespaces.pop())

    def _add(self, number: int, host: NamespaceHost) -> None:
        self._make(host.namespace)
        here, there = ("-n", self._router), ("-n", host.namespace)
        link = f"to{number}"
        peer = ("peer", "name", "eth0", "netns", host.namespace)
        self._run(*here, "link", "add", link, "type", "veth", *peer)
        self._run(*here, "addr", "add", f"10.87.{number}.1/24", "dev", link)
        self._run(*here, "link", "set", link, "up")
        self._run(*there, "addr", "add", f"{host.address}/24", "dev", "eth0")
        self._run(*there, "link", "set", "eth0", "up")
        self._run(*there, "route", "add", "default", "via", f"10.87.{number}.1")
        self.hosts[host.name] = host

    def _make(self, namespace: str) -> None:
        self._run("netns", "add", namespace)
        self._namespaces.append(namespace)
        self._run("-n", namespace, "link", "set", "lo", "up")

    def _rule(self, verb: str, sender: str, receiver: str) -> None:
        self._run("-n", self._router, "rule", verb, "from", sender, "to", receiver, "blackhole")

    def _run(self, *arguments: str) -> None:
        subprocess.run([self._ip, *arguments], check=True, capture_output=True, text=True)
