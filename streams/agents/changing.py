"""Windows that come and go while readings flow.

An engine has a fixed set of definitions. It is taken apart into the states of its shards, and they
are put into one with other definitions: what a window had is kept, a new one begins empty.

A window that is added counts for a device from the first start after all event times that the
device has shown by then. A window that begins later holds only readings that came behind the
marker, so it is complete, and the same whether an earlier reading was folded into earlier windows
or not: this is what lets the shards of a partition, whose stored states may stand before and after
the marker, share one engine. What begins earlier is not told here: ``headwater config rebuild``
tells it, from the lake (:mod:`streams.recovery.rebuilding`). A window whose definition changes is
one that goes and one, its next generation, that comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

import numpy as np

from streams.agents.window_definitions import definition_of
from streams.core.engine import StreamEngine
from streams.core.operators import operator_for
from streams.core.placement import shard_of
from streams.core.readings import Bool, Int64
from streams.core.registry import NEVER, Registry
from streams.core.results import WindowResults
from streams.core.sliding import SPAN_MS
from streams.core.windows import Session, Sliding
from streams.core.windows import Window as Definition
from streams.errors import StateError
from streams.settings import Window
from streams.settings.applied import Document

ALWAYS = int(np.iinfo(np.int64).min)
"""Of a device that had shown nothing by then: every window is whole."""
Since = dict[str, dict[tuple[str, str], int]]
"""Window -> (tenant, device) -> event time after which its windows begin that are told."""


def united(*sets: Sequence[Window]) -> list[Window]:
    """Return the definitions of several sets, each once.

    :raises StateError: if a name has two definitions.
    """
    found: dict[str, Window] = {}
    for window in (window for each in sets for window in each):
        if found.setdefault(window.name, window) != window:
            raise StateError(f"the window {window.name!r} has two definitions")
    return list(found.values())


def contradicts(held: Sequence[Window], wanted: Sequence[Window]) -> bool:
    """Whether a name has another definition in two sets."""
    known = {window.name: window for window in held}
    return any(known.get(window.name, window) != window for window in wanted)


def adapted(state: Mapping[str, Any], windows: Sequence[Window], shards: int) -> dict[str, Any]:
    """Return a shard's state for an engine with other definitions."""
    held = {written: at for at, written in enumerate(state["definitions"])}
    definitions = [definition_of(window) for window in windows]
    late = np.zeros((len(state["late_for"]), len(definitions)), np.int64)
    parts = []
    for to, definition in enumerate(definitions):
        at = held.get(definition.written)
        if at is None:
            nobody = Registry(shards, definitions, max_devices=1, max_metrics=1)
            empty = operator_for(definition, nobody)
            parts.append(empty.snapshot(np.empty(0, np.int64)))
        else:
            parts.append(state["windows"][at])
            late[:, to] = state["late_for"][:, at]
    return {
        **state,
        "definitions": [definition.written for definition in definitions],
        "windows": parts,
        "late_for": late,
    }


def since_now(engine: StreamEngine, added: Sequence[Window], live: Callable[[int], bool]) -> Since:
    """Return from when windows that are added now are told, for devices of some shards."""
    reg, found = engine.registry, Since()
    devices = reg.devices
    columns = zip(
        devices["shard"].tolist(), devices["tenant"].tolist(), devices["max_t_ms"].tolist(),
        reg.names, strict=True,
    )  # fmt: skip
    seen = [
        ((reg.tenants[tenant], name), t_ms)
        for shard, tenant, t_ms, name in columns
        if live(shard) and t_ms >= 0
    ]
    for window in added:
        apart = apart_ms(definition_of(window))
        found[window.name] = {key: t_ms + apart for key, t_ms in seen}
    return found


def since_return(state: Mapping[str, Any], windows: Sequence[Window]) -> dict[str, list[list[Any]]]:
    """Return from when windows are told that were added while devices were away.

    :param state: of the devices, as it was stored.
    """
    added = [w for w in windows if definition_of(w).written not in state["definitions"]]
    seen = zip(state["names"], state["devices"]["max_t_ms"].tolist(), strict=True)
    shown = [(tenant, device, t_ms) for (tenant, device), t_ms in seen if t_ms >= 0]
    return {w.name: [[t, d, ms + apart_ms(definition_of(w))] for t, d, ms in shown] for w in added}


