"""Sync of one twin with one peer, sans I/O: messages in, messages out.

Theory of operation. A replica numbers its changes 1, 2, 3 ... within its *incarnation*, which
is new at every start, and keeps the newest in an :class:`Outbox`. A session sends them as
deltas ``(first, last]``. The receiver applies a delta that begins at or before what it has,
answers with a cumulative acknowledgement, and asks again where there is a gap. Duplicates and
reordering are harmless, because merging is idempotent and commutative; loss shows as a gap, or
at the next hello.

A hello says where both stand. Where the peer does not know this incarnation, or the outbox no
longer reaches back, a snapshot goes out instead. Where both have all changes of each other and
the digests still differ, a snapshot with all cells repairs it, once per state.

Deltas belong to the Doc of one epoch. Where two sides are in different epochs, the one of the
greater sends its whole Doc, in which the other goes on, and the other sends its cells.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypedDict, Unpack

from crdt.core.epochs import Epoch
from crdt.core.messages import Kind, Message

_MAX_UPDATES = 256
_MAX_BYTES = 262_144
_CONTESTED = 4
_NOTHING = b"\x00"
"""State vector of an empty Doc."""


@dataclass(slots=True)
class Outbox:
    """The newest changes of a replica, shared by its sessions: bounded, a suffix of all."""

    seq: int = 0
    entries: deque[tuple[str, bytes]] = field(default_factory=deque)
    """(peer that it came from or nothing, update), the last one has number ``seq``."""
    size_bytes: int = 0

    def append(self, origin: str, update: bytes) -> None:
        """Number a change; forget the oldest beyond the bounds."""
        self.seq += 1
        self.entries.append((origin, update))
        self.size_bytes += len(update)
        while len(self.entries) > _MAX_UPDATES or self.size_bytes > _MAX_BYTES:
            self._forget()

    def restart(self, origin: str) -> None:
        """Begin again in another Doc: one change, which only a snapshot can tell (it is empty)."""
        self.entries.clear()
        self.size_bytes = 0
        self.append(origin, b"")

    def since(self, seq: int, peer: str) -> list[bytes] | None:
        """Return the changes after *seq* but those that came from *peer*.

        None if they are forgotten, or changes of an earlier Doc.
        """
        missing = self.seq - seq
        if missing > len(self.entries):
            return None
        newest = list(self.entries)[len(self.entries) - missing :]
        updates = [update for origin, update in newest if origin != peer]
        return None if b"" in updates else updates

    def trim(self, acked: int) -> None:
        """Forget what every peer has."""
        while self.entries and self.seq - len(self.entries) < acked:
            self._forget()

    def _forget(self) -> None:
        self.size_bytes -= len(self.entries.popleft()[1])


class Content(TypedDict, total=False):
    """The fields of a message that depend on its kind."""

    want: bool
    first: int
    last: int
    updates: tuple[bytes, ...]
    vector: bytes
    cells: tuple[tuple[str, bytes], ...]
    ledger: tuple[tuple[str, bytes], ...]


class Store(Protocol):
    """The replica that a session syncs."""

    @property
    def incarnation(self) -> str:
        """Name of this life of the replica."""
        ...

    @property
    def epoch(self) -> Epoch:
        """The epoch of the Doc."""
        ...

    @property
    def outbox(self) -> Outbox:
        """The replica's changes."""
        ...

    def digest(self) -> bytes:
        """Return the hash of cells and ledger."""
        ...

    def vector(self) -> bytes:
        """Return the state vector of the Doc."""
        ...

    def diff(self, vector: bytes) -> bytes:
        """Return one update with all that a Doc of that state vector lacks.

        :raises WireError: if it is no state vector.
        """
        ...

    def encoded(self) -> tuple[Sequence[tuple[str, bytes]], Sequence[tuple[str, bytes]]]:
        """Return all cells by name, and all ledger entries by key."""
        ...

    def take(self, message: Message, origin: str) -> object:
        """Merge updates, cells and ledger of a message, all or nothing.

        :raises WireError: if any of them is not what it should be.
        """
        ...


