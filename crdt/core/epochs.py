"""Epochs of a twin's Doc: a Doc grows with every overwrite, so now and then a new one begins.

An epoch is named by a number and a random token: two replicas that compacted apart are in
different ones. Docs of different epochs are never merged as Docs; the cells of the lesser epoch are
written into the greater one.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from crdt.core.errors import WireError

_MAX_NUMBER: Final = 2**62
_MAX_AHEAD: Final = 2**32
"""Epochs that others may have begun while one slept: a thousand a minute for eight years."""
_MAX_TOKEN: Final = 64


class Epoch(NamedTuple):
    """Order is that of the tuple."""

    number: int
    token: str


FIRST: Final = Epoch(0, "")
"""Of a Doc that was never compacted."""


def check_reachable(epoch: Epoch, own: Epoch) -> None:
    """Check an epoch of a peer against one's own: a lie must not use the numbers up.

    :raises WireError: if no replica can have come so far.
    """
    if epoch.number > own.number + _MAX_AHEAD:
        raise WireError(
            "bad-epoch", f"epoch {epoch.number} is from the future: here it is {own.number}"
        )


def checked_epoch(number: Any, token: Any) -> Epoch:
    """Return an epoch that a peer named.

    :raises WireError: if it can be none.
    """
    counts = isinstance(number, int) and not isinstance(number, bool) and number >= 0
    if not counts or not isinstance(token, str) or len(token) > _MAX_TOKEN:
        raise WireError("bad-epoch", "an epoch is a number and a short text")
    if number > _MAX_NUMBER:
        raise WireError("bad-epoch", f"epoch {number} is beyond all; at most {_MAX_NUMBER}")
    if (number == 0) != (token == ""):
        raise WireError("bad-epoch", f"epoch {number} with token {token!r}")
    return Epoch(number, token)
