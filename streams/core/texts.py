"""Names by number."""

from __future__ import annotations

from streams.core.readings import Int32, Labels


class Texts:
    """Names by number; each is held once."""

    def __init__(self) -> None:
        self.values: list[str] = []
        self._index: dict[str, int] = {}

    def number(self, text: str) -> int:
        """Return the number of a name, a new one if it is new."""
        found = self._index.setdefault(text, len(self.values))
        if found == len(self.values):
            self.values.append(text)
        return found

    def labels(self, numbers: Int32) -> Labels:
        """Return names as a column."""
        return Labels(numbers, self.values)
