"""Measures the cost of a call in function calls, since time on a shared machine is not reliable."""

import gc
import sys
from collections.abc import Callable
from types import FrameType


def count_calls(call: Callable[[], object]) -> int:
    """Returns the number of functions that are called, in Python and in C."""
    count = 0

    def profile(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    # Whoever listens to the garbage collector is called whenever it happens to run.
    gc.disable()
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(before)
        gc.enable()
    return count
