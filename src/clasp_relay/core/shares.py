"""How many params each subject has written last, so that one user cannot take all the room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from clasp_relay.core.records import Param
from clasp_relay.errors import ErrorCode, RequestError
from clasp_relay.wire.messages import NULL


class Shares:
    """Counts params by subject.

    Args:
        max_params: how many one subject may have; 0 for no limit.
    """

    def __init__(self, max_params: int) -> None:
        self._max_params = max_params
        self._counts: Counter[str] = Counter()

    def check(self, drafts: Iterable[Param], current: Callable[[str], Param | None]) -> None:
        """Refuses changes that would leave their subject with more params than it may have.

        Args:
            drafts: the changes, the last one of each address.
            current: returns what is set at an address.

        Raises:
            RequestError: OVERLOADED.
        """
        if not self._max_params:
            return
        more: Counter[str] = Counter()
        for draft in drafts:
            before = current(draft.address)
            subject = draft.subject
            if not subject or draft.value == NULL or (before is not None and before.subject == subject):
                continue
            more[subject] += 1
            if self._counts[subject] + more[subject] > self._max_params:
                text = f"you have set {self._max_params} params, as many as one user may (max-params-per-subject)"
                raise RequestError(ErrorCode.OVERLOADED, text, draft.address)

    def move(self, before: Param | None, now: Param | None) -> None:
        """Counts that one param has taken the place of another."""
        old = "" if before is None else before.subject
        new = "" if now is None else now.subject
        if old == new:
            return
        if new:
            self._counts[new] += 1
        if old:
            self._counts[old] -= 1
            if not self._counts[old]:
                del self._counts[old]
