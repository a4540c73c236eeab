"""The one place that knows Yjs: a Doc that carries the cells and the ledger of a twin.

It has the root maps ``cells`` (name -> encoded cell), ``ledger`` (key -> encoded entry) and, from
the first compaction on, ``epoch``. What pycrdt raises on bad input, its Rust panics too, comes out
as :class:`WireError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from pycrdt import Doc, Map, TransactionEvent

from crdt.core import cbor
from crdt.core.epochs import FIRST, Epoch, checked_epoch
from crdt.core.errors import WireError

_CELLS, _LEDGER, _EPOCH = "cells", "ledger", "epoch"
_ROOTS = (_CELLS, _LEDGER)
Contents = tuple[Mapping[str, bytes], Mapping[str, bytes]]
"""Cells by name and ledger entries by key, encoded."""


class CellDoc:
    """A Doc of one epoch."""

    def __init__(self, updates: Iterable[bytes] = (), client_id: int | None = None) -> None:
        """Make a Doc from updates.

        :raises WireError: if one of them cannot be read.
        """
        self._doc: Doc[Map[bytes]] = Doc({_CELLS: Map(), _LEDGER: Map()}, client_id=client_id)
        self._maps = {root: self._doc.get(root, type=Map) for root in (*_ROOTS, _EPOCH)}
        self._told: Callable[[bytes], None] | None = None
        for update in updates:
            self.apply(update)

    def epoch(self) -> Epoch:
        """Return the Doc's epoch.

        :raises WireError: if what it says is none.
        """
        with _Guard("epoch"):
            data = self._maps[_EPOCH].get("id")
        if data is None:
            return FIRST
        match cbor.loads(bytes(data), "epoch") if isinstance(data, bytes | bytearray) else None:
            case [number, token]:
                return checked_epoch(number, token)
        raise WireError("bad-epoch", "expected number and token")

    def contents(self) -> Contents:
        """Return what the Doc shows.

        :raises WireError: if it shows anything but bytes.
        """
        with _Guard("contents"):
            return self._plain(_CELLS), self._plain(_LEDGER)

    def apply(self, update: bytes) -> None:
        """Merge an update as Yjs does.

        :raises WireError: if it cannot be read.
        """
        with _Guard("update"), self._telling():
            self._doc.apply_update(update)

    def extend(self, updates: Sequence[bytes], epoch: Epoch) -> None:
        """Merge updates of a Doc of that epoch.

        :raises WireError: if one of them cannot be read, or they are of another epoch.
        """
        for update in updates:
            self.apply(update)
        if updates and self.epoch() != epoch:
            raise WireError("bad-epoch", f"the Doc says {self.epoch()}, not {epoch}")

    def write(self, shown: Contents, wanted: Contents) -> None:
        """Make the Doc, which shows *shown*, show *wanted*, in one transaction."""
        with self._telling(), self._doc.transaction():
            for root, have, want in zip(_ROOTS, shown, wanted, strict=True):
                carrier = self._maps[root]
                # In this order whoever replays a log writes the same update.
                for name in sorted(n for n, data in want.items() if have.get(n) != data):
                    carrier[name] = want[name]
                for name in sorted(have.keys() - want.keys()):
                    del carrier[name]

    def begin(self, epoch: Epoch) -> None:
        """Name the epoch of an empty Doc."""
        self._maps[_EPOCH]["id"] = cbor.dumps(list(epoch))

    def update(self, vector: bytes = b"\x00") -> bytes:
        """Return what a Doc of that state vector lacks; all of it for the empty one.

        :raises WireError: if it is no state vector.
        """
        with _Guard("state vector"):
            return self._doc.get_update(vector)

    def vector(self) -> bytes:
        """Return the state vector."""
        return self._doc.get_state()

    def observe(self, told: Callable[[bytes], None]) -> None:
        """Call with the update of every later transaction."""
        self._told = told

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Subscribe for one transaction: a Doc that has a subscriber is never freed.

        It holds its callbacks outside Python, where no garbage collector sees that they hold it.
        """
        told = self._told
        if told is None:
            yield
            return

        def heard(event: TransactionEvent) -> None:
            told(event.update)

        subscription = self._doc.observe(heard)
        try:
            yield
        finally:
            self._doc.unobserve(subscription)

    def _plain(self, root: str) -> dict[str, bytes]:
        found = {}
        for name, data in self._maps[root].items():
            if not isinstance(data, bytes | bytearray):
                raise WireError(
                    "bad-cell", f"{name[:80]!r} in {root}: {type(data).__name__} instead of bytes"
                )
            found[name] = bytes(data)
        return found


class _Guard:
    """Turns what pycrdt raises on bad input, its Rust panics too, into :class:`WireError`."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: object, _: object) -> None:
        if kind is None or issubclass(kind, WireError):
            return
        # Panics derive from BaseException alone, in a class that cannot be imported.
        if issubclass(kind, Exception) or kind.__name__ == "PanicException":
            raise WireError("bad-update", f"the {self._what} cannot be read as Yjs: {error}")
