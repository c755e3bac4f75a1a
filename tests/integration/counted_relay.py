"""A program that embeds the relay and tells, for each line on its stdin, what it has in memory.

``python -m tests.integration.counted_relay --host H --port P --data-dir D``: the relay's own options. Each line is
answered by one with the number of objects by type, as JSON, behind the word «objects».
"""

from __future__ import annotations

import gc
import json
import sys
from collections import Counter

from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.logger import globalLogBeginner, textFileLogObserver

from clasp_relay.command_line.options import Options
from clasp_relay.service import make_service


class Questions(Protocol):
    """Answers each line."""

    def dataReceived(self, data: bytes) -> None:
        """Counts once for each line."""
        for _ in range(data.count(b"\n")):
            gc.collect()
            counts = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
            print("objects", json.dumps(counts), flush=True)


def main() -> None:
    """Runs until it is stopped."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)
    options = Options({})
    options.parseOptions(sys.argv[1:])
    reactor: object = _reactor
    service = make_service(options.settings, reactor)
    service.startService()
    _reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    StandardIO(Questions())
    _reactor.run()


if __name__ == "__main__":
    main()
