"""Which settings alerts are made by: an edition for each document that was applied.

An edition comes into force at its marker in a partition's log, for each part of the partition when
that part meets it. What is stored names its edition, so it goes on under the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from streams.adapters.config_log import marker_of
from streams.errors import StateError
from streams.ports import LogRecord
from streams.settings import Settings
from streams.settings.applied import Document, in_force, newest


@dataclass(frozen=True, slots=True)
class Edition:
    """Settings in force; ``id`` is that of their document, empty for the file's."""

    id: str
    revision: int
    settings: Settings = field(repr=False)


class Editions:
    """The editions that there are, by id."""

    def __init__(self, settings: Settings, documents: Mapping[str, Document] | None = None) -> None:
        self._documents = {} if documents is None else documents
        self._known = {"": Edition("", 0, settings)}

    def newest(self) -> Edition:
        """Return what a partition without stored state begins with."""
        document = newest(self._documents.values())
        return self.of("" if document is None or document.revision == 0 else document.id)

    def of(self, identity: str) -> Edition:
        """Return an edition.

        :raises StateError: if the topic ``config`` does not hold its document any more.
        """
        found = self._known.get(identity)
        if found is None:
            document = self._documents.get(identity)
            if document is None:
                raise StateError(
                    f"stored state follows {identity} of the topic config, which is not there any "
                    "more; restore the topic, or take a new alerts.id (docs/upgrading.md)"
                )
            settings = in_force(self._known[""].settings, document)
            found = self._known[identity] = Edition(identity, document.revision, settings)
        return found

    def at(self, record: LogRecord) -> Edition | None:
        """Return the edition that a marker names; None if it names none that counts."""
        document = self._documents.get(marker_of(record) or "")
        return None if document is None or document.revision == 0 else self.of(document.id)
