"""Fuzzes the wire: any bytes decode to a message or raise an error for the client.

Real frames are damaged at random and decoded. A message must be the same after it is encoded and decoded again, and the
fast decoder of frequent messages must agree with the general one. A failure prints the seed and the bytes::

    python bench/fuzz_wire.py --seconds 600
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from clasp_relay.errors import DecodeError, ErrorCode, RequestError
from clasp_relay.wire.clasp import ClaspCodec
from clasp_relay.wire.codec import decode, encode
from clasp_relay.wire.frame import decode_frame
from clasp_relay.wire.messages import Message

_CODEC = ClaspCodec()
_VECTORS = Path(__file__).parent.parent / "tests" / "vectors"
_INTERESTING = (
    b"\x00",
    b"\x01",
    b"\x20",
    b"\x7f",
    b"\x80",
    b"\xc4",
    b"\xd6",
    b"\xde",
    b"\xff",
    b"\xff\xff",
    b"\x0a\x00\x01",
    b"\x0b\x00\x01",
    b"\xef\xbb\xbf",
    b"\x00\x09__proto__",
    b"\xa9__proto__",
    b"\xdc\xff\xff",
)


def real_frames() -> list[bytes]:
    """Returns every frame of the test vectors, which real libraries made: valid ones and others."""
    cases = [
        case for name in ("vectors", "malformed") for case in json.loads((_VECTORS / f"{name}.json").read_text("utf-8"))
    ]
    return [bytes.fromhex(case["hex"]) for case in cases if 5 <= len(case.get("hex", "")) // 2 < 2000]


def _damage(frame: bytearray, random_: random.Random) -> None:
    """Changes one thing in a frame, in place."""
    at = random_.randrange(len(frame))
    match random_.randrange(5):
        case 0:
            frame[at] ^= 1 << random_.randrange(8)
        case 1:
            frame[at] = random_.randrange(256)
        case 2:
            frame[at : at + random_.randrange(4)] = b""
        case 3:
            frame[at:at] = random_.choice(_INTERESTING)
        case _:
            other = random_.randrange(len(frame))
            frame[at:at] = frame[other : other + random_.randrange(1, 16)]


def damaged_frames(seed: int) -> Iterator[bytes]:
    """Yields damaged frames for ever, the same ones for the same seed.

    Most get a correct length field again, so that the message is damaged and not the frame.
    """
    random_ = random.Random(seed)
    frames = real_frames()
    while True:
        frame = bytearray(random_.choice(frames))
        for _ in range(random_.randrange(1, 4)):
            _damage(frame, random_)
            if len(frame) < 6:
                break
        if random_.random() < 0.9 and 5 <= len(frame) <= 0xFFFF:
            frame[0:4] = bytes((0x53, 0x01)) + (len(frame) - 4).to_bytes(2, "big")
        yield bytes(frame)


def _short_way(data: bytes) -> Message | None:
    try:
        return _CODEC.decode(data)[0]
    except RequestError:
        return None


def check(data: bytes) -> bool:
    """Decodes ``data``; returns whether it is a message.

    Raises:
        AssertionError: a message changes when it is encoded and decoded again, or the two decoders disagree.
    """
    try:
        message = decode(decode_frame(data).payload)
    except RequestError as error:
        if not isinstance(error, DecodeError) and error.code not in (ErrorCode.VALUE, ErrorCode.MESSAGE):
            raise AssertionError("decoding refuses bytes, keys, members and counts, nothing else") from error
        if _short_way(data) is not None:
            raise AssertionError("the short way of decoding accepts what the long one refuses") from error
        return False
    if _short_way(data) != message:
        raise AssertionError("the two ways of decoding differ")
    payload = encode(message)
    if encode(decode(payload)) != payload:
        raise AssertionError(f"{message!r} changes when encoded")
    return True


def main() -> int:
    """Runs for the given number of seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    done = accepted = 0
    for data in damaged_frames(options.seed):
        try:
            accepted += check(data)
        except Exception:
            print(f"seed {options.seed}, input {done}: {data.hex()}")
            raise
        done += 1
        if not done % 1000 and time.monotonic() > end:
            break
    print(f"seed {options.seed}: {done} inputs, {accepted} of them messages, the others refused cleanly")
    return 0


if __name__ == "__main__":
    sys.exit(main())
