"""Settings that change while running: mappings, metrics and windows, as in the topic ``config``.

A document holds all three sections as they are from one revision on. It never changes once it is
written; its id is its revision and a hash of its content. Revision 0 only notes what a worker was
started with; from revision 1 on the newest document counts, and not the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from streams.errors import SettingsError
from streams.settings.loader import Settings
from streams.settings.sections import Mapping as MappingSection
from streams.settings.sections import MetricSpec
from streams.settings.windows import Window

SECTIONS = ("mappings", "metrics", "windows")
_VERSION = 1
_KEYS = {"windows": "name", "mappings": "topic"}


@dataclass(frozen=True, slots=True)
class Document:
    """One revision. ``retired`` are windows that were taken away, by name."""

    revision: int
    sections: Mapping[str, Any]
    retired: Mapping[str, Any]
    id: str = field(init=False)
    """The revision and a hash of the content."""

    def __post_init__(self) -> None:
        digest = hashlib.sha256(self.encode()).hexdigest()[:16]
        object.__setattr__(self, "id", f"{self.revision}-{digest}")

    def encode(self) -> bytes:
        """Return the record's value; equal documents have equal bytes."""
        content = {
            "version": _VERSION,
            "revision": self.revision,
            "retired": dict(self.retired),
            **self.sections,
        }
        return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)

    def windows(self) -> list[Window]:
        """Return the window definitions."""
        return [Window.model_validate(window) for window in self.sections["windows"]]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: ``what`` is ``added``, ``removed`` or ``changed``."""

    section: str
    name: str
    what: str
    before: Any
    after: Any


def parse(value: bytes) -> Document:
    """Read a record of ``config``.

    :raises SettingsError: if it is none, or of a version that this code does not know.
    """
    try:
        content = orjson.loads(value)
        version, revision = content["version"], content["revision"]
        sections = {name: content[name] for name in SECTIONS}
        retired = content["retired"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise SettingsError(f"a record of the topic config cannot be read: {error!r}") from error
    if version != _VERSION:
        raise SettingsError(
            f"the topic config has version {version}, expected {_VERSION}: it was written by "
            "another version of Headwater; run that one (docs/upgrading.md)"
        )
    return Document(int(revision), sections, retired)


def document_of(settings: Settings, revision: int = 0) -> Document:
    """Return the document that notes these settings."""
    return Document(revision, settings.model_dump(mode="json", include=set(SECTIONS)), {})


def newest(documents: Iterable[Document]) -> Document | None:
    """Return what counts of documents in the order of their topic.

    Of a revision the first counts, as whoever wrote a second one was told; of revision 0 the last.
    """
    found: Document | None = None
    for one in documents:
        if found is None or one.revision > found.revision or one.revision == 0 == found.revision:
            found = one
    return found


def in_force(settings: Settings, document: Document | None) -> Settings:
    """Return the settings with what was applied in place of what the file says."""
    if document is None or document.revision == 0:
        return settings
    sections = document.sections
    return settings.model_copy(
        update={
            "windows": document.windows(),
            "mappings": [MappingSection.model_validate(one) for one in sections["mappings"]],
            "metrics": {n: MetricSpec.model_validate(m) for n, m in sections["metrics"].items()},
        }
    )


def following(settings: Settings, document: Document) -> Document:
    """Return the next revision, which says what the settings say.

    :raises SettingsError: if a window has another definition than under this name before.
    """
    wanted = document_of(settings).sections
    before = _named("windows", document.sections["windows"])
    after = _named("windows", wanted["windows"])
    known = {**document.retired, **before}
    for name, window in after.items():
        if name in known and known[name] != window:
            differing = sorted(k for k in window if window[k] != known[name].get(k))
            raise SettingsError(
                f"windows: {name!r} had another {', '.join(differing)} before. Results are known "
                "by the name of their window, so the old and the new would be mixed: give it "
                f"another name, such as {name}-2, and name that in roll-ups and by readers"
            )
    retired = {name: window for name, window in known.items() if name not in after}
    return Document(document.revision + 1, wanted, retired)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return what differs between the sections of two documents."""
    found: list[Change] = []
    for section in SECTIONS:
        old, new = _named(section, before[section]), _named(section, after[section])
        for name in [*old, *(name for name in new if name not in old)]:
            if name not in new:
                found.append(Change(section, name, "removed", old[name], None))
            elif name not in old:
                found.append(Change(section, name, "added", None, new[name]))
            elif old[name] != new[name]:
                found.append(Change(section, name, "changed", old[name], new[name]))
        if section == "mappings" and set(old) == set(new) and list(old) != list(new):
            found.append(Change(section, "order", "changed", list(old), list(new)))
    return found


def _named(section: str, content: Any) -> dict[str, Any]:
    key = _KEYS.get(section)
    return dict(content) if key is None else {one[key]: one for one in content}
