"""A TOML file together with the line of every key, so that errors can name it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streams.errors import SettingsError

KeyPath = tuple[str | int, ...]

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=""")


@dataclass(frozen=True, slots=True)
class TomlFile:
    """Parsed values, and the 1-based line of each key path that could be located."""

    path: Path
    values: dict[str, Any]
    lines: dict[KeyPath, int]

    def where(self, key: KeyPath) -> str:
        """Return ``file:line`` of a key path, or of its nearest located parent."""
        for length in range(len(key), 0, -1):
            line = self.lines.get(key[:length])
            if line is not None:
                return f"{self.path}:{line}"
        names = [str(part).upper() for part in key if isinstance(part, str)]
        return f"{self.path} or $HEADWATER_{'__'.join(names)}" if names else str(self.path)


def read_toml(path: Path) -> TomlFile:
    """Parse a TOML file and locate its keys.

    :raises SettingsError: if it is not TOML; the message names the line.
    """
    text = path.read_text(encoding="utf-8")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error
    return TomlFile(path, values, locate(text))


def locate(text: str) -> dict[KeyPath, int]:
    """Map key paths to lines: tables, arrays of tables and their keys.

    A scan by line suffices for locating: a key inside a multi-line string could be located
    wrongly, never valued wrongly, since values come from ``tomllib``.
    """
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    prefix: KeyPath = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header:
            prefix = _resolve(_split(header.group(2)), counts, array=header.group(1) == "[[")
            lines[prefix] = number
            continue
        key = _KEY.match(line)
        if key:
            lines[prefix + _split(key.group(1))] = number
    return lines


def _split(dotted: str) -> KeyPath:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _resolve(names: KeyPath, counts: dict[KeyPath, int], *, array: bool) -> KeyPath:
    """Insert the index of the current element behind each array of tables on the way."""
    path: KeyPath = ()
    for position, name in enumerate(names):
        path += (name,)
        if array and position == len(names) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path += (counts[path],)
    return path
