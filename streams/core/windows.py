"""Window definitions: the arithmetic of tumbling windows, on integer milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from streams.core.readings import Int64


@dataclass(frozen=True, slots=True)
class Tumbling:
    """Windows ``[start, start + size_ms)`` with ``start = offset_ms (mod size_ms)``.

    A window closes when its device's watermark reaches ``end + grace_ms`` (revision 0) and is
    corrected by later readings until the watermark reaches ``end + grace_ms + horizon_ms``.
    """

    name: str
    metrics: tuple[str, ...]
    size_ms: int
    offset_ms: int
    grace_ms: int
    horizon_ms: int

    def applies_to(self, metric: str) -> bool:
        """Whether the definition's globs match a metric."""
        return any(fnmatchcase(metric, glob) for glob in self.metrics)

    def start_of(self, t_ms: Int64) -> Int64:
        """Return the start of the window of each time."""
        return t_ms - (t_ms - self.offset_ms) % self.size_ms

    def closes_at(self, start_ms: Int64) -> Int64:
        """Return the watermark at which each window closes."""
        return start_ms + (self.size_ms + self.grace_ms)
