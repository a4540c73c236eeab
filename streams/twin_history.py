"""What happened to a twin: the records of its device folded again, and what each changed.

It goes as far back as ``twin.updates`` is kept. Where that begins in the middle, a site's writes
show from its next snapshot on.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import orjson

from streams.adapters.log_reader import read_from
from streams.adapters.twin_records import EDIT, KIND, SITE
from streams.agents.twins import TwinLogic
from streams.core.placement import device_key, partition_of
from streams.settings import Settings
from streams.topics import TWIN_STATE, TWIN_UPDATES


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field before and after, each as the twin shows it, None where it had no value."""

    path: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Step:
    """What one record changed."""

    offset: int
    at_ms: int
    source: str
    """``cloud``, or the site that it came from."""
    fields: Sequence[FieldChange]
    conflicts: Sequence[Mapping[str, Any]]
    """New entries of the ledger."""

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "offset": self.offset,
            "at_ms": self.at_ms,
            "source": self.source,
            "fields": {f.path: {"before": f.before, "after": f.after} for f in self.fields},
            "conflicts": list(self.conflicts),
        }


@dataclass(slots=True)
class History:
    """The steps of one device, oldest first."""

    steps: list[Step] = field(default_factory=list)
    first_offset: int | None = None
    """Of the partition's oldest record that is still kept; above 0, older ones are gone."""

    def of(self, glob: str) -> History:
        """Return what concerns the fields that a glob matches."""
        found = History(first_offset=self.first_offset)
        for step in self.steps:
            fields = [change for change in step.fields if fnmatchcase(change.path, glob)]
            conflicts = [entry for entry in step.conflicts if fnmatchcase(entry["path"], glob)]
            if fields or conflicts:
                found.steps.append(replace(step, fields=fields, conflicts=conflicts))
        return found


async def history(settings: Settings, tenant: str, device: str) -> History:
    """Read a device's history from Kafka.

    :raises ServiceError: if Kafka cannot be reached.
    """
    partition = partition_of(tenant, device, settings.topics.partitions)
    records = read_from(settings.kafka, {(TWIN_UPDATES, partition): 0})
    return await steps_of(settings, partition, device_key(tenant, device), records)


async def steps_of(
    settings: Settings, partition: int, key: bytes, records: AsyncIterable[Any]
) -> History:
    """Fold the records with that key; return what each of them changed."""
    logic = TwinLogic(settings, partition)
    found, shown = History(), dict[str, Any]()
    async for record in records:
        if found.first_offset is None:
            found.first_offset = record.offset
        if record.key != key:
            continue
        for made in logic.fold([record]):
            if made.topic == TWIN_STATE:
                after = orjson.loads(made.value or b"{}")
                step = _step(record, shown, after)
                if step.fields or step.conflicts:
                    found.steps.append(step)
                shown = after
    return found


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[FieldChange]:
    """Return the fields that two views of a twin show differently, by path."""
    old, new = before.get("fields", {}), after.get("fields", {})
    return [
        FieldChange(path, old.get(path), new.get(path))
        for path in sorted(old.keys() | new.keys())
        if old.get(path, {}).get("value") != new.get(path, {}).get("value")
        or (path in old) != (path in new)
    ]


def _step(record: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> Step:
    headers = dict(record.headers)
    site = headers.get(SITE, b"").decode(errors="replace")
    known = {conflict["key"] for conflict in before.get("conflicts", ())}
    return Step(
        record.offset,
        record.timestamp,
        "cloud" if headers.get(KIND) == EDIT else site,
        changes(before, after),
        [conflict for conflict in after.get("conflicts", ()) if conflict["key"] not in known],
    )