def apart_ms(definition: Definition) -> int:
    """Return how long after a reading that is not known a window may begin that misses it.

    A session that begins less than its gap after what came before might have begun there.
    """
    return definition.gap_ms - 1 if isinstance(definition, Session) else 0


def is_whole(results: WindowResults, definition: Definition, since_ms: Int64) -> Bool:
    """Return bool[n]: which results hold no reading from before their definition was added.

    :param since_ms: int64[n], of each result's device, as :func:`since_now` says.
    """
    start_ms, enough = results.start_ms, np.ones(len(results), np.bool_)
    if _is_last(definition):
        # It reaches back to its oldest reading, and one that wants more readings misses some.
        start_ms = start_ms - results.extra[SPAN_MS].astype(np.int64)
        enough = results.count >= definition.reading_count
    whole: Bool = (start_ms > since_ms) & (enough | (since_ms == ALWAYS))
    return whole


def _is_last(definition: Definition) -> TypeGuard[Sliding]:
    return isinstance(definition, Sliding) and definition.last is not None


class Course:
    """Which document is in force in each shard of a partition.

    :param base: what a partition without state begins with; None: what the settings say, for good.
    """

    def __init__(self, documents: Mapping[str, Document], base: Document | None, n: int) -> None:
        self._documents = documents
        self._base = base
        self._of: list[Document | None] = [base] * n
        self._stored: dict[int | None, Document] = {}
        self.of_partition: Document | None = base
        """In force for what is decoded."""
        self.may_differ = base is not None and base.revision > 0
        """Whether stored state may have other windows: only once something was applied."""

    @property
    def partition_id(self) -> str:
        """Return the id of the document that is in force for what is decoded; empty for none."""
        return self.of_partition.id if self.of_partition else ""

    def id_of(self, shard: int) -> str:
        """Return the id of the document that is in force in a shard; empty for none."""
        found = self._of[shard]
        return found.id if found else ""

    def join(self, shard: int | None, state: Mapping[str, Any]) -> list[Window]:
        """Take the document of a stored piece, and return its windows.

        :param shard: None for the partition's own piece.
        :raises StateError: if the topic does not hold it any more.
        """
        if not self.may_differ:
            return []
        document = self._document_of(state)
        if document is None:
            return []
        self._stored[shard] = document
        oldest = min(self._stored.values(), key=lambda one: one.revision)
        # What has no piece has no readings before those that are read again.
        self._of = [self._stored.get(s, oldest) for s in range(len(self._of))]
        self.of_partition = oldest
        return document.windows()

    def before(self, document: Document) -> list[int]:
        """Return the shards in which an older document is in force."""
        return [
            shard
            for shard, held in enumerate(self._of)
            if held is None or held.revision < document.revision
        ]

    def added(
        self, live: Sequence[int], document: Document, held: Sequence[Window]
    ) -> list[tuple[set[int], list[Window]]]:
        """Return the windows that a document adds, with the shards in which it does."""
        found = []
        for before in {self.id_of(shard) for shard in live}:
            known = self._documents[before].windows() if before else held
            names = {window.name for window in known}
            shards = {shard for shard in live if self.id_of(shard) == before}
            found.append((shards, [w for w in document.windows() if w.name not in names]))
        return found

    def move(self, live: Sequence[int], document: Document) -> None:
        """Let a document be in force in some shards."""
        for shard in live:
            self._of[shard] = document
        self.of_partition = document
        self.may_differ = True

    def windows(self) -> list[list[Window]]:
        """Return the windows of each document that is in force."""
        return [one.windows() for one in {d.id: d for d in self._of if d}.values()]

    def names(self, windows: Sequence[Window]) -> list[frozenset[str]] | None:
        """Return for each shard the windows in force; None if in each they are all of *windows*."""
        if not self.may_differ:
            return None
        every = frozenset(window.name for window in windows)
        of = {one.id: frozenset(w.name for w in one.windows()) for one in self._of if one}
        names = [of.get(self.id_of(shard), every) for shard in range(len(self._of))]
        return None if all(each == every for each in names) else names

    def _document_of(self, state: Mapping[str, Any]) -> Document | None:
        found = state.get("config", "")
        if found:
            if found not in self._documents:
                raise StateError(
                    f"stored state follows {found} of the topic config, which is not there any "
                    "more; restore the topic, or take a new worker.id (docs/upgrading.md)"
                )
            return self._documents[found]
        # Of a version that did not note it, or a worker that knew of no document.
        for document in reversed(list(self._documents.values())):
            written = [definition_of(window).written for window in document.windows()]
            if written == state.get("definitions"):
                return document
        return None


