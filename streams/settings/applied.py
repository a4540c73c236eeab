"""Settings that change while running: what readings become, and what alerts are made of them.

A document of the topic ``config`` holds these sections as they are from one revision on. It never
changes once it is written; its id is its revision and a hash of its content. Revision 0 only notes
what a worker was started with; from revision 1 on the newest document counts, and not the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from streams.errors import SettingsError
from streams.settings.device_groups import DeviceTag, DeviceType
from streams.settings.generations import generation_name
from streams.settings.loader import Settings
from streams.settings.routing import Inhibition, Maintenance, Route
from streams.settings.rules import Rule
from streams.settings.sections import Mapping as MappingSection
from streams.settings.sections import MetricSpec, Section
from streams.settings.windows import Window

_MODELS: dict[str, type[Section]] = {
    "mappings": MappingSection,
    "metrics": MetricSpec,
    "windows": Window,
    "types": DeviceType,
    "tags": DeviceTag,
    "rules": Rule,
    "routes": Route,
    "inhibitions": Inhibition,
    "maintenance": Maintenance,
}
SECTIONS = tuple(_MODELS)
_OF_ALERTS = ("tags", "rules", "routes", "inhibitions", "maintenance")
"""A document of an earlier version says nothing of them, so the file counts."""
_KEYS = {"mappings": "topic", **dict.fromkeys(("windows", "types", *_OF_ALERTS), "name")}
_ORDERED = ("mappings", "types", "routes")
"""Of these the first that fits counts."""
_FIRST_VERSION, _SECOND_VERSION, _VERSION = 1, 2, 3
"""The first knows neither device types nor generations, the second not what alerts are made of. A
document that was written so stays so: its id, which stored state names, stays too."""


@dataclass(frozen=True, slots=True)
class Document:
    """One revision. ``retired`` are windows that were taken away, by name."""

    revision: int
    sections: Mapping[str, Any]
    retired: Mapping[str, Any]
    generations: Mapping[str, int] = field(default_factory=dict)
    """Of windows, retired ones too, whose definition has changed: which they are at."""
    id: str = field(init=False)
    """The revision and a hash of the content."""

    def __post_init__(self) -> None:
        digest = hashlib.sha256(self.encode()).hexdigest()[:16]
        object.__setattr__(self, "id", f"{self.revision}-{digest}")

    def encode(self) -> bytes:
        """Return the record's value; equal documents have equal bytes."""
        news = {"types": self.sections["types"], "generations": dict(self.generations)}
        news = {name: value for name, value in news.items() if value}
        content = {
            **self.sections,
            "version": self._version(bool(news)),
            "revision": self.revision,
            "retired": dict(self.retired),
        }
        del content["types"]
        content |= news
        return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)

    def _version(self, has_news: bool) -> int:
        if "rules" in self.sections:
            return _VERSION
        return _SECOND_VERSION if has_news else _FIRST_VERSION

    def windows(self) -> list[Window]:
        """Return the window definitions, named as in results."""
        found = [Window.model_validate(window) for window in self.sections["windows"]]
        return [
            window.model_copy(update={"name": self.name_of(window.name)})
            if window.name in self.generations
            else window
            for window in found
        ]

    def types(self) -> list[DeviceType]:
        """Return the device types, in their order."""
        return [DeviceType.model_validate(one) for one in self.sections["types"]]

    def name_of(self, window: str) -> str:
        """Return the name that a window of the settings has in results."""
        return generation_name(window, self.generations.get(window, 1))


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
        sections = {"types": [], **content}
        sections = {
            name: sections[name]
            for name in SECTIONS
            if version == _VERSION or name not in _OF_ALERTS
        }
        retired, generations = content["retired"], content.get("generations", {})
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise SettingsError(f"a record of the topic config cannot be read: {error!r}") from error
    if version not in (_FIRST_VERSION, _SECOND_VERSION, _VERSION):
        raise SettingsError(
            f"the topic config has version {version}, expected up to {_VERSION}: it was written by "
            "another version of Headwater; run that one (docs/upgrading.md)"
        )
    return Document(int(revision), sections, retired, generations)


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
            "types": document.types(),
            **{
                name: [_MODELS[name].model_validate(one) for one in sections[name]]
                for name in _OF_ALERTS
                if name in sections
            },
        }
    )


def following(settings: Settings, document: Document) -> Document:
    """Return the next revision, which says what the settings say.

    A window with another definition than under its name before is the next generation of it.
    """
    wanted = document_of(settings).sections
    known = {**document.retired, **_named("windows", document.sections["windows"])}
    after = _named("windows", wanted["windows"])
    generations = dict(document.generations)
    for name, window in after.items():
        if name in known and _normal("windows", known[name]) != window:
            generations[name] = generations.get(name, 1) + 1
    retired = {name: window for name, window in known.items() if name not in after}
    return Document(document.revision + 1, wanted, retired, generations)


def introduced(documents: Iterable[Document], window: str) -> Document | None:
    """Return the document that brought a window of the newest one, None if it was always there.

    :param window: its name in results.
    :raises SettingsError: if it is not in the newest one.
    """
    ordered = sorted(documents, key=lambda one: one.revision, reverse=True)
    found: Document | None = None
    for one in ordered:
        if all(held.name != window for held in one.windows()):
            if found is None:
                raise SettingsError(f"the window {window!r} is not in force")
            return found
        found = one
    return None


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return what differs between the sections of two documents."""
    found: list[Change] = []
    for section in SECTIONS:
        if section not in before or section not in after:
            continue
        old, new = (
            {name: _normal(section, one) for name, one in _named(section, side[section]).items()}
            for side in (before, after)
        )
        for name in [*old, *(name for name in new if name not in old)]:
            if name not in new:
                found.append(Change(section, name, "removed", old[name], None))
            elif name not in old:
                found.append(Change(section, name, "added", None, new[name]))
            elif old[name] != new[name]:
                found.append(Change(section, name, "changed", old[name], new[name]))
        if section in _ORDERED and set(old) == set(new) and list(old) != list(new):
            found.append(Change(section, "order", "changed", list(old), list(new)))
    return found


def _normal(section: str, one: Any) -> Any:
    """Return an entry with every default: one of a version before lacks what was added since."""
    return _MODELS[section].model_validate(one).model_dump(mode="json")


def _named(section: str, content: Any) -> dict[str, Any]:
    key = _KEYS.get(section)
    return dict(content) if key is None else {one[key]: one for one in content}
