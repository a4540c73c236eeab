"""The conflict ledger: every pair of concurrent writes that some replica has seen.

An entry is a function of the two cells and the policy, so replicas that see the same conflict
write the same entry. Ledgers merge by union; where replicas with different policies wrote the
same conflict, the smaller encoding is kept by all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from crdt.core import cbor
from crdt.core.cell_codec import decode
from crdt.core.cells import Cell
from crdt.core.errors import WireError
from crdt.core.policies import LATCHED, NAMES, TRUST_ALL, read_field

LONGER_PATH = "longer-path"
"""Not a policy to choose: a field and one below it were both written; the longer path counts."""
KINDS_DIFFER = "kinds-differ"
"""Nor is this: a field was written as two kinds at once; a latch counts before a set, a set before
a counter, a counter before a register."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two concurrent cells, and the one that was chosen."""

    winner: Cell
    loser: Cell
    policy: str
    _encoded: list[bytes] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def key(self) -> str:
        """Path and the two dots, in an order that every replica finds."""
        sides = sorted(f"{cell.path} {cell.dot}" for cell in (self.winner, self.loser))
        return " | ".join(sides)

    @property
    def at_ms(self) -> int:
        """When the later of the two was written."""
        return max(self.winner.hlc.ms, self.loser.hlc.ms)

    def encode(self) -> bytes:
        """Return the deterministic encoding; made once."""
        if not self._encoded:
            cells = [[cell.name, cell.encode()] for cell in (self.winner, self.loser)]
            self._encoded.append(cbor.dumps([self.policy, *cells]))
        return self._encoded[0]


def conflict_between(
    one: Cell, other: Cell, policy: str, trusted_until_ms: int = TRUST_ALL
) -> Conflict | None:
    """Return the entry for two cells of a field, or None if they do not contradict each other."""
    if one.dominates(other) or other.dominates(one):
        return None
    if one.kind != other.kind:
        winner = max(one, other, key=lambda cell: cell.kind)
        return Conflict(winner, other if winner is one else one, KINDS_DIFFER)
    if one.sums or one.payload() == other.payload():
        return None
    found = read_field([one, other], policy, trusted_until_ms)
    return Conflict(found.winner, other if found.winner is one else one, found.policy)


def decode_conflict(key: str, data: bytes, max_value_bytes: int) -> Conflict:
    """Decode an entry.

    :raises WireError: if the bytes are not those of the entry with this key.
    """
    match cbor.loads(data, "ledger entry"):
        case [str(policy), [str(a), bytes(a_data)], [str(b), bytes(b_data)]] if policy in (
            *NAMES,
            LATCHED,
            LONGER_PATH,
            KINDS_DIFFER,
        ):
            winner, loser = decode(a, a_data, max_value_bytes), decode(b, b_data, max_value_bytes)
            entry = Conflict(winner, loser, policy)
            if entry.key == key:
                return entry
    raise WireError("bad-ledger-entry", f"{key[:80]!r}: expected policy, winner and loser")


def merge_ledgers(
    mine: dict[str, Conflict], theirs: Mapping[str, Conflict], max_entries: int, max_bytes: int
) -> list[str]:
    """Add *theirs* to *mine*, cut it to the newest, and return the keys that are new to it.

    The cut takes entries, newest first, until one does not fit. What it drops from a part it
    would drop from any union with that part, so the order of merging makes no difference.
    """
    new = [
        key
        for key, entry in theirs.items()
        if key not in mine or entry.encode() < mine[key].encode()
    ]
    if not new:
        return []
    mine.update((key, theirs[key]) for key in new)
    ranked = sorted(mine, key=lambda key: (mine[key].at_ms, key), reverse=True)
    size = 0
    for rank, key in enumerate(ranked):
        size += len(key.encode()) + len(mine[key].encode())
        if rank >= max_entries or size > max_bytes:
            for old in ranked[rank:]:
                del mine[old]
            break
    return [key for key in new if key in mine]
