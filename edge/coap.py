"""What an edge shows over CoAP: fields of twins, to be observed, latest readings and windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from aiocoap import Code, Message, resource
from aiocoap.numbers.contentformat import ContentFormat

from edge.latest import Latest
from edge.local.recent import RecentWindows
from edge.node import EdgeNode
from streams.intake.coap_fields import FieldsResource


class LatestResource(resource.Resource, resource.PathCapable):  # type: ignore[misc]  # untyped
    """``/v1/latest/DEVICE/METRIC``; a metric may have slashes."""

    def __init__(self, latest: Latest) -> None:
        super().__init__()
        self._latest = latest

    async def render_get(self, request: Any) -> Any:
        """Return the latest reading of a series as JSON."""
        path: tuple[str, ...] = request.opt.uri_path
        found = self._latest.one(path[0], "/".join(path[1:])) if path else None
        if found is None:
            told = b"expected /v1/latest/DEVICE/METRIC, and a series heard since the start"
            return Message(code=Code.NOT_FOUND, payload=told)
        payload = orjson.dumps(found)
        return Message(code=Code.CONTENT, payload=payload, content_format=ContentFormat.JSON)


class WindowsResource(resource.Resource, resource.PathCapable):  # type: ignore[misc]  # untyped
    """``/v1/windows/DEVICE/METRIC``; a metric may have slashes."""

    def __init__(self, recent: RecentWindows) -> None:
        super().__init__()
        self._recent = recent

    async def render_get(self, request: Any) -> Any:
        """Return the recent windows of a series as JSON, in blocks where they are long."""
        path: tuple[str, ...] = request.opt.uri_path
        found = self._recent.device(path[0], "/".join(path[1:])) if len(path) > 1 else None
        if not found:
            told = b"expected /v1/windows/DEVICE/METRIC, and a window closed since the start"
            return Message(code=Code.NOT_FOUND, payload=told)
        # No number is null in what orjson writes.
        payload = orjson.dumps(found)
        return Message(code=Code.CONTENT, payload=payload, content_format=ContentFormat.JSON)


class TwinFields:
    """Fields of the node's twins as JSON, and which of them a change has changed.

    Only devices that were read over CoAP are compared: the others cost nothing.
    """

    def __init__(self, node: EdgeNode) -> None:
        self._node = node
        self._seen: dict[str, dict[str, bytes]] = {}

    def read(self, device: str, path: str) -> bytes | None:
        """Return a field's value; None if there is no such field."""
        found = self._fields(device)
        if found:
            self._seen[device] = found
        return found.get(path)

    def changes(self, device: str) -> list[str]:
        """Return the paths whose value is another than when they were looked at last."""
        before = self._seen.get(device)
        if before is None:
            return []
        now = self._seen[device] = self._fields(device)
        return [path for path in before.keys() | now.keys() if before.get(path) != now.get(path)]

    def _fields(self, device: str) -> dict[str, bytes]:
        fields = (self._node.view(device) or {}).get("fields", {})
        return {path: orjson.dumps(found["value"]) for path, found in fields.items()}


def resources(
    node: EdgeNode, latest: Latest, max_observers: int, recent: RecentWindows | None = None
) -> Mapping[tuple[str, ...], resource.Resource]:
    """Return resources by path; the node tells those who observe of changes from now on."""
    twins = TwinFields(node)
    fields = FieldsResource(twins.read, max_observers)
    node.changed = lambda device: fields.changed(device, twins.changes(device))
    shown: dict[tuple[str, ...], resource.Resource] = {
        ("v1", "devices"): fields,
        ("v1", "latest"): LatestResource(latest),
    }
    if recent is not None:
        shown["v1", "windows"] = WindowsResource(recent)
    return shown
