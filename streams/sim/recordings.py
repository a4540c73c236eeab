"""Recordings to replay: CSV, Parquet, and the readings of a lake, as messages in their order.

Files and lakes of any size: rows are read in batches by DuckDB and never held all at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

import duckdb
import orjson

from streams.adapters.lake import dataset_of, opened
from streams.errors import HeadwaterError
from streams.sim.nab import to_ms
from streams.sim.sensors import Fault, Message
from streams.topics import READINGS

_BATCH_ROWS = 10_000
_TIMES = ("timestamp", "t_ms", "time", "ts", "datetime", "date")
_UNITS = {"s": 1_000.0, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
_RESERVED = frozenset({"t_ms", "boot", "seq"})
_MESSAGE = ("kafka_partition", "kafka_offset", "device", "boot", "seq", "t_ms")
LAKE = "lake"

Unit = Literal["s", "ms", "us", "ns"]


@dataclass(frozen=True, slots=True)
class Target:
    """How a recording is sent: ``topic`` may hold ``{site}`` and ``{device}``.

    :param shift_ms: added to all times.
    :param boot: numbers the replay, so that it is not taken for a repetition of another one.
    """

    topic: str = "demo/{site}/{device}"
    site: str = "plant-a"
    device: str = "replay-1"
    metric: str = "value"
    shift_ms: int = 0
    boot: int = 1

    def message(
        self,
        site: str,
        device: str,
        t_ms: int,
        values: Mapping[str, Any],
        number: tuple[int, int] | None,
    ) -> Message:
        """Return the message of some readings; ``number`` is its boot and seq.

        :raises HeadwaterError: if a metric has the name of a field that every message has.
        """
        clash = _RESERVED & values.keys()
        if clash:
            raise HeadwaterError(
                f"the metric {min(clash)} has the name of a field of the message; choose columns "
                "with --values, or another name with --metric"
            )
        content: dict[str, Any] = {"t_ms": t_ms + self.shift_ms}
        if number is not None:
            content["boot"], content["seq"] = number
        payload = orjson.dumps({**content, **values})
        topic = self.topic.format(site=site, device=device)
        return Message(topic, payload, device, t_ms, Fault.NONE)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a file say what; ``None`` finds or leaves out.

    With ``metric`` a row is one reading (long form); without, each column of ``values`` is a
    metric (wide form), and a single one is named by the target.
    """

    time: str | None = None
    unit: Unit = "ms"
    values: tuple[str, ...] = ()
    device: str | None = None
    metric: str | None = None
    site: str | None = None


