"""The twin's part of the demo: both sides of a cut link change it, and it comes together."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import httpx

from streams.errors import ServiceError

_PATIENCE_S = 180.0


@dataclass(frozen=True, slots=True)
class Ends:
    """The HTTP addresses of a twin at its edge and in the cloud."""

    edge: str
    cloud: str

    def read(self, base: str) -> dict[str, Any]:
        """Return the twin as one end shows it; empty if it knows none yet."""
        answer = httpx.get(base, timeout=_PATIENCE_S)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return {}
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def write(self, base: str, fields: dict[str, Any]) -> None:
        """Change fields at one end."""
        httpx.patch(base, json=fields, timeout=_PATIENCE_S).raise_for_status()

    def equal(self) -> bool:
        """Whether both ends show the same cells and the same conflicts."""
        edge, cloud = self.read(self.edge), self.read(self.cloud)
        return bool(edge) and bool(cloud) and _digests(edge) == _digests(cloud)

    def wait_equal(self, what: str) -> float:
        """Wait until both ends are equal; return the seconds that it took.

        :raises ServiceError: if they do not become so in time.
        """
        started = time.monotonic()
        while not self.equal():
            if time.monotonic() - started > _PATIENCE_S:
                raise ServiceError(f"{what}: edge and cloud differ after {_PATIENCE_S:.0f} s")
            time.sleep(0.1)
        return time.monotonic() - started


def describe(device: str, edge: dict[str, Any], cloud: dict[str, Any]) -> dict[str, Any]:
    """Return what the summary shows of a twin: fields, digests, conflicts in words."""
    return {
        "device": device,
        "edge": _digests(edge),
        "cloud": _digests(cloud),
        "fields": {path: field["value"] for path, field in cloud.get("fields", {}).items()},
        "conflicts": [_in_words(conflict) for conflict in cloud.get("conflicts", [])],
    }


def _digests(twin: dict[str, Any]) -> str:
    """Return the begin of the digests of cells and of the conflict ledger."""
    return f"{twin.get('digest', '')[:12]} / {twin.get('ledger_digest', '')[:12]}"


def _in_words(conflict: dict[str, Any]) -> str:
    won, lost = conflict["winner"], conflict["loser"]
    return (
        f"{conflict['path']}: the {won['side']} wrote {won['value']}, the {lost['side']} wrote "
        f"{lost['value']}, and {won['value']} stands ({conflict['why']})"
    )
