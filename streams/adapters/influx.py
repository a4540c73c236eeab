"""Window results as points of InfluxDB: one point per (series, window definition, start)."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime, timedelta
from typing import Any

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError

from streams.core.results import WindowResults
from streams.errors import DeliveryError, SettingsError
from streams.settings import Settings

MEASUREMENT = "windows"
TAGS = ("tenant", "site", "device", "metric", "window", "source")
_PRECISION: Any = WritePrecision.MS  # a plain string, typed otherwise
_REFUSED = (400, 413, 422)
_TAG = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})


class RefusedError(DeliveryError):
    """InfluxDB has read the points and will never take them."""


def lines(results: WindowResults) -> list[str]:
    """Return results as line protocol, timestamps (the window's start) in ms; NaN is left out."""
    tags = [(name, getattr(results, name)) for name in TAGS]
    prefixes = [
        MEASUREMENT + "".join(f",{name}={tag[i].translate(_TAG)}" for name, tag in tags)
        for i in range(len(results))
    ]
    floats = [(n, getattr(results, n).tolist()) for n in ("sum", "min", "max", "mean", "sd")]
    rows = zip(
        results.start_ms.tolist(),
        results.end_ms.tolist(),
        results.rank.tolist(),
        results.count.tolist(),
        results.last_received_ms.tolist(),
        strict=True,
    )
    out = []
    for i, (start, end, rank, count, received) in enumerate(rows):
        values = "".join(f",{name}={v[i]!r}" for name, v in floats if math.isfinite(v[i]))
        out.append(
            f"{prefixes[i]} count={count}i,rank={rank}i,end_ms={end}i,"
            f'last_received_ms={received}i,reason="{results.reason[i]}"{values} {start}'
        )
    return out


class Influx:
    """Writes and reads points; every call runs in a thread, since the client blocks."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.influx
        self._bucket = settings.influxdb.bucket
        self._client = InfluxDBClient(
            url=settings.influx,
            token=_token(settings),
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

    async def ranks_above(self, rank: int, start_ms: int, end_ms: int) -> list[tuple[Any, ...]]:
        """Return (tags..., start_ms, rank) of points in ``[start_ms, end_ms]`` of a higher rank.

        :raises DeliveryError: if InfluxDB cannot be reached.
        """
        flux = (
            f'from(bucket: "{self._bucket}") '
            f"|> range(start: {_instant(start_ms)}, stop: {_instant(end_ms + 1)}) "
            f'|> filter(fn: (r) => r._measurement == "{MEASUREMENT}" and r._field == "rank" '
            f"and r._value > {rank})"
        )
        return [
            (*(record[tag] for tag in TAGS), _millis(record["_time"]), int(record["_value"]))
            for record in await self.query(flux)
        ]

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
