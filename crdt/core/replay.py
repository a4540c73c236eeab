"""Each number of a sender once, in any order within a window (RFC 4303, section 3.4.3)."""

from __future__ import annotations

from collections import OrderedDict

_WINDOW = 4_096
_MAX_SENDERS = 100_000


class ReplayWindow:
    """Remembers which numbers were seen of each sender, for the newest of them."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """Sender -> its greatest number, and a bit for each of those before it."""

    def admit(self, sender: str, number: int) -> bool:
        """Whether this number of this sender is seen for the first time."""
        greatest, bits = self._seen.get(sender, (-1, 0))
        ahead = number - greatest
        if ahead > 0:
            bits = ((bits << ahead) | 1) & ((1 << _WINDOW) - 1) if ahead < _WINDOW else 1
            greatest = number
        elif -ahead >= _WINDOW or bits >> -ahead & 1:
            return False
        else:
            bits |= 1 << -ahead
        self._seen[sender] = (greatest, bits)
        self._seen.move_to_end(sender)
        if len(self._seen) > _MAX_SENDERS:
            self._seen.popitem(last=False)
        return True
