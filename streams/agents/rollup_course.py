"""Which applied settings are in force for the records of a topic that roll-ups read.

A document comes into force at its marker. Pieces of state are stored at different offsets, and
after a crash the records before a marker may be read again by some of them: so it is remembered at
which offsets documents came, and each record is read under the one that was in force there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streams.adapters.config_log import marker_of
from streams.errors import StateError
from streams.ports import LogRecord
from streams.settings import Settings, Window
from streams.settings.applied import Document, in_force, newest

_REMEMBERED = 16
"""Changes that a replay may have to go back over: it reaches back to the last commit."""


class RollupCourse:
    """The documents of one partition, in the order in which they came into force."""

    def __init__(self, settings: Settings, documents: Mapping[str, Document]) -> None:
        self._settings = settings
        self._documents = documents
        self.now = newest(documents.values())
        self._came: list[tuple[int, Document | None]] = [(-1, self.now)]
        self._is_restored = False

    def settings(self) -> Settings:
        """Return the settings in force."""
        return in_force(self._settings, self.now)

    def windows(self) -> dict[str, Window]:
        """Return every window that results may be of, by its name in them."""
        every = [one.windows() for one in self._documents.values()]
        return {window.name: window for each in [self._settings.windows, *every] for window in each}

    def begin(self, offset: int) -> bool:
        """Go to the record at *offset*, to read on from there; return whether settings changed."""
        before = self.now
        if offset == 0 and not self._is_restored:
            # All markers are still to come.
            least = min((one.revision for one in self._documents.values()), default=0)
            first = newest(one for one in self._documents.values() if one.revision == least)
            self._came = [(-1, first)]
        self.now = next(one for at, one in reversed(self._came) if at < offset)
        return self.now is not before

    def change(self, record: LogRecord) -> bool:
        """Take a marker; return whether settings changed."""
        document = self._documents.get(marker_of(record) or "")
        held = -1 if self.now is None else self.now.revision
        if document is None or document.revision <= max(held, 0):
            return False
        self.now = document
        if record.offset > self._came[-1][0]:
            self._came = [*self._came, (record.offset, document)][-_REMEMBERED:]
        return True

    def snapshot(self) -> list[list[int | str]]:
        """Return what :meth:`restore` takes."""
        return [[at, one.id] for at, one in self._came if one is not None]

    def restore(self, came: Sequence[Sequence[int | str]]) -> None:
        """Load what was stored.

        :raises StateError: if a document is not in the topic any more.
        """
        self._is_restored = True
        found: list[tuple[int, Document | None]] = []
        for at, name in came:
            if name not in self._documents:
                raise StateError(
                    f"stored state follows {name} of the topic config, which is not there any "
                    "more; restore the topic, or take a new rollup.id (docs/upgrading.md)"
                )
            found.append((int(at), self._documents[str(name)]))
        if found:
            # What came before those that are remembered is read again by nobody.
            self._came = [(-1, found[0][1]), *found[1:]]
            self.now = self._came[-1][1]
