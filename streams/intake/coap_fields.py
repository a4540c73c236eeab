"""Fields of twins over CoAP: GET, and Observe (RFC 7641) to be told of every change.

``coap://HOST/v1/devices/DEVICE/twin/desired/limits/vibration`` is the field
``desired.limits.vibration``. Whoever holds the twins gives :class:`FieldsResource` a way to read
them, and calls :meth:`FieldsResource.changed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from aiocoap import Code, Message, resource
from aiocoap.numbers.contentformat import ContentFormat
from prometheus_client import Gauge

_OBSERVERS = Gauge("headwater_intake_observers", "Observations of fields of twins over CoAP")

Field = tuple[str, str]
"""Device, and path with dots."""
Read = Callable[[str, str], bytes | None]
"""Device and path -> the value as JSON; ``None`` if there is no such field."""


class FieldsResource(resource.ObservableResource, resource.PathCapable):  # type: ignore[misc]  # aiocoap is untyped
    """All fields of all twins. To be added to a site at ``v1/devices``."""

    def __init__(self, read: Read, max_observers: int) -> None:
        """Make the resource.

        :param max_observers: beyond it a request is answered once, without an observation.
        """
        super().__init__()
        self._read = read
        self._max_observers = max_observers
        self._observers: dict[Field, set[Any]] = {}
        self._count = 0

    def changed(self, device: str, paths: Iterable[str]) -> None:
        """Tell who observes one of the fields of a device."""
        for path in paths:
            for observer in list(self._observers.get((device, path), ())):
                observer.trigger()

    async def add_observation(self, request: Any, serverobservation: Any) -> None:
        """Begin an observation, if there is such a field and room."""
        field = _field(request)
        if field is None or self._read(*field) is None or self._count >= self._max_observers:
            return
        self._observers.setdefault(field, set()).add(serverobservation)
        self._count += 1
        _OBSERVERS.inc()
        serverobservation.accept(lambda: self._left(field, serverobservation))

    def _left(self, field: Field, observation: Any) -> None:
        self._observers[field].discard(observation)
        if not self._observers[field]:
            del self._observers[field]
        self._count -= 1
        _OBSERVERS.dec()

    async def render_get(self, request: Any) -> Any:
        """Return the value of a field as JSON."""
        field = _field(request)
        value = None if field is None else self._read(*field)
        if value is None:
            told = b"expected /v1/devices/DEVICE/twin/FIELD, and a field that there is"
            return Message(code=Code.NOT_FOUND, payload=told)
        return Message(code=Code.CONTENT, payload=value, content_format=ContentFormat.JSON)


def _field(request: Any) -> Field | None:
    path = request.opt.uri_path
    if len(path) < 3 or path[1] != "twin":
        return None
    return path[0], ".".join(path[2:])