class Told:
    """Which results are told."""

    def __init__(self) -> None:
        self._since: Since = {}

    def learn(self, since: Mapping[str, Mapping[tuple[str, str], int]]) -> None:
        """Add from when windows are told."""
        for name, of in since.items():
            self._since.setdefault(name, {}).update(of)

    def forget_all_but(self, names: Sequence[str]) -> None:
        """Drop windows that are gone."""
        self._since = {name: of for name, of in self._since.items() if name in names}

    def of_devices(self, engine: StreamEngine, devices: Int64) -> dict[str, list[list[Any]]]:
        """Return what a snapshot of devices has to keep: what readings may still ask for."""
        if not any(self._since.values()):
            return {}
        # How far windows over the last readings reach back does not follow from the time.
        reach = {d.name: NEVER if _is_last(d) else d.reach_ms for d in engine.definitions}
        reg = engine.registry
        watermark = (reg.devices["max_t_ms"][devices] - engine.rules.disorder_ms).tolist()
        kept: dict[str, list[list[Any]]] = {}
        for (tenant, device), at_ms in zip(reg.keys_of(devices), watermark, strict=True):
            for name, of in self._since.items():
                t_ms = of.get((tenant, device))
                if t_ms is None:
                    continue
                if at_ms - t_ms > reach.get(name, 0):
                    del of[tenant, device]
                else:
                    kept.setdefault(name, []).append([tenant, device, t_ms])
        return kept

    def restore(self, kept: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        """Add what :meth:`of_devices` returned."""
        self.learn({name: {(t, d): ms for t, d, ms in rows} for name, rows in kept.items()})

    def forget(self, named: Iterable[tuple[str, str]]) -> None:
        """Drop what is known of some devices."""
        for key in named if self._since else ():
            for of in self._since.values():
                of.pop(key, None)

    def select(
        self,
        results: WindowResults,
        engine: StreamEngine,
        names_of: Sequence[frozenset[str]] | None,
    ) -> WindowResults:
        """Return the results of one window that are told.

        :param names_of: for each shard the windows that are in force in it; None for all.
        """
        name = results.window[0]
        since = self._since.get(name, {})
        if not since and names_of is None:
            return results
        width = len(results.device.values)
        pair = results.tenant.codes.astype(np.int64) * width + results.device.codes
        unique, inverse = np.unique(pair, return_inverse=True)
        after = np.full(len(unique), ALWAYS, np.int64)
        in_force = np.ones(len(unique), np.bool_)
        for i, code in enumerate(unique.tolist()):
            key = results.tenant.values[code // width], results.device.values[code % width]
            after[i] = since.get(key, ALWAYS)
            if names_of is not None:
                in_force[i] = name in names_of[shard_of(*key, engine.shards)]
        definition = next(d for d in engine.definitions if d.name == name)
        told = in_force[inverse] & is_whole(results, definition, after[inverse])
        if told.all():
            return results
        return _compact(results.take(np.flatnonzero(told)))


def _compact(results: WindowResults) -> WindowResults:
    labels = ("tenant", "site", "device", "metric")
    return replace(results, **{name: getattr(results, name).compact() for name in labels})