class Table:
    """A CSV or Parquet file.

    :raises HeadwaterError: if it cannot be read, or a column is not there.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self._path = path
        self._db = duckdb.connect()
        read = "read_parquet" if path.suffix in (".parquet", ".pq") else "read_csv"
        # A view takes no parameters: the name is quoted as SQL does it.
        name = str(path).replace("'", "''")
        try:
            self._db.execute(f"CREATE TEMP VIEW recording AS FROM {read}('{name}')")
            described = self._db.execute("DESCRIBE recording").fetchall()
        except duckdb.Error as error:
            raise HeadwaterError(f"{path}: {_first_line(error)}") from error
        self._kinds = {name: kind for name, kind, *_ in described}
        self._columns = self._found(columns)

    def _found(self, columns: Columns) -> Columns:
        known = ", ".join(self._kinds)
        time = columns.time or next((name for name in _TIMES if name in self._kinds), None)
        if time is None:
            raise HeadwaterError(
                f"{self._path}: which column is the time? --time-column names it; there are {known}"
            )
        named = {time, columns.device, columns.metric, columns.site}
        values = columns.values or (
            ("value",)
            if "value" in self._kinds
            else tuple(n for n, kind in self._kinds.items() if n not in named and _is_number(kind))
        )
        missing = [n for n in (*named, *values) if n is not None and n not in self._kinds]
        if missing or not values:
            raise HeadwaterError(
                f"{self._path}: no column {', '.join(missing) or 'of values'}; there are {known}"
            )
        if columns.metric is not None and len(values) > 1:
            raise HeadwaterError("with --metric-column a row is one reading: give one of --values")
        return Columns(time, columns.unit, values, columns.device, columns.metric, columns.site)

    def count(self) -> int:
        """Return how many rows there are."""
        return int(self._one("count(*)"))

    def last_ms(self) -> int:
        """Return the latest time."""
        return _time_ms(self._one(f"max({_quoted(self._columns.time or '')})"), self._columns.unit)

    def messages(self, target: Target) -> Iterator[Message]:
        """Yield one message per row, in the order of the file, each device numbered from zero.

        :raises HeadwaterError: naming the row that is not as expected.
        """
        next_seq: dict[str, int] = {}
        for number, row in enumerate(self._rows(), 1):
            values = self._values(row, target.metric)
            if not values:
                continue
            device = self._name(row, self._columns.device, target.device)
            seq = next_seq.get(device, 0)
            next_seq[device] = seq + 1
            try:
                t_ms = _time_ms(row[self._columns.time or ""], self._columns.unit)
            except (TypeError, ValueError, OverflowError) as error:
                raise HeadwaterError(
                    f"{self._path}, row {number}: {self._columns.time}: {error}; expected ISO "
                    "8601, or a number with --time-unit"
                ) from error
            site = self._name(row, self._columns.site, target.site)
            yield target.message(site, device, t_ms, values, (target.boot, seq))

    def _values(self, row: Mapping[str, Any], metric: str) -> dict[str, Any]:
        c = self._columns
        found = {name: _value(row[name]) for name in c.values}
        if c.metric is not None:
            found = {str(row[c.metric]): found[c.values[0]]}
        elif len(c.values) == 1:
            found = {metric: found[c.values[0]]}
        return {name: value for name, value in found.items() if value is not None}

    @staticmethod
    def _name(row: Mapping[str, Any], column: str | None, default: str) -> str:
        return default if column is None else str(row[column])

    def _rows(self) -> Iterator[Mapping[str, Any]]:
        c = self._columns
        wanted = dict.fromkeys(
            n for n in (c.time, c.device, c.metric, c.site, *c.values) if n is not None
        )
        names = ", ".join(map(_quoted, wanted))
        try:
            yield from _batches(self._db.sql(f"SELECT {names} FROM recording"))  # noqa: S608
        except duckdb.Error as error:
            raise HeadwaterError(f"{self._path}: {_first_line(error)}") from error

    def _one(self, expression: str) -> Any:
        try:
            return self._db.execute(f"SELECT {expression} FROM recording").fetchall()[0][0]  # noqa: S608
        except duckdb.Error as error:
            raise HeadwaterError(f"{self._path}: {_first_line(error)}") from error


class Lake:
    """The readings of a lake, in the order in which they came, repetitions included.

    :raises HeadwaterError: if there is no such table.
    """

    def __init__(
        self,
        root: Path,
        *,
        device: str | None = None,
        metric: str | None = None,
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> None:
        table = opened(root, READINGS)
        if table is None:
            raise HeadwaterError(
                f"the lake at {root} holds no readings; the sink process fills it: headwater sink"
            )
        self._db = duckdb.connect()
        self._db.register("lake", dataset_of(table))
        conditions = {
            "device = $device": device,
            "metric = $metric": metric,
            "t_ms >= $since_ms": since_ms,
            "t_ms < $until_ms": until_ms,
        }
        kept = {text: value for text, value in conditions.items() if value is not None}
        self._where = f"WHERE {' AND '.join(kept)}" if kept else ""
        self._bound = {text.rpartition("$")[2]: value for text, value in kept.items()}

    def count(self) -> int:
        """Return how many readings there are."""
        return int(self._run("SELECT count(*) FROM lake").fetchall()[0][0])

    def last_ms(self) -> int:
        """Return the latest event time."""
        return int(self._run("SELECT max(t_ms) FROM lake").fetchall()[0][0])

    def messages(self, target: Target) -> Iterator[Message]:
        """Yield messages as they were recorded, with their seq, each boot replaced by a new one.

        Gaps and repetitions are those of the recording. Site and device stay.
        """
        boots: dict[tuple[str, int], int] = {}
        for rows in self._grouped():
            first = rows[0]
            number = None
            if first["seq"] is not None:
                key = first["device"], first["boot"] or 0
                number = boots.setdefault(key, target.boot + len(boots)), first["seq"]
            values = {row["metric"]: _recorded(row) for row in rows}
            yield target.message(first["site"], first["device"], first["t_ms"], values, number)

    def _grouped(self) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Yield the rows of one message together."""
        names = 'site, metric, value, "int", text, ' + ", ".join(_MESSAGE)
        found = self._run(
            f"SELECT {names} FROM lake",  # noqa: S608 our names
            "ORDER BY kafka_ms, kafka_partition, kafka_offset, row",
        )
        group: list[Mapping[str, Any]] = []
        for row in _batches(found):
            is_same = group and all(row[name] == group[0][name] for name in _MESSAGE)
            if group and (not is_same or row["metric"] in {g["metric"] for g in group}):
                yield group
                group = []
            group.append(row)
        if group:
            yield group

    def _run(self, query: str, order: str = "") -> Any:
        return self._db.sql(f"{query} {self._where} {order}", params=self._bound)


def open_recording(source: str, columns: Columns, lake: Path, **where: Any) -> Table | Lake:
    """Open a file by its name, or the lake by the word ``lake``.

    :param where: ``device``, ``metric``, ``since_ms``, ``until_ms``, for the lake.
    :raises HeadwaterError: if it cannot be read.
    """
    if source == LAKE:
        return Lake(lake, **where)
    return Table(Path(source), columns)


def _batches(found: Any) -> Iterator[Mapping[str, Any]]:
    for batch in found.to_arrow_reader(_BATCH_ROWS):
        yield from batch.to_pylist()


def _time_ms(value: Any, unit: Unit) -> int:
    if isinstance(value, datetime):
        return round((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp() * 1000)
    if isinstance(value, date):
        return to_ms(value.isoformat())
    if isinstance(value, str):
        return to_ms(value)
    if value is None:
        raise ValueError("there is no time")
    return round(float(value) * _UNITS[unit]) if unit != "ms" else int(value)


def _value(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, int | float) or value is None else str(value)


def _recorded(row: Mapping[str, Any]) -> Any:
    if row["text"] is not None:
        return row["text"]
    return row["value"] if row["int"] is None else row["int"]


def _is_number(kind: str) -> bool:
    return kind.startswith(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UINTEGER",
                            "UBIGINT", "USMALLINT", "UTINYINT", "FLOAT", "DOUBLE", "DECIMAL",
                            "BOOLEAN"))  # fmt: skip


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
