"""A replica of one twin: the cells in a real pycrdt Doc, and the changes to send.

Cells are the truth, the Doc carries them (see :mod:`crdt.doc`). Two Docs merge by Yjs, whose own
rule may show the older of two cells: then the Doc is rewritten from the cells, never the other way
round. A Doc that has grown by overwriting gives way to a new one, of the next epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from crdt.core.cell_codec import decode
from crdt.core.cells import Cell
from crdt.core.edits import Operation, Stamp
from crdt.core.epochs import FIRST, Epoch, check_reachable, checked_epoch
from crdt.core.errors import WireError
from crdt.core.hlc import ZERO, Hlc, adopt, next_stamp
from crdt.core.ledger import Conflict, decode_conflict
from crdt.core.limits import Limits
from crdt.core.messages import Message
from crdt.core.policies import TRUST_ALL, Policies
from crdt.core.sync import Outbox
from crdt.core.twin import Change, Twin
from crdt.core.values import Value
from crdt.doc import CellDoc, Contents

_SKEW_MS = 300_000
Guard = Callable[[Sequence[Cell], Sequence[Conflict]], None]
_COMPACT_EVERY = 64
"""Changes after which the size of the Doc is looked at."""
_COMPACT_MIN_BYTES = 1_024


@dataclass(frozen=True, slots=True)
class Reading:
    """How a replica reads and bounds its twin."""

    policies: Policies = field(default_factory=Policies)
    limits: Limits = field(default_factory=Limits)
    skew_ms: int = _SKEW_MS
    """Clocks of others further ahead than this are not adopted, and lose against others."""
    compact_ratio: float = 2.0
    """A Doc that is so many times as large as the cells in it gives way to a new one."""


class Replica:
    """One device's twin. Not thread-safe: every Doc has one owner."""

    def __init__(
        self,
        incarnation: str,
        reading: Reading,
        updates: Iterable[bytes] = (),
        clock: Callable[[], int] | None = None,
    ) -> None:
        """Make a replica from what was stored.

        :param incarnation: name of this life, also the actor of its own edits.
        :param updates: updates of the Doc that an earlier life stored.
        :param clock: wall time in ms, against which the clocks of others are judged before they
            are adopted or win; without one none is adopted, and all may win.
        :raises WireError: if the stored updates are damaged.
        """
        self._incarnation = incarnation
        self.reading = reading
        self._clock = clock
        self.twin = Twin(reading.limits)
        self.hlc: Hlc = ZERO
        self.counter = 0
        self._outbox = Outbox()
        self._trial: list[bytes] | None = None
        """Updates of the Doc while it is not known yet whether they may stay."""
        self._made: list[bytes] = []
        self._ahead: list[str] = []
        self._digest: bytes | None = None
        self._replaced = False
        self.guard: Guard | None = None
        """Checks what is new in a message before it is merged; raises :class:`WireError`."""
        stored = list(updates)
        self._doc = CellDoc(stored, self._client_id(FIRST))
        self.epoch: Epoch = self._doc.epoch()
        """Of the Doc."""
        if self.epoch != FIRST:
            self._doc = CellDoc(stored, self._client_id(self.epoch))
        self._shown: Contents = self._doc.contents()
        cells, ledger = self._shown
        self._merge(
            [decode(name, data, reading.limits.max_value_bytes) for name, data in cells.items()],
            self._entries(ledger),
        )
        self._adopt(self.twin.cells().values())
        self._doc.observe(self._observed)

    # -- what a session needs -----------------------------------------------------------------

    @property
    def incarnation(self) -> str:
        """Name of this life."""
        return self._incarnation

    @property
    def outbox(self) -> Outbox:
        """The changes since this life began."""
        return self._outbox

    def digest(self) -> bytes:
        """Return the hash of cells and ledger, 32 bytes."""
        if self._digest is None:
            both = self.twin.digest() + self.twin.ledger_digest()
            self._digest = sha256(both.encode()).digest()
        return self._digest

    def vector(self) -> bytes:
        """Return the Doc's state vector."""
        return self._doc.vector()

    def diff(self, vector: bytes) -> bytes:
        """Return what a Doc of that state vector lacks.

        :raises WireError: if it is no state vector.
        """
        return self._doc.update(vector or b"\x00")

    def encoded(self) -> tuple[Sequence[tuple[str, bytes]], Sequence[tuple[str, bytes]]]:
        """Return all cells by name, and all ledger entries by key, both sorted."""
        cells = [(name, cell.encode()) for name, cell in self.twin.cells().items()]
        return cells, [(key, self.twin.ledger[key].encode()) for key in sorted(self.twin.ledger)]

    def take(self, message: Message, origin: str) -> Change:
        """Merge what a message carries, all or nothing.

        :param origin: the peer that sent it; the updates are not sent back there.
        :raises WireError: if anything in it is not what it should be.
        """
        if message.epoch != self.epoch:
            return self._take_foreign(message, origin)
        before = self._doc.update() if message.updates else b""
        self._trial = []
        try:
            self._doc.extend(message.updates, self.epoch)
            shown = self._doc.contents() if message.updates else self._shown
            cells, entries = self._checked(message, shown)
        except WireError:
            if message.updates:
                # A Doc cannot take back what it has applied.
                self._doc = CellDoc([before], self._client_id(self.epoch))
                self._doc.observe(self._observed)
            self._trial = None
            raise
        made, self._trial = self._trial, None
        for update in made:
            self._outbox.append(origin, update)
        self._made += made
        self._shown = shown
        return self._take_in(cells, entries)

    def trusted_until_ms(self) -> int:
        """Return the time beyond which the clock of a writer is not believed."""
        return TRUST_ALL if self._clock is None else self._clock() + self.reading.skew_ms

    # -- what its owner needs -----------------------------------------------------------------

    def edit(
        self,
        sets: Mapping[str, Value],
        deletes: Iterable[str],
        operations: Iterable[Operation] = (),
        *,
        now_ms: int,
        counter: int | None = None,
        carries: bool = False,
    ) -> Change:
        """Make a local edit that has seen everything here.

        :param now_ms: wall time. With *counter* given it is the cells' clock as it stands.
        :param counter: the actor's counter where something else numbers its edits.
        :param carries: whether parts of counters and sets of this replica's ended lives are taken
            along: only where all that they wrote is known here.
        :raises EditError: if the edit cannot be made; nothing of it was.
        """
        hlc = next_stamp(self.hlc, now_ms) if counter is None else Hlc(now_ms, 0)
        number = self.counter + 1 if counter is None else counter
        stamp = Stamp(self._incarnation, number, hlc, carries)
        policies = self.reading.policies
        cells = self.twin.edit(sets, deletes, operations, stamp=stamp, policies=policies)
        self.hlc, self.counter = max(self.hlc, hlc), number
        change = self._merge(cells, {})
        self._carry()
        return change

    def wants_compaction(self) -> bool:
        """Whether the Doc has grown far beyond its cells; looked at every so many changes."""
        if self._outbox.seq % _COMPACT_EVERY:
            return False
        held = sum(len(name) + len(data) for part in self.encoded() for name, data in part)
        allowed = max(_COMPACT_MIN_BYTES, held) * self.reading.compact_ratio
        return len(self._doc.update()) > allowed

    def compact(self, token: str, *, now_ms: int = 0, carries: bool = False) -> None:
        """Begin the next epoch with a Doc that holds the cells and the ledger and nothing else.

        :param token: tells this epoch from those that others begin apart, at most 64 characters.
        :param now_ms: wall time, of the cells that carry.
        :param carries: whether parts of ended lives are taken along first, see :meth:`edit`.
        """
        if carries:
            hlc = next_stamp(self.hlc, now_ms)
            stamp = Stamp(self._incarnation, self.counter + 1, hlc, carries=True)
            carrying = self.twin.carry(stamp, self.reading.policies)
            if carrying:
                self.hlc, self.counter = hlc, stamp.counter
                self._merge(carrying, {})
        epoch = checked_epoch(self.epoch.number + 1, token)
        doc = CellDoc(client_id=self._client_id(epoch))
        doc.begin(epoch)
        doc.write(({}, {}), tuple(map(dict, self.encoded())))  # type: ignore[arg-type] # two
        self._move(doc.update(), epoch, "")

    def stored(self) -> bytes:
        """Return the whole Doc as one update."""
        return self._doc.update()

    def drain(self) -> tuple[list[bytes], bool]:
        """Return the updates of the Doc since the last call, oldest first: what to store.

        Where the second is true they are a Doc of their own, in place of all that was stored.
        """
        made, self._made = self._made, []
        replaced, self._replaced = self._replaced, False
        return made, replaced

    def ahead(self) -> tuple[str, ...]:
        """Return the cells merged since the last call whose writer's clock was not believed."""
        found, self._ahead = tuple(self._ahead), []
        return found

    def resume(self, outbox: Outbox, counter: int, hlc: Hlc) -> None:
        """Go on in a stored life, where whoever stored it goes on with the very same state."""
        self._outbox, self.counter, self.hlc = outbox, counter, hlc

    def _take_foreign(self, message: Message, origin: str) -> Change:
        """Merge what comes from a Doc of another epoch: cell by cell, never as Docs."""
        check_reachable(message.epoch, self.epoch)
        doc = CellDoc()
        doc.extend(message.updates, message.epoch)
        cells, entries = self._checked(message, doc.contents())
        if message.updates and message.epoch > self.epoch:
            self._move(doc.update(), message.epoch, origin)
        return self._take_in(cells, entries)

    def _checked(
        self, message: Message, carried: Contents
    ) -> tuple[Sequence[Cell], dict[str, Conflict]]:
        """Decode and check what a message and a Doc carry that is not known yet."""
        (cells_there, ledger_there), (known, known_ledger) = carried, self._shown
        fresh = [item for item in cells_there.items() if known.get(item[0]) != item[1]]
        fresh_ledger = dict(
            item for item in ledger_there.items() if known_ledger.get(item[0]) != item[1]
        )
        fresh_ledger.update(message.ledger)
        cap = self.reading.limits.max_value_bytes
        cells = [decode(name, data, cap) for name, data in (*fresh, *message.cells)]
        entries = self._entries(fresh_ledger)
        self._check_room(cells)
        if self.guard is not None:
            cells = [cell for cell in cells if self.twin.is_news(cell)]
            self.guard(cells, [e for key, e in entries.items() if key not in self.twin.ledger])
        return cells, entries

    def _take_in(self, cells: Sequence[Cell], entries: Mapping[str, Conflict]) -> Change:
        change = self._merge(cells, entries)
        self._ahead += change.ahead
        self._carry()
        self._adopt(cells)
        return change

    def _entries(self, ledger: Mapping[str, bytes]) -> dict[str, Conflict]:
        cap = self.reading.limits.max_value_bytes
        return {key: decode_conflict(key, data, cap) for key, data in ledger.items()}

    def _check_room(self, cells: Iterable[Cell]) -> None:
        """Refuse what would leave more fields, or writers of a field, than is declared."""
        limits, known = self.reading.limits, self.twin.fields
        actors: dict[str, set[str]] = {}
        for cell in cells:
            actors.setdefault(cell.path, set(known.get(cell.path, ()))).add(cell.actor)
        fields = len(known.keys() | actors.keys())
        if fields > max(limits.max_merged_fields, len(known)):
            raise WireError(
                "too-many-fields", f"{fields} fields; at most {limits.max_merged_fields} are merged"
            )
        for path, names in actors.items():
            if len(names) > max(limits.max_actors, len(known.get(path, ()))):
                raise WireError(
                    "too-many-actors",
                    f"{path}: {len(names)} writers; twins.max_actors = {limits.max_actors}",
                )

    def _merge(self, cells: Sequence[Cell], ledger: Mapping[str, Conflict]) -> Change:
        self._digest = None
        return self.twin.merge(cells, ledger, self.reading.policies, self.trusted_until_ms())

    def _adopt(self, cells: Iterable[Cell]) -> None:
        if self._clock is None:
            return
        now_ms = self._clock()
        for cell in cells:
            self.hlc = adopt(self.hlc, cell.hlc, now_ms, self.reading.skew_ms)

    def _move(self, update: bytes, epoch: Epoch, origin: str) -> None:
        """Go on in another Doc, of a greater epoch; whoever lacks it gets it whole."""
        self._doc = CellDoc([update], self._client_id(epoch))
        self.epoch = epoch
        self._shown = self._doc.contents()
        self._doc.observe(self._observed)
        self._made, self._replaced = [update], True
        self._outbox.restart(origin)

    def _client_id(self, epoch: Epoch) -> int:
        # Of nothing else: whoever replays a log must write under the id that it was written under.
        return client_id_of(" ".join((self._incarnation, *map(str, epoch if epoch.number else ()))))

    def _carry(self) -> None:
        """Make the Doc show the cells and the ledger as they are."""
        fields = self.twin.fields.values()
        cells = {cell.name: cell.encode() for by_actor in fields for cell in by_actor.values()}
        ledger = {key: entry.encode() for key, entry in self.twin.ledger.items()}
        self._doc.write(self._shown, (cells, ledger))
        self._shown = (cells, ledger)

    def _observed(self, update: bytes) -> None:
        if self._trial is not None:
            self._trial.append(update)
            return
        self._outbox.append("", update)
        self._made.append(update)


def client_id_of(incarnation: str) -> int:
    """Return the Yjs client id of a life: 31 bits, so that any Yjs client can hold it."""
    return int.from_bytes(sha256(incarnation.encode()).digest()[:4], "big") >> 1
