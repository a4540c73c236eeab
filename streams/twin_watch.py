"""A twin watched: what changed from one look at it to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from streams.twin_history import FieldChange, changes


@dataclass(frozen=True, slots=True)
class News:
    """What two looks show differently, and the new entries of the ledger."""

    fields: Sequence[FieldChange]
    conflicts: Sequence[Mapping[str, Any]]
    digest: str

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "fields": [asdict(change) for change in self.fields],
            "conflicts": list(self.conflicts),
            "digest": self.digest,
        }


def watch(look: Callable[[], Mapping[str, Any]], pause: Callable[[], None]) -> Iterator[News]:
    """Yield what changes, for ever; what changes and changes back between two looks is not seen.

    :param look: returns the twin as it is shown, empty where there is none yet.
    :param pause: waits between two looks.
    """
    before = look()
    while True:
        pause()
        after = look()
        known = {entry["key"] for entry in before.get("conflicts", ())}
        fields = changes(before, after)
        conflicts = [one for one in after.get("conflicts", ()) if one["key"] not in known]
        if fields or conflicts:
            yield News(fields, conflicts, after.get("digest", ""))
        before = after
