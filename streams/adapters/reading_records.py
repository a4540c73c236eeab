"""Records of ``readings`` in any codec, decoded as one batch of columns.

A record is told by its header ``content-type``: a frame, a JSON object (or a list of them), or
a SenML pack, or what a codec of another package says; where the header is missing or names
something else, by its first bytes. Frames
name their devices; JSON and SenML come from any producer, and their records do: tenant and
device by the key, the site by a header, the time of receipt by the log.

A record is taken or refused as a whole, and what becomes of it does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from operator import attrgetter

import numpy as np

from streams.adapters import frames, json_readings, senml
from streams.adapters.codecs import Codecs
from streams.adapters.json_columns import BOOT, SEQ, TIME, Block, ColumnReader, or_absent
from streams.adapters.record_names import DEFAULT_SITE, RecordNames
from streams.adapters.rows import RowBuilder, Source
from streams.adapters.strict_json import loads
from streams.core.readings import (
    TIME_OF_RECEIPT,
    Bool,
    Int32,
    Int64,
    Labels,
    Readings,
    concat_readings,
)
from streams.errors import DecodeError
from streams.ports import LogRecord, header
from streams.settings import MetricSpec

CONTENT_TYPE = "content-type"
_FRAME_MAGIC = b"\xff\xff\xff\xff"
_SPACE = b" \t\r\n"
_RESERVED = frozenset((TIME, BOOT, SEQ))

Concat = Callable[[Sequence[Readings]], Readings]
Part = tuple[Readings, Int64]
"""Readings, and for each the place of its record."""
_HEADERS = attrgetter("headers")
_VALUE = attrgetter("value")
_KEY = attrgetter("key")
_TIMESTAMP = attrgetter("timestamp")


class Form(Enum):
    """How a record is to be read."""

    FRAME = auto()
    OBJECT = auto()
    """JSON: an object, or a list of them."""
    PACK = auto()
    """SenML."""
    LIST = auto()
    """A JSON list, which its first look tells: objects or SenML."""
    OTHER = auto()
    """A codec of another package, by its content type."""
    UNKNOWN = auto()
    """A codec of another package, by its first bytes, or none."""


_BY_TYPE = {
    frames.CONTENT_TYPE: Form.FRAME,
    b"application/json": Form.OBJECT,
    b"application/senml+json": Form.PACK,
}
_BY_FIRST = {b"{": Form.OBJECT, b"[": Form.LIST}


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that gave no readings: its place in the batch, why, and who sent it, if known."""

    at: int
    error: DecodeError
    source: Source | None


@dataclass(frozen=True, slots=True)
class Decoded:
    """Readings in the order of their records; ``at`` int64[n] is the place of each's record."""

    readings: Readings
    at: Int64
    refused: Sequence[Refused]

    def row(self) -> Int32:
        """Return the place of each reading in its record, int32[n]."""
        n = len(self.at)
        is_first = np.ones(n, np.bool_)
        is_first[1:] = self.at[1:] != self.at[:-1]
        first = np.flatnonzero(is_first)
        row: Int32 = (np.arange(n) - first[np.cumsum(is_first) - 1]).astype(np.int32)
        return row