@dataclass(slots=True)
class Session:
    """What is known about one peer."""

    peer: str
    """Stable name of the peer, such as its site."""
    incarnation: str = ""
    """The life of the peer that ``applied`` counts in."""
    applied: int = 0
    """The peer's changes that are merged here, all up to here."""
    acked: int = 0
    """Our changes that the peer has, all up to here."""
    sent: int = 0
    agreed: bool = False
    """Whether both had everything and equal digests when last compared."""
    repaired: tuple[int, int] = (-1, -1)
    """Sequences at which a repair was sent: it is sent once."""
    contested: int = 0
    """Messages since both agreed after which the Doc had to be rewritten from the cells."""

    def receive(self, message: Message, store: Store) -> list[Message]:
        """Take a message in; return the answers.

        :raises WireError: if its content is not what it should be; nothing of it was merged.
        """
        stranger = message.sender != self.incarnation
        if stranger and message.kind in (Kind.DELTA, Kind.ACK):
            return [self.hello(store, want=True)]
        partial = message.kind is Kind.DELTA or (message.kind is Kind.SNAPSHOT and message.vector)
        if partial and message.epoch != store.epoch:
            # Changes mean something only in the Doc that they were made in.
            return [self.hello(store, want=True)]
        if message.kind in (Kind.DELTA, Kind.SNAPSHOT):
            return self._take(message, store)
        if stranger:
            self.incarnation, self.applied, self.agreed = message.sender, 0, False
        if message.kind is Kind.HELLO:
            return self._greet(message, store)
        self._note_ack(message, store)
        if message.want:
            self.sent = self.acked
        return self.pending(store) or self._repair(message, store)

    def hello(self, store: Store, *, want: bool) -> Message:
        """Return the message that begins or resumes a conversation."""
        if want:
            # Whatever is not acknowledged may be lost.
            self.sent = self.acked
        return self._message(Kind.HELLO, store, want=want, vector=store.vector())

    def resume(self, store: Store) -> list[Message]:
        """Return what finds out about a difference: what the peer may have missed, or a hello."""
        self.sent = self.acked
        return self.pending(store) or [self.hello(store, want=True)]

    def pending(self, store: Store) -> list[Message]:
        """Return what the peer was not sent yet."""
        outbox = store.outbox
        first = max(self.acked, self.sent)
        if not self.incarnation or first >= outbox.seq:
            return []
        updates = outbox.since(first, self.peer)
        if updates is None:
            return [self._snapshot(store, _NOTHING, with_cells=False)]
        self.sent = outbox.seq
        delta = self._message(
            Kind.DELTA, store, first=first, last=outbox.seq, updates=tuple(updates)
        )
        return [delta]

    def _take(self, message: Message, store: Store) -> list[Message]:
        if message.kind is Kind.DELTA and message.first > self.applied:
            return [self._message(Kind.ACK, store, want=True)]
        before = store.outbox.seq
        store.take(message, self.peer)
        # Cells that the Doc did not show had to be written into it, or others taken out.
        self.contested += store.outbox.seq - before > len(message.updates)
        if message.sender != self.incarnation:
            self.incarnation, self.applied = message.sender, 0
        self.applied = max(self.applied, message.last)
        self._note_ack(message, store)
        answers = self.pending(store) or self._repair(message, store)
        if answers and self.contested >= _CONTESTED:
            # Two Docs that show different cells, each written over by the other, would never rest.
            self.contested = 0
            answers = [self._snapshot(store, _NOTHING, with_cells=True)]
        # An acknowledgement is never acknowledged, so every conversation ends.
        return answers or [self._message(Kind.ACK, store)]

    def _greet(self, message: Message, store: Store) -> list[Message]:
        answers = [self.hello(store, want=False)] if message.want else []
        differs = message.digest != store.digest()
        if message.epoch != store.epoch:
            self.acked = 0
            return [*answers, *self._across(message, store, differs=differs)]
        if message.heard == store.incarnation:
            self.acked = self.sent = min(message.applied, store.outbox.seq)
            # A delta says all that a hello would.
            return self.pending(store) or answers + self._repair(message, store)
        self.acked = 0
        return [*answers, self._snapshot(store, message.vector or _NOTHING, with_cells=differs)]

    def _across(self, message: Message, store: Store, *, differs: bool) -> list[Message]:
        """Return what brings a peer of another epoch here, or what it lacks of ours."""
        if message.epoch < store.epoch:
            return [self._snapshot(store, _NOTHING, with_cells=False)]
        return [self._cells(store)] if differs else []

    def _note_ack(self, message: Message, store: Store) -> None:
        if message.heard == store.incarnation:
            self.acked = max(self.acked, min(message.applied, store.outbox.seq))

    def _repair(self, message: Message, store: Store) -> list[Message]:
        """Compare digests where both have everything; return what repairs a difference."""
        seq = store.outbox.seq
        settled = (
            message.heard == store.incarnation
            and message.applied == seq
            and message.seq == self.applied
        )
        if not settled:
            return []
        self.agreed = message.digest == store.digest()
        self.contested = 0 if self.agreed else self.contested
        if self.agreed or self.repaired == (seq, message.seq):
            return []
        self.repaired = (seq, message.seq)
        return [self._snapshot(store, _NOTHING, with_cells=True)]

    def _snapshot(self, store: Store, vector: bytes, *, with_cells: bool) -> Message:
        cells, ledger = store.encoded() if with_cells else ((), ())
        update = store.diff(vector)
        self.sent = store.outbox.seq
        return self._message(
            Kind.SNAPSHOT,
            store,
            last=store.outbox.seq,
            updates=(update,),
            vector=b"" if vector == _NOTHING else vector,
            cells=tuple(cells),
            ledger=tuple(ledger),
        )

    def _cells(self, store: Store) -> Message:
        """Return a snapshot for a peer whose Doc is of a greater epoch than ours."""
        cells, ledger = store.encoded()
        self.sent = store.outbox.seq
        return self._message(
            Kind.SNAPSHOT, store, last=store.outbox.seq, cells=tuple(cells), ledger=tuple(ledger)
        )

    def _message(self, kind: Kind, store: Store, **content: Unpack[Content]) -> Message:
        return Message(
            kind=kind,
            sender=store.incarnation,
            seq=store.outbox.seq,
            digest=store.digest(),
            heard=self.incarnation,
            applied=self.applied,
            epoch=store.epoch,
            **content,
        )
