"""The same work with a plain document for each device, no Headwater around it: pycrdt or Loro.

Run as a script by its own environment's Python: ``plain_docs.py NAME OVERWRITES DEVICES CHANGED``.
Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

FIELDS = 20
MERGES = 2_000


class Pycrdt:
    """A Doc with one Map."""

    def __init__(self) -> None:
        from pycrdt import Doc, Map

        self._doc: Doc[Any] = Doc({"twin": Map()})
        self._map = self._doc["twin"]

    def set(self, key: str, value: int) -> None:
        self._map[key] = value

    def version(self) -> bytes:
        return self._doc.get_state()

    def since(self, version: bytes) -> bytes:
        return self._doc.get_update(version)

    def whole(self) -> bytes:
        return self._doc.get_update()

    def apply(self, update: bytes) -> None:
        self._doc.apply_update(update)

    def values(self) -> dict[str, Any]:
        return dict(self._map.items())


class Loro:
    """A LoroDoc with one map, its history cut where it can be."""

    def __init__(self) -> None:
        import loro

        self._loro = loro
        self._doc = loro.LoroDoc()
        self._map = self._doc.get_map("twin")

    def set(self, key: str, value: int) -> None:
        self._map.insert(key, value)
        self._doc.commit()

    def version(self) -> bytes:
        return bytes(self._doc.oplog_vv.encode())

    def since(self, version: bytes) -> bytes:
        vector = self._loro.VersionVector.decode(version)
        return bytes(self._doc.export(self._loro.ExportMode.Updates(vector)))

    def whole(self) -> bytes:
        mode = self._loro.ExportMode.ShallowSnapshot(self._doc.oplog_frontiers)
        return bytes(self._doc.export(mode))

    def apply(self, update: bytes) -> None:
        self._doc.import_(update)

    def values(self) -> dict[str, Any]:
        return dict(self._doc.get_deep_value()["twin"])


def overwritten(make: Callable[[], Any], times: int) -> dict[str, float]:
    """Return sizes of a document with 20 fields after so many overwrites."""
    doc = make()
    began_s = time.process_time()
    for number in range(times):
        doc.set(f"desired.field{number % FIELDS}", number)
    edit_us = (time.process_time() - began_s) / times * 1e6
    return {"whole_bytes": len(doc.whole()), "edit_us": edit_us}


def merged(make: Callable[[], Any]) -> dict[str, float]:
    """Return the time to take in one change of another replica."""
    one, other = make(), make()
    for number in range(FIELDS):
        one.set(f"desired.field{number}", number)
    other.apply(one.since(other.version()))
    took = []
    for number in range(MERGES):
        before = other.version()
        one.set(f"desired.field{number % FIELDS}", number)
        update = one.since(before)
        began_s = time.perf_counter()
        other.apply(update)
        took.append(time.perf_counter() - began_s)
    return {"merge_us": median(took) * 1e6}


def resynced(make: Callable[[], Any], devices: int, changed: int) -> dict[str, float]:
    """Return what it takes to bring two sites together that both changed some of their devices.

    Each side sends the version of every document, the other what it lacks.
    """
    sides = []
    for device in range(devices):
        one, other = make(), make()
        one.set("desired.mode", device)
        other.apply(one.since(other.version()))
        sides.append((one, other))
    for device in range(changed):
        for field in range(3):
            sides[device][0].set(f"desired.field{field}", 1)
            sides[devices - 1 - device][1].set(f"desired.field{field}", 2)
    sent = 0
    began_s = time.process_time()
    for one, other in sides:
        versions = one.version(), other.version()
        there, back = one.since(versions[1]), other.since(versions[0])
        same = versions[0] == versions[1]
        sent += sum(map(len, versions)) + (0 if same else len(there) + len(back))
        if not same:
            other.apply(there)
            one.apply(back)
    took_s = time.process_time() - began_s
    assert all(one.values() == other.values() for one, other in sides)
    return {"resync_s": took_s, "resync_bytes": sent}


def main() -> None:
    """Measure one library."""
    name, overwrites, devices, changed = sys.argv[1], *map(int, sys.argv[2:5])
    make = {"pycrdt": Pycrdt, "loro": Loro}[name]
    found = {
        **overwritten(make, overwrites),
        **merged(make),
        **resynced(make, devices, changed),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