class RecordDecoder:
    """Decodes batches of records; one per partition, for what it remembers of keys."""

    def __init__(
        self,
        metrics: Mapping[str, MetricSpec],
        max_rows: int,
        concat: Concat = concat_readings,
        codecs: Sequence[str] = (),
    ) -> None:
        """Make a decoder.

        :param metrics: the metric catalogue, for JSON and SenML.
        :param max_rows: readings that one JSON or SenML record may carry.
        :param concat: puts the readings of several records into one batch.
        :param codecs: names of codecs of other packages that records may be in.
        """
        self._codecs = Codecs(codecs)
        self._types = {**_BY_TYPE, **dict.fromkeys(self._codecs.by_type, Form.OTHER)}
        self._concat = concat
        self._names = RecordNames()
        self._columns = ColumnReader(metrics, max_rows)
        self._rows = RowBuilder(metrics, max_rows)

    def decode(self, records: Sequence[LogRecord]) -> Decoded:
        """Decode records in order; none of them may be a time marker."""
        parts, taken = self._read_columns(records)
        rest = np.flatnonzero(~taken)
        refused: list[Refused] = []
        if len(rest) or not parts:
            parts += self._read_rows(records, rest, refused)
        readings = self._concat([part for part, _ in parts])
        at = np.concatenate([at for _, at in parts])
        if len(parts) > 1 and (np.diff(at) < 0).any():
            order = np.argsort(at, kind="stable")
            readings, at = readings.take(order), at[order]
        return Decoded(readings, at, refused)

    # -- as columns ---------------------------------------------------------------------

    def _read_columns(self, records: Sequence[LogRecord]) -> tuple[list[Part], Bool]:
        """Return the readings of plain JSON objects, and which records those were."""
        mine, places, sites = self._objects(records)
        try:
            return self._parts(mine, places, sites, len(records))
        except DecodeError:  # of a key: its record is left, and refused later
            good = [i for i, record in enumerate(mine) if self._names.names_a_device(record.key)]
            mine, places = [mine[i] for i in good], places[good]
            sites = sites and [sites[i] for i in good]
            return self._parts(mine, places, sites, len(records))

    def _parts(
        self, mine: Sequence[LogRecord], places: Int64, sites: Sequence[str] | None, n: int
    ) -> tuple[list[Part], Bool]:
        taken = np.zeros(n, np.bool_)
        parts: list[Part] = []
        for block in self._columns.read(list(map(_VALUE, mine))):
            at = places[block.at]
            taken[at] = True
            parts.append((self._readings(block, mine, sites), np.repeat(at, len(block.metrics))))
        return parts, taken

    def _objects(
        self, records: Sequence[LogRecord]
    ) -> tuple[Sequence[LogRecord], Int64, Sequence[str] | None]:
        """Return the records that may be JSON objects, their places, and sites if any is given."""
        if not any(map(_HEADERS, records)):
            return records, np.arange(len(records)), None
        found = [at for at, record in enumerate(records) if self._form(record) is Form.OBJECT]
        found, sites = self._sited(records, found)
        return [records[at] for at in found], np.asarray(found, np.int64), sites

    def _sited(
        self, records: Sequence[LogRecord], found: Sequence[int]
    ) -> tuple[list[int], list[str]]:
        kept, sites = [], []
        for at in found:
            try:
                sites.append(self._names.site(records[at]))
            except DecodeError:
                continue
            kept.append(at)
        return kept, sites

    def _readings(
        self, block: Block, records: Sequence[LogRecord], sites: Sequence[str] | None
    ) -> Readings:
        n, k = block.value.shape
        if n == len(records):
            mine, its_sites = records, sites
        else:
            at = block.at.tolist()
            mine, its_sites = [records[i] for i in at], sites and [sites[i] for i in at]
        tenant, device = self._names.labels(list(map(_KEY, mine)))
        site = Labels.constant(DEFAULT_SITE, n) if its_sites is None else Labels.of(its_sites)
        received_ms = np.fromiter(map(_TIMESTAMP, mine), np.int64, n)
        quality = np.full(n, TIME_OF_RECEIPT if block.t_ms is None else 0, np.uint8)
        per_message = slice(None) if k == 1 else np.repeat(np.arange(n), k)
        return Readings(
            tenant.take(per_message),
            site.take(per_message),
            device.take(per_message),
            Labels(np.tile(np.arange(k, dtype=np.int32), n), block.metrics),
            (received_ms if block.t_ms is None else block.t_ms)[per_message],
            received_ms[per_message],
            block.value.reshape(-1),
            quality[per_message],
            or_absent(block.boot, n)[per_message],
            or_absent(block.seq, n)[per_message],
            {},
            {},
        )

    # -- as rows ------------------------------------------------------------------------

    def _read_rows(
        self, records: Sequence[LogRecord], places: Int64, refused: list[Refused]
    ) -> list[Part]:
        """Return the readings of the records at *places*, one by one, in parts."""
        parts: list[Part] = []
        sizes: list[tuple[int, int]] = []

        def flush() -> None:
            at, size = np.asarray(sizes, np.int64).reshape(-1, 2).T
            parts.append((self._rows.finish(), np.repeat(at, size)))
            sizes.clear()

        for at in places.tolist():
            record = records[at]
            form = self._form(record)
            source: Source | None = None
            mark = self._rows.mark()
            try:
                if form is Form.FRAME:
                    readings = frames.decode(record.value or b"")
                    if sizes:
                        flush()
                    parts.append((readings, np.full(len(readings), at, np.int64)))
                    continue
                source = self._source(record)
                self._add(form, record, source)
                sizes.append((at, len(self._rows) - mark[0]))
            except DecodeError as error:
                self._rows.rollback(mark)
                refused.append(Refused(at, error, source))
        if sizes or not parts:
            flush()
        return parts

    def _source(self, record: LogRecord) -> Source:
        tenant, device = self._names.owner(record.key)
        return Source(tenant, self._names.site(record), device, None, reserved=_RESERVED)

    def _add(self, form: Form, record: LogRecord, source: Source) -> None:
        value, received_ms, rows = record.value or b"", record.timestamp, self._rows
        if form is Form.OBJECT:
            json_readings.decode(value, source, received_ms, rows)
        elif form is Form.PACK:
            senml.decode(value, source, received_ms, rows)
        elif form is Form.LIST:
            parsed = loads(value)
            codec = senml if senml.looks_like(parsed) else json_readings
            codec.add_parsed(parsed, source, received_ms, rows)
        elif not value:
            raise DecodeError("empty-payload", f"the record is empty; expected {_EXPECTED}")
        elif name := self._codec_of(form, record, value):
            self._codecs.decode(name, value, source, received_ms, rows)
        else:
            raise DecodeError(
                "unknown-format", f"the record begins with {value[:16]!r}; expected {_EXPECTED}"
            )

    def _codec_of(self, form: Form, record: LogRecord, value: bytes) -> str | None:
        """Return the codec of another package that is to read a record."""
        if form is Form.OTHER:
            return self._codecs.by_type[_type_of(record) or b""]
        return self._codecs.recognise(value)

    def _form(self, record: LogRecord) -> Form:
        """Return how a record is to be read."""
        kind = _type_of(record)
        if kind in self._types:
            return self._types[kind]
        value = record.value or b""
        if value[:4] == _FRAME_MAGIC:
            return Form.FRAME
        return _BY_FIRST.get(value.lstrip(_SPACE)[:1], Form.UNKNOWN)


_EXPECTED = "a frame, a JSON object or a SenML pack (docs/wire.md)"


def _type_of(record: LogRecord) -> bytes | None:
    given = header(record, CONTENT_TYPE)
    return None if given is None else given.partition(b";")[0].strip().lower()
