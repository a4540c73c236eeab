"""Results as points of InfluxDB: one point per (series or group, window definition, start)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError

from streams.core.readings import Float64
from streams.core.results import RollupResults, WindowResults
from streams.errors import DeliveryError, SettingsError
from streams.settings import Settings

MEASUREMENT = "windows"


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of result is stored.

    ``measurement`` holds the current results, ``<measurement>_retracted`` the ranks of those
    that were taken back. ``tags`` name a point; all but ``places`` name its window, of which
    there may be one point only.
    """

    measurement: str
    tags: tuple[str, ...]
    places: tuple[str, ...]
    counts: tuple[str, ...]
    floats: tuple[str, ...] = ("sum", "min", "max", "mean", "sd")

    @property
    def retracted(self) -> str:
        """The measurement of the ranks of what was retracted."""
        return f"{self.measurement}_retracted"


WINDOWS = Kind(
    MEASUREMENT,
    ("tenant", "site", "device", "metric", "window", "source"),
    ("site", "source"),
    ("count", "rank", "end_ms", "last_received_ms"),
)
GROUPS = Kind(
    "rollups",
    ("tenant", "rollup", "group", "metric", "window", "source"),
    (),
    ("count", "rank", "end_ms", "last_received_ms", "final", "provisional", "missing"),
)
_DELETES = 200
"""Statements of one request."""
_PRECISION: Any = WritePrecision.MS  # a plain string, typed otherwise
_REFUSED = (400, 413, 422)
_TAG = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})


class RefusedError(DeliveryError):
    """InfluxDB has read the points and will never take them."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point's tags in the order of its kind, and its time."""

    tags: tuple[str, ...]
    start_ms: int


def lines(kind: Kind, results: WindowResults | RollupResults) -> list[str]:
    """Return results as line protocol, timestamps (the window's start) in ms; NaN is left out.

    A retracted result (count 0) becomes a point of the measurement of retracted ranks.
    """
    tags = [(name, getattr(results, name)) for name in kind.tags]
    prefixes = [
        "".join(f",{name}={tag[i].translate(_TAG)}" for name, tag in tags)
        for i in range(len(results))
    ]
    floats = [(n, getattr(results, n).tolist()) for n in kind.floats]
    floats += [(name, values.tolist()) for name, values in _extra(results).items()]
    counts = [(n, getattr(results, n).tolist()) for n in kind.counts]
    out = []
    for i, start in enumerate(results.start_ms.tolist()):
        measurement = kind.measurement if results.count[i] else kind.retracted
        values = ",".join(f"{name}={column[i]}i" for name, column in counts)
        if results.count[i]:
            values += "".join(f",{name}={v[i]!r}" for name, v in floats if math.isfinite(v[i]))
        out.append(f'{measurement}{prefixes[i]} {values},reason="{results.reason[i]}" {start}')
    return out


def _extra(results: WindowResults | RollupResults) -> Mapping[str, Float64]:
    return results.extra if isinstance(results, WindowResults) else {}


