"""A process of its own that has a state in memory, and tells how much memory it needed.

``python -m tests.storage.loader write PATH`` saves the state. With ``run`` it makes it as a running relay has it, with
``load PATH`` it loads it as a restart does. Both print the bytes that they took beyond an empty process: ``run`` at its
end, ``load`` at its worst.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from clasp_relay.core.records import Change, Param, StateImage
from clasp_relay.core.state.params import ParamLimits, Params
from clasp_relay.storage.state_file import StateFile
from clasp_relay.storage.state_writing import encode
from clasp_relay.wire.values import encode_value
from tests.storage.values import TIME_US, WRITER

MESSAGES = 40_000
TEXT = "Grüße aus dem Kanal, " * 20
"""What users write is long and not ASCII alone."""

LIMITS = ParamLimits(max_params=sys.maxsize, max_state_bytes=sys.maxsize)


def params() -> Iterator[Param]:
    """Makes params like those of a chat, and some binary ones."""
    for number in range(MESSAGES):
        content = {
            "id": f"m-{number}",
            "from": f"user-{number % 50}",
            "text": TEXT,
            "at": TIME_US + number,
            "n": [1, 2],
        }
        value = encode_value(content) if number % 4 else b"\x09" + struct.pack(">H", 600) + bytes(600)
        address = f"/chat/rooms/{number % 40}/messages/{number}"
        yield Param(address, value, 1, WRITER, TIME_US + number, None, f"user:{number % 50}")


def memory_bytes(field: str) -> int:
    """Returns a field of this process's /proc status."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"), re.MULTILINE)
    assert found is not None, f"/proc has no {field}"
    return int(found[1]) * 1024


if __name__ == "__main__":
    what, *paths = sys.argv[1:]
    table = Params(LIMITS)
    empty_bytes = memory_bytes("VmRSS")
    if what == "write":
        state_file = StateFile(Path(paths[0]))
        state_file.load()
        print(state_file.save(encode(StateImage(list(params()), [], {}))))
    elif what == "run":
        for param in params():
            table.apply(Change(param))
        print(memory_bytes("VmRSS") - empty_bytes)
    else:
        table.load(StateFile(Path(paths[0])).load().image)
        print(memory_bytes("VmHWM") - empty_bytes)
