"""Decoding a batch of messages into one batch of readings and the messages refused.

A message is taken or refused as a whole. Nothing here waits, logs or reads a clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streams.adapters import frames, json_readings, plain_number, senml
from streams.adapters.codecs import Codecs
from streams.adapters.rejected import Original
from streams.adapters.rows import RowBuilder, Source, check_name
from streams.adapters.strict_json import loads
from streams.core.readings import Readings, concat_readings
from streams.errors import DecodeError
from streams.intake.mapping import TopicMap
from streams.settings import MetricSpec

_FRAME_MAGIC = b"\xff\xff\xff\xff"
_SPACE = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came: ``received_ms`` is milliseconds since the epoch.

    ``payload`` is an :class:`Original` where it was over the limit and only its head was kept.
    """

    topic: str
    payload: bytes | Original
    received_ms: int
    is_inflated: bool = False
    """It was compressed, and held to a bound of its own."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that gave no readings: its place in the batch, and why."""

    index: int
    reason: str
    detail: str
    source: Source | None


@dataclass(frozen=True, slots=True)
class Decoded:
    """Readings of a batch, in order of arrival, and the messages refused."""

    readings: Readings
    refused: list[Refused]
    ignored: int
    """Messages on native topics that belong to other processes."""


class BatchDecoder:
    """Decodes batches after the mappings and the metric catalogue of the settings."""

    def __init__(
        self,
        topics: TopicMap,
        metrics: Mapping[str, MetricSpec],
        max_rows: int,
        max_bytes: int,
        codecs: Sequence[str] = (),
    ) -> None:
        """Make a decoder.

        :param max_rows: readings that one message may carry.
        :param max_bytes: bytes that one payload may have.
        :param codecs: names of codecs of other packages that ``auto`` recognises.
        """
        self._topics = topics
        self._rows = RowBuilder(metrics, max_rows)
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._codecs = Codecs(codecs)

    def decode(self, messages: Sequence[Message]) -> Decoded:
        """Decode messages in order."""
        parts: list[Readings] = []
        refused: list[Refused] = []
        ignored = 0
        for index, message in enumerate(messages):
            source: Source | None = None
            mark = self._rows.mark()
            try:
                source = self._topics.source(message.topic)
                if source is None:
                    ignored += 1
                else:
                    self._decode_one(message, source, parts)
            except DecodeError as error:
                self._rows.rollback(mark)
                refused.append(Refused(index, error.reason, error.detail, source))
        self._flush(parts)
        return Decoded(concat_readings(parts or [self._rows.finish()]), refused, ignored)

    def decode_as(self, message: Message, source: Source) -> Readings:
        """Decode one message whose origin is known without its topic.

        :raises DecodeError: if it gives no readings.
        """
        parts: list[Readings] = []
        mark = self._rows.mark()
        try:
            self._decode_one(message, source, parts)
        except DecodeError:
            self._rows.rollback(mark)
            raise
        self._flush(parts)
        return concat_readings(parts)

    def _decode_one(self, message: Message, source: Source, parts: list[Readings]) -> None:
        payload = message.payload
        if isinstance(payload, Original) or (
            len(payload) > self._max_bytes and not message.is_inflated
        ):
            length = payload.length if isinstance(payload, Original) else len(payload)
            raise DecodeError(
                "payload-too-large",
                f"{length} bytes; at most {self._max_bytes} are taken (gateway.max_payload_bytes)",
            )
        is_auto_frame = source.format == "auto" and payload[:4] == _FRAME_MAGIC
        if source.format == "frame" or is_auto_frame:
            readings = decode_frame(payload, source, self._max_rows)
            self._flush(parts)
            parts.append(readings)
        elif source.format == "auto":
            self._decode_auto(payload, source, message.received_ms)
        else:
            self._codecs.decode(source.format, payload, source, message.received_ms, self._rows)

    def _decode_auto(self, payload: bytes, source: Source, received_ms: int) -> None:
        first, rows = payload.lstrip(_SPACE)[:1], self._rows
        if first == b"{":
            json_readings.decode(payload, source, received_ms, rows)
        elif first == b"[":
            parsed = loads(payload)
            codec = senml if senml.looks_like(parsed) else json_readings
            codec.add_parsed(parsed, source, received_ms, rows)
        elif not first:
            raise DecodeError(
                "empty-payload", "the payload is empty; expected JSON, SenML, a number or a frame"
            )
        elif name := self._codecs.recognise(payload):
            self._codecs.decode(name, payload, source, received_ms, rows)
        else:
            plain_number.decode(payload, source, received_ms, rows)

    def _flush(self, parts: list[Readings]) -> None:
        if len(self._rows):
            parts.append(self._rows.finish())


def decode_frame(payload: bytes, source: Source, max_rows: int) -> Readings:
    """Read a frame and check it against the topic that it came by.

    :raises DecodeError: as :func:`streams.adapters.frames.decode`; ``wrong-tenant`` if it names
        another tenant or site than its topic, which is what the broker authorised; ``bad-name``,
        ``bad-time``, ``not-a-number``, ``too-many-fields``.
    """
    readings = frames.decode(payload)
    if len(readings) > max_rows:
        raise DecodeError(
            "too-many-fields", f"the frame has {len(readings)} rows; at most {max_rows} are taken"
        )
    for kind, expected in (("tenant", source.tenant), ("site", source.site)):
        labels = getattr(readings, kind)
        found = {labels.values[code] for code in np.unique(labels.codes).tolist()}
        if found != {expected}:
            other = min(found - {expected})
            raise DecodeError(
                f"wrong-{kind}", f"the frame says {kind} {other[:40]!r}, its topic {expected!r}"
            )
    for device in readings.device.values:
        check_name("device", device)
    for metric in readings.metric.values:
        check_name("metric", metric, slash=True)
    if min(int(readings.t_ms.min()), int(readings.received_ms.min())) < 0:
        raise DecodeError("bad-time", "the frame has times before 1970")
    _check_values(readings)
    return readings


def _check_values(readings: Readings) -> None:
    for row in np.flatnonzero(~np.isfinite(readings.value)).tolist():
        is_elsewhere = row in readings.text or row in readings.exact_int
        if not is_elsewhere or not np.isnan(readings.value[row]):
            raise DecodeError(
                "not-a-number",
                f"row {row} ({readings.metric[row][:40]}) is {readings.value[row]}; "
                "expected a finite number",
            )
