"""Lists of items per owner, in columns: what a device has open, what a pane has kept.

An owner knows its first item, each item the next one. All lists are walked at once, so the cost
is that of the items seen and of the longest list, never of all owners.
"""

from __future__ import annotations

import numpy as np

from streams.core.columns import Columns
from streams.core.readings import Bool, Int32, Int64

END = -1


class Chains:
    """Lists over dense owners and dense items; an item is in at most one list."""

    def __init__(self) -> None:
        self._heads = Columns({"head": (np.int32, END)})
        self._links = Columns({"next": (np.int32, END)})

    def any(self, owners: Int64 | Int32) -> Bool:
        """Return whether each owner has an item."""
        self._reach(owners)
        some: Bool = self._heads["head"][owners] != END
        return some

    def insert(self, owners: Int64 | Int32, items: Int64 | Int32) -> None:
        """Put items at the front of their owners' lists; an owner may get several."""
        if not len(items):
            return
        self._reach(owners)
        self._links.grow_to(int(items.max()) + 1)
        head, link = self._heads["head"], self._links["next"]
        order = np.argsort(owners, kind="stable")
        owner, item = owners[order], items[order]
        last = np.empty(len(owner), np.bool_)
        last[-1] = True
        np.not_equal(owner[1:], owner[:-1], out=last[:-1])
        following = np.empty(len(item), np.int32)
        following[:-1] = item[1:]
        following[last] = head[owner[last]]
        link[item] = following
        first = np.roll(last, 1)
        head[owner[first]] = item[first]

    def walk(self, owners: Int64 | Int32) -> tuple[Int64, Int64]:
        """Return all items of some owners, and for each its owner's position in *owners*."""
        self._reach(owners)
        at = np.arange(len(owners))
        item = self._heads["head"][owners].astype(np.int64)
        positions, items = [], []
        link = self._links["next"]
        while len(at):
            some = item != END
            at, item = at[some], item[some]
            positions.append(at)
            items.append(item)
            item = link[item].astype(np.int64)
        if not items:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return np.concatenate(positions), np.concatenate(items)

    def clear(self, owners: Int64 | Int32) -> None:
        """Empty the lists of some owners."""
        self._reach(owners)
        self._heads["head"][owners] = END

    def renumber_items(self, new: Int64) -> None:
        """Follow a renumbering of items; those that went (-1) must be in no list."""
        head, link = self._heads["head"], self._links["next"]
        kept = np.flatnonzero(new[: len(link)] != END)
        after = link[kept]
        moved = np.where(after == END, END, new[after]).astype(np.int32)
        links = Columns({"next": (np.int32, END)})
        links.grow_to(int((new != END).sum()))
        links["next"][new[kept]] = moved
        self._links = links
        self._heads["head"][:] = np.where(head == END, END, new[head])

    def renumber_owners(self, new: Int64) -> None:
        """Follow a renumbering of owners; the lists of those that went (-1) are given up."""
        head = self._heads["head"]
        kept = np.flatnonzero(new[: len(head)] != END)
        heads = Columns({"head": (np.int32, END)})
        heads.grow_to(int((new != END).sum()))
        heads["head"][new[kept]] = head[kept]
        self._heads = heads

    def _reach(self, owners: Int64 | Int32) -> None:
        self._heads.grow_to(int(owners.max(initial=-1)) + 1)
