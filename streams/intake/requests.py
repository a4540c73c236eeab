"""From one request of HTTP or CoAP to readings. Pure.

Whose readings they are is told, in this order, by a topic that the mappings know, by the query,
by the payload (field ``device``, or the base name of SenML), and by who sends. Who sends also
bounds it: see :func:`streams.intake.identities.check_own`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streams.adapters import frames, zstd
from streams.adapters.codecs import Codecs
from streams.adapters.rows import Source, check_name
from streams.core.readings import Readings
from streams.errors import DecodeError
from streams.intake.decode import BatchDecoder, Message
from streams.intake.identities import Identity, check_own
from streams.intake.mapping import TopicMap
from streams.settings import MetricSpec

FORMATS = {
    "application/json": "json",
    "application/senml+json": "senml",
    "application/senml+cbor": "senml",
    "text/plain": "number",
    frames.CONTENT_TYPE.decode(): "frame",
}
"""Media type -> format."""
_DEVICE = "device"
_RESERVED = frozenset(("t_ms", "seq", "boot", _DEVICE))


class UnsupportedTypeError(DecodeError):
    """The payload is of a type, or compressed in a way, that is not taken."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says beside its payload; ``None`` where it says nothing."""

    content_type: str | None = None
    encoding: str | None = None
    topic: str | None = None
    """As if it were published to this MQTT topic."""
    tenant: str | None = None
    site: str | None = None
    device: str | None = None
    metric: str | None = None


class RequestDecoder:
    """Decodes requests after the mappings and the metric catalogue of the settings."""

    def __init__(
        self,
        topics: TopicMap,
        metrics: Mapping[str, MetricSpec],
        max_rows: int,
        max_bytes: int,
        codecs: Sequence[str] = (),
    ) -> None:
        """Make a decoder.

        :param max_rows: readings that one request may carry.
        :param max_bytes: bytes that one payload may have, compressed or not.
        :param codecs: names of codecs of other packages that are taken, by their media type.
        """
        self._max_bytes = max_bytes
        self._decoder = BatchDecoder(topics, metrics, max_rows, max_bytes, codecs)
        self._formats = dict(FORMATS)
        for media_type, name in Codecs(codecs).by_type.items():
            self._formats[media_type.decode()] = name

    def decode(
        self, payload: bytes, asked: Asked, received_ms: int, identity: Identity | None
    ) -> Readings:
        """Return the readings of one request.

        :param received_ms: when it came, milliseconds since the epoch.
        :param identity: who sends; ``None`` may send for everyone.
        :raises UnsupportedTypeError: ``unknown-format`` if its type or encoding is not taken.
        :raises ForeignReadingsError: if one is not the sender's own.
        :raises DecodeError: if it gives no readings.
        """
        if asked.encoding == "zstd":
            payload = zstd.inflate(payload, self._max_bytes)
        elif asked.encoding not in (None, "identity"):
            raise UnsupportedTypeError(
                "unknown-format", f"encoding {asked.encoding[:40]!r}; expected zstd or none"
            )
        if asked.topic is not None:
            readings = self._by_topic(payload, asked.topic, received_ms)
        else:
            source = self._source(payload, asked, identity)
            readings = self._decoder.decode_as(Message("", payload, received_ms), source)
            _check_asked(asked, readings)
        if identity is not None:
            check_own(identity, readings)
        return readings

    def _by_topic(self, payload: bytes, topic: str, received_ms: int) -> Readings:
        decoded = self._decoder.decode([Message(topic, payload, received_ms)])
        for refused in decoded.refused:
            raise DecodeError(refused.reason, refused.detail)
        if decoded.ignored:
            raise DecodeError("unknown-topic", f"{topic[:200]!r} is not a topic of readings")
        return decoded.readings

    def _source(self, payload: bytes, asked: Asked, identity: Identity | None) -> Source:
        for kind in ("tenant", "site", "device", "metric"):
            given = getattr(asked, kind)
            if given is not None:
                check_name(kind, given, slash=kind == "metric")
        form = self._format(asked.content_type)
        device = asked.device or (identity.device if identity else None)
        if form in ("json", "auto") and b'"device"' in payload:
            # The payload may say it too; what it says is held against the others afterwards.
            device = None
        return Source(
            tenant=asked.tenant or (identity.tenant if identity else "default"),
            site=asked.site or (identity.site if identity else "default"),
            device=device,
            metric=asked.metric,
            format=form,
            device_field=_DEVICE,
            reserved=_RESERVED,
        )

    def _format(self, content_type: str | None) -> str:
        if content_type is None:
            return "auto"
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type not in self._formats:
            raise UnsupportedTypeError(
                "unknown-format",
                f"content type {media_type[:60]!r}; expected {', '.join(sorted(self._formats))}",
            )
        return self._formats[media_type]


def _check_asked(asked: Asked, readings: Readings) -> None:
    if asked.device is not None:
        for name in readings.device.values:
            if name != asked.device:
                raise DecodeError(
                    "wrong-device", f"the payload names {name[:60]!r}, the request {asked.device!r}"
                )
