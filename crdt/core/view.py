"""How a twin looks to people and programs: plain JSON-able data, the same on every replica."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from crdt.core.cells import Cell
from crdt.core.kinds import COUNTER, KIND_NAMES
from crdt.core.ledger import KINDS_DIFFER, LONGER_PATH, Conflict
from crdt.core.policies import TRUST_ALL, Policies, side_of
from crdt.core.sums import members, total
from crdt.core.twin import Twin
from crdt.core.values import Value


def view(twin: Twin, policies: Policies, trusted_until_ms: int = TRUST_ALL) -> dict[str, Any]:
    """Return fields (value, winner, when, who, kind, policy), conflicts, digests.

    Times are milliseconds since the epoch by the writer's clock. ``digest`` is equal on two
    replicas exactly if all their cells are; ``ledger_digest`` likewise for the conflicts.
    ``clock_ahead`` says that the writer's clock is later than *trusted_until_ms*.
    """
    return {
        "fields": {
            path: {
                **_who(found.winner),
                "value": plain(found.value),
                "kind": KIND_NAMES[found.winner.kind],
                "policy": found.policy,
                "over": [_side(cell) for cell in found.others],
                **({"clock_ahead": True} if found.winner.hlc.ms > trusted_until_ms else {}),
            }
            for path, found in twin.read(policies, trusted_until_ms).items()
        },
        "conflicts": [
            conflict_view(twin.ledger[key])
            for key in sorted(twin.ledger, key=lambda key: (twin.ledger[key].at_ms, key))
        ],
        "digest": twin.digest(),
        "ledger_digest": twin.ledger_digest(),
        "policies": policies.fingerprint(),
    }


def conflict_view(entry: Conflict) -> dict[str, Any]:
    """Return a ledger entry: both writes, what each had seen, which policy chose which."""
    return {
        "key": entry.key,
        "path": entry.winner.path,
        "policy": entry.policy,
        "winner": _side(entry.winner),
        "loser": _side(entry.loser),
        "why": _why(entry),
    }


def plain(value: Value) -> Any:
    """Return a value as JSON can hold it: bytes become ``{"base64": ...}``."""
    if isinstance(value, bytes):
        return {"base64": b64encode(value).decode()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def _who(cell: Cell) -> dict[str, Any]:
    return {"winner": side_of(cell.actor), "actor": cell.actor, "at_ms": cell.hlc.ms}


def _side(cell: Cell) -> dict[str, Any]:
    return {
        "path": cell.path,
        "kind": KIND_NAMES[cell.kind],
        "value": plain(_value(cell)),
        "deleted": cell.deleted,
        "side": side_of(cell.actor),
        "actor": cell.actor,
        "counter": cell.counter,
        "at_ms": cell.hlc.ms,
        "seen": dict(cell.seen),
    }


def _value(cell: Cell) -> Value:
    """Return what a cell says by itself: of a counter or set, what its actor made of it."""
    if not cell.sums:
        return cell.value
    return total([cell]) if cell.kind == COUNTER else members([cell])


def _why(entry: Conflict) -> str:
    won, lost = entry.winner, entry.loser
    if entry.policy == LONGER_PATH:
        return f"{won.path} lies below {lost.path}, and both were written: the longer path counts"
    if entry.policy == KINDS_DIFFER:
        kinds = f"a {KIND_NAMES[won.kind]} and a {KIND_NAMES[lost.kind]}"
        return f"{won.path} was written as {kinds} at once: the {KIND_NAMES[won.kind]} counts"
    sides = f"the {side_of(won.actor)} and the {side_of(lost.actor)}"
    neither = f"{sides} wrote without having seen each other"
    latest = f"latest: {won.hlc.ms} is not before {lost.hlc.ms}"
    if won.hlc < lost.hlc:
        latest = f"latest: {lost.hlc.ms} was too far ahead to be believed"
    chosen = {
        "latest": latest,
        "latch": "a latch stays set until a release that had seen every set",
        "edge-wins": f"edge-wins: the write of the {side_of(won.actor)} counts",
        "cloud-wins": f"cloud-wins: the write of the {side_of(won.actor)} counts",
        "keep-all": "keep-all: both are kept, the latest first",
    }
    return f"{neither}; {chosen.get(entry.policy, f'{entry.policy} of the two values counts')}"
