"""Tests with real processes, sockets and clients."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a job that a shell started in the background; the relays that are started here would ignore it too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