class Influx:
    """Writes and reads points; every call runs in a thread, since the client blocks."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.influx
        self._bucket = settings.influxdb.bucket
        self._token = _token(settings)
        self._timeout_s = settings.influxdb.timeout_ms / 1000
        self._client = InfluxDBClient(
            url=settings.influx,
            token=self._token,
            org=settings.influxdb.org,
            timeout=settings.influxdb.timeout_ms,
            enable_gzip=True,
        )
        self._writer = self._client.write_api(write_options=SYNCHRONOUS)

    async def write(self, points: list[str]) -> None:
        """Write line protocol.

        :raises RefusedError: if InfluxDB will not take at least one of the points.
        :raises DeliveryError: if it cannot be reached or is failing: try again.
        """
        await asyncio.to_thread(self._write, points)

    async def ranks(
        self, kind: Kind, start_ms: int, end_ms: int, condition: str
    ) -> list[tuple[Point, int, bool]]:
        """Return points in ``[start_ms, end_ms]``: each with its rank, and whether it is retracted.

        :param condition: Flux on the tags and on ``_value``, the rank.
        :raises DeliveryError: if InfluxDB cannot be reached.
        """
        flux = (
            f'from(bucket: "{self._bucket}") '
            f"|> range(start: {_instant(start_ms)}, stop: {_instant(end_ms + 1)}) "
            f'|> filter(fn: (r) => (r._measurement == "{kind.measurement}" '
            f'or r._measurement == "{kind.retracted}") and r._field == "rank") '
            f"|> filter(fn: (r) => {condition})"
        )
        return [
            (
                Point(tuple(record[tag] for tag in kind.tags), _millis(record["_time"])),
                int(record["_value"]),
                record["_measurement"] == kind.retracted,
            )
            for record in await self.query(flux)
        ]

    async def delete(self, kind: Kind, points: Sequence[Point]) -> None:
        """Delete points of a kind's current results; those that are not there cost nothing.

        :raises DeliveryError: if InfluxDB cannot be reached or refuses.
        """
        await asyncio.to_thread(self._delete, kind, points)

    async def query(self, flux: str) -> list[dict[str, Any]]:
        """Return the records of a Flux query, all tables joined.

        :raises DeliveryError: if InfluxDB cannot be reached or refuses the query.
        """
        return await asyncio.to_thread(self._query, flux)

    def close(self) -> None:
        """Close connections."""
        client: Any = self._client  # its close is untyped
        client.close()

    def _write(self, points: list[str]) -> None:
        try:
            self._writer.write(self._bucket, record=points, write_precision=_PRECISION)
        except ApiException as error:
            kind = RefusedError if error.status in _REFUSED else DeliveryError
            said = error.message or error.body
            raise kind(f"{self._url} answered {error.status}: {said}") from error
        except (HTTPError, OSError) as error:
            raise DeliveryError(f"{self._url} cannot be reached: {error}") from error

    def _delete(self, kind: Kind, points: Sequence[Point]) -> None:
        database = self._bucket.partition("/")[0]
        for first in range(0, len(points), _DELETES):
            statements = [_delete_statement(kind, p) for p in points[first : first + _DELETES]]
            try:
                # InfluxDB 1.8 deletes by InfluxQL only.
                answer = httpx.post(
                    f"{self._url}/query",
                    params={"db": database},
                    data={"q": ";".join(statements)},
                    headers={"Authorization": f"Token {self._token}"} if self._token else {},
                    timeout=self._timeout_s,
                )
                answer.raise_for_status()
                said = [r["error"] for r in answer.json()["results"] if "error" in r]
            except (httpx.HTTPError, ValueError, KeyError) as error:
                raise DeliveryError(f"{self._url} did not delete: {error}") from error
            if said:
                raise DeliveryError(f"{self._url} did not delete: {said[0]}")

    def _query(self, flux: str) -> list[dict[str, Any]]:
        try:
            tables = self._client.query_api().query(flux)
        except ApiException as error:
            raise DeliveryError(f"{self._url} refused a query: {error}") from error
        except (HTTPError, OSError) as error:
            raise DeliveryError(f"{self._url} cannot be reached: {error}") from error
        return [record.values for table in tables for record in table.records]


async def write_or_split(influx: Influx, points: list[str]) -> list[tuple[str, str]]:
    """Write points; those that are refused for good are returned with the reason.

    Halves a refused batch until the bad points stand alone, so that they cost only themselves.

    :raises DeliveryError: if InfluxDB cannot be reached.
    """
    try:
        await influx.write(points)
    except RefusedError as error:
        if len(points) == 1:
            return [(points[0], str(error))]
        middle = len(points) // 2
        first = await write_or_split(influx, points[:middle])
        return first + await write_or_split(influx, points[middle:])
    return []


def _delete_statement(kind: Kind, point: Point) -> str:
    tags = zip(kind.tags, point.tags, strict=True)
    where = " AND ".join(f"""{_quoted(name, '"')} = {_quoted(tag, "'")}""" for name, tag in tags)
    # Every name is quoted.
    return f'DELETE FROM "{kind.measurement}" WHERE {where} AND time = {point.start_ms}ms'  # noqa: S608


def _quoted(text: str, sign: str) -> str:
    escaped = text.replace("\\", "\\\\").replace(sign, f"\\{sign}")
    return f"{sign}{escaped}{sign}"


def any_of(tag: str, names: Iterable[str]) -> str:
    """Return a Flux condition: the tag is one of these names."""
    quoted = (name.replace("\\", "\\\\").replace('"', '\\"') for name in names)
    return " or ".join(f'r["{tag}"] == "{name}"' for name in quoted)


def _token(settings: Settings) -> str:
    path = settings.influxdb.token_file
    if path is None:
        return ""
    try:
        return path.read_text().strip()
    except OSError as error:
        raise SettingsError(f"influxdb.token_file: {error}") from error


def _instant(ms: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)).isoformat()


def _millis(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)
