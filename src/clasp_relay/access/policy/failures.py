"""Counting refused writes, so that nobody tries passwords without end."""

from __future__ import annotations

from collections import OrderedDict, deque

from clasp_relay.access.policy.captures import Captured
from clasp_relay.access.policy.document import FailureLimit
from clasp_relay.errors import ErrorCode, RequestError

MAX_SUBJECTS = 10_000
"""Subjects whose failures are remembered; beyond it the one that failed longest ago is forgotten."""

MAX_KEYS = 64
"""Things that one subject may have failed at within their windows; beyond it the subject has to wait."""

_Key = tuple[int, Captured]


class Failures:
    """The failures of every subject, by rule and captures; its memory is bounded."""

    def __init__(self) -> None:
        self._by_subject: OrderedDict[str, dict[_Key, tuple[deque[int], int]]] = OrderedDict()

    def check(self, subject: str, rule: int, captured: Captured, limit: FailureLimit, now_us: int) -> None:
        """Refuses an attempt after too many failures.

        Raises:
            RequestError: LIMIT; it says how long to wait.
        """
        mine = self._by_subject.get(subject)
        if mine is None:
            return
        _expire(mine, now_us)
        times = mine.get((rule, captured), (deque(), 0))[0]
        if len(times) >= limit.most or len(mine) >= MAX_KEYS:
            oldest_us = times[-limit.most] if len(times) >= limit.most else now_us
            wait_s = max(1, -(-(oldest_us + limit.window_us - now_us) // 1_000_000))
            raise RequestError(ErrorCode.LIMIT, f"too many failed attempts; try again in {wait_s} s")

    def note(self, subject: str, rule: int, captured: Captured, limit: FailureLimit, now_us: int) -> None:
        """Counts one failure."""
        mine = self._by_subject.setdefault(subject, {})
        self._by_subject.move_to_end(subject)
        times, _ = mine.setdefault((rule, captured), (deque(maxlen=limit.most), limit.window_us))
        times.append(now_us)
        if len(self._by_subject) > MAX_SUBJECTS:
            self._by_subject.popitem(last=False)


def _expire(mine: dict[_Key, tuple[deque[int], int]], now_us: int) -> None:
    for key, (times, window_us) in list(mine.items()):
        while times and times[0] <= now_us - window_us:
            times.popleft()
        if not times:
            del mine[key]
