"""Fan-out to OSC targets: faders that move 100 times a second each, and 100 targets with 30 values a second of each.

Usage: ``python -m bench.osc_fan_out [ROUNDS]``; see docs/performance.md.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from contextlib import ExitStack
from statistics import median

from bench import catalogue, machine
from bench.server import Server, free_port, running
from clasp_relay.wire.osc.packets import OscMessage, decode_packet, encode_message

ROUNDS = 3
SECONDS = 3.0
TARGETS = 100
FADERS = (1, 10)
MOVES_PER_S = 100
RATE = 30
SETTLE_S = 1.0
LAST = -1
ROOM_BYTES = 1 << 20


class Targets:
    """The sockets of all targets, and the packets that they received.

    Args:
        stack: closes them.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._sockets: dict[int, socket.socket] = {}
        self._poll = select.epoll()
        stack.callback(self._poll.close)
        for _ in range(TARGETS):
            each = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM_BYTES)
            each.setblocking(False)
            each.bind(("127.0.0.1", 0))
            self._sockets[each.fileno()] = each
            self._poll.register(each.fileno(), select.EPOLLIN)
        self.last: dict[tuple[int, bytes], bytes] = {}
        self.counts: dict[tuple[int, bytes], int] = {}

    @property
    def options(self) -> list[str]:
        """The relay's options for them."""
        words = ((f"127.0.0.1:{each.getsockname()[1]}") for each in self._sockets.values())
        return [word for each in words for word in ("--osc-target", each)]

    def begin(self) -> None:
        """Forgets the received packets."""
        self.last, self.counts = {}, {}

    def take(self, wait_s: float) -> None:
        """Receives packets, once any are there or the wait is over."""
        last, counts = self.last, self.counts
        for number, _ in self._poll.poll(wait_s):
            receive = self._sockets[number].recv
            try:
                while True:
                    packet = receive(2_048)
                    key = number, packet[:12]
                    last[key] = packet
                    counts[key] = counts.get(key, 0) + 1
            except BlockingIOError:
                continue

    def settle(self, seconds: float) -> None:
        """Receives packets for this time."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.take(0.01)


def measure(server: Server, peer: tuple[str, int], targets: Targets, faders: int) -> tuple[list[int], float, float]:
    """Moves faders for a while.

    Returns:
        how many values of each fader each target got, how long that took in s, and the share of its core that the relay
        used.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
        source.connect(peer)
        targets.begin()
        sent, total = 0, int(SECONDS * MOVES_PER_S) * faders
        cpu_s, began_s = server.cpu_s, time.monotonic()
        while sent < total:
            due = min(total, int((time.monotonic() - began_s) * MOVES_PER_S * faders))
            for number in range(sent, due):
                source.send(encode_message(OscMessage(f"/fader/{number % faders:04}", (number,))))
            sent = max(sent, due)
            targets.take(0.001)
        took_s, cpu_s = time.monotonic() - began_s, server.cpu_s - cpu_s
        counted = list(targets.counts.values())
        # The socket of a busy relay loses datagrams, so the last values are sent once it is idle.
        targets.settle(SETTLE_S)
        for number in range(faders):
            source.send(encode_message(OscMessage(f"/fader/{number:04}", (LAST,))))
            targets.take(0.01)
        targets.settle(SETTLE_S)
    for packet in targets.last.values():
        message = decode_packet(packet)
        assert isinstance(message, OscMessage), "a bundle that nobody sent"
        if message.arguments != (LAST,):
            raise SystemExit(f"the last value of {message.address} did not arrive at a target")
    if len(targets.last) != TARGETS * faders:
        raise SystemExit("a target got nothing of a fader")
    return counted, took_s, cpu_s / took_s


def main() -> None:
    """Measures, and prints the values that each target got of each fader, and the CPU time for that."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    core = machine.cores()[1]
    if core is not None:
        os.sched_setaffinity(0, {core})
    with ExitStack() as stack:
        targets, port = Targets(stack), free_port()
        options = ["--osc-port", str(port), "--osc-rate", str(RATE), *targets.options]
        server = stack.enter_context(running(catalogue.relay(), *options))
        for faders in FADERS:
            found = [measure(server, ("127.0.0.1", port), targets, faders) for _ in range(rounds)]
            per_s = [[count / took_s for count in counted] for counted, took_s, _ in found]
            print(
                f"{faders} fader(s) → {TARGETS}: {median(sum(each) for each in per_s):,.0f} packets/s,"
                f" {min(map(min, per_s)):.1f} to {max(map(max, per_s)):.1f} a second of each fader to each target,"
                f" {100 * median(share for _, _, share in found):.0f} % of a core; every last value arrived",
                flush=True,
            )


if __name__ == "__main__":
    main()
