"""An independent count: what is in Kafka and InfluxDB, without asking the engine.

An engine that counts its own classes always balances. So this counts again from outside: the
rows of ``readings`` as the log holds them, the records of ``rejected``, ``quarantine`` and
``late`` by the reading that they name, the current results of ``aggregates``, the points in
InfluxDB and the rows of the lake by their place in the log. Window by window, the readings that
should be inside must be the result's count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from streams.adapters.config_log import now_in_force
from streams.adapters.edge_ledger import held_against
from streams.adapters.edge_windows import DAY_MS, held_against_results, told_of
from streams.adapters.influx import MEASUREMENT, Influx
from streams.adapters.lake import dataset_of, opened
from streams.agents.window_definitions import definition_of
from streams.audit_log import NO_PLACES, Log, read_log
from streams.core.readings import ELSEWHERE, TIME_OF_RECEIPT
from streams.core.results import EDGE
from streams.core.windows import Tumbling, Window
from streams.errors import DeliveryError
from streams.settings import Settings
from streams.topics import AGGREGATES, READINGS

CLASSES = ("accepted", "duplicate", "late", "quarantined", "rejected")

_CLASSED = f"""
CREATE TEMP TABLE classed AS
WITH named AS (
    SELECT r.*, v.verdict, coalesce(v.counted, false) AS counted,
        coalesce(boot, -1) AS b, coalesce(seq, -1) AS s,
        (seq IS NOT NULL) OR (quality & {TIME_OF_RECEIPT}) = 0 AS identified
    FROM readings r LEFT JOIN verdicts v
        ON v.source = 'kafka:readings/' || kafka_partition || '/' || kafka_offset || '/' || row
), ordered AS (
    SELECT *, row_number() OVER (
        PARTITION BY tenant, device, metric, t_ms, b, s, identified,
            coalesce(verdict = 'rejected', false)
        ORDER BY kafka_offset, row
    ) AS copy FROM named
)
SELECT *, CASE
    WHEN verdict IS NOT NULL THEN verdict
    WHEN identified AND copy > 1 THEN 'duplicate'
    ELSE 'accepted' END AS class
FROM ordered
"""  # noqa: S608 no input of users is in it

_CURRENT = """
CREATE TEMP TABLE current AS SELECT * EXCLUDE (place) FROM (
    SELECT *, row_number() OVER (
        PARTITION BY tenant, device, metric, "window", start_ms, source
        ORDER BY rank DESC, count DESC, kafka_offset DESC) AS place FROM aggregates
) WHERE place = 1 AND count > 0
"""

_ONE_SOURCE = """
SELECT count FROM current QUALIFY row_number() OVER (
    PARTITION BY tenant, device, metric, "window", start_ms
    ORDER BY rank >= 0 DESC, source = 'edge' DESC
) = 1
"""

_COMPARE = f"""
WITH should AS (
    SELECT tenant, device, metric, t_ms - (t_ms - $shift) % $size AS start_ms, count(*) AS n
    FROM classed
    WHERE (class = 'accepted' OR counted) AND list_contains($metrics, metric) AND isfinite(value)
        AND (quality & {ELSEWHERE}) = 0
    GROUP BY ALL
), told AS (
    SELECT tenant, device, metric, start_ms, count AS n, rank FROM current
    WHERE "window" = $name AND list_contains($metrics, metric) AND source = 'cloud'
)
SELECT tenant, device, metric, start_ms,
    coalesce(should.n, 0) AS expected, told.n AS told, told.rank AS rank
FROM should FULL JOIN told USING (tenant, device, metric, start_ms)
"""  # noqa: S608 no input of users is in it

_OF_EDGES = f"""
WITH final AS (
    SELECT * FROM aggregates WHERE source = '{EDGE}' AND rank >= 0
    QUALIFY row_number() OVER (
        PARTITION BY tenant, site, device, metric, "window", start_ms
        ORDER BY rank DESC, count DESC, kafka_offset DESC
    ) = 1
)
SELECT tenant, site, device, "window", start_ms - start_ms % {DAY_MS} AS day,
    sum(count)::BIGINT, max(last_received_ms)
FROM final GROUP BY ALL
"""  # noqa: S608 no input of users is in it

_STORED = """
WITH stored AS (
    SELECT kafka_partition, kafka_offset, row, count(*) AS copies FROM lake_{name} GROUP BY ALL
)
SELECT count(copies), count(*) FILTER (copies IS NULL), count(*) FILTER (copies > 1)
FROM {name} LEFT JOIN stored USING (kafka_partition, kafka_offset, row)
"""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was counted. ``holds`` is whether every identity holds; ``problems`` says why not."""

    received: int
    classes: dict[str, int]
    devices: list[dict[str, Any]]
    windows: int
    in_windows: int
    in_open_windows: int
    refused_records: int
    """Records of ``rejected`` that are whole messages: what no reading could be made of."""
    influx: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    lake: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per table: rows of the log that are ``there``, ``missing``, or there ``twice``."""
    edges: list[dict[str, Any]] = field(default_factory=list)
    """Per device that an edge filters, or gave readings up of: ``measured`` = ``sent`` +
    ``filtered`` + ``given_up``, and ``in_log`` as what was sent, repetitions included."""
    edge_windows: list[dict[str, Any]] = field(default_factory=list)
    """Per device and window that an edge computes: readings that it ``counted`` into windows, of
    them in ``open`` ones, and ``in_log`` in its final results; ``results_given_up`` at the site."""

    @property
    def holds(self) -> bool:
        """Whether every identity holds."""
        return not self.problems

    @property
    def sites(self) -> list[dict[str, Any]]:
        """The classes per site, and how many devices each has."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for device in self.devices:
            key = device["tenant"], device["site"]
            site = found.setdefault(
                key, {"tenant": key[0], "site": key[1], "devices": 0, **dict.fromkeys(CLASSES, 0)}
            )
            site["devices"] += 1
            for name in CLASSES:
                site[name] += device[name]
        return list(found.values())

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "sites": self.sites, "holds": self.holds}


async def audit(settings: Settings, tenant: str | None = None) -> AuditReport:
    """Count everything and compare.

    :param tenant: only this one; default all.
    """
    log = await read_log(settings, tenant)
    influx = await _count_influx(settings, tenant) if "influx" in settings.sink.targets else None
    # A window that was added later has no results for the readings from before.
    applied = await now_in_force(settings, only_windows_of_always=True)
    definitions = [definition_of(window) for window in applied.windows]
    lake = _open_lake(settings.lake.absolute()) if "lake" in settings.sink.targets else None
    return reconcile(log, definitions, influx, lake, tenant)


def reconcile(
    log: Log,
    definitions: Sequence[Window],
    influx: dict[str, int] | None,
    lake: Mapping[str, Any] | None = None,
    tenant: str | None = None,
) -> AuditReport:
    """Compare counts; pure.

    A tumbling definition is compared window by window for the metrics on which no other one, of
    any kind, outlasts it: for the others a reading can be late alone, which is not seen from
    outside.

    :param influx: ``windows`` and ``count`` as stored there; ``None`` leaves it out.
    :param lake: table or dataset of ``readings`` and ``aggregates``; ``None`` leaves it out.
    :param tenant: the only one that the tables have; ``None`` for all.
    """
    with duckdb.connect() as db:
        db.register("readings", log.readings)
        db.register("aggregates", log.aggregates)
        db.register("verdicts", _with_counted(log))
        db.execute(_CLASSED)
        db.execute(_CURRENT)
        by_device = db.execute(
            "SELECT tenant, site, device, class, count(*) FROM classed GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        problems, covered, still_open = _compare(db, definitions)
        results, inside = db.execute(
            f"SELECT count(*), coalesce(sum(count), 0)::BIGINT FROM ({_ONE_SOURCE})"  # noqa: S608
        ).fetchall()[0]
        stored = {name: _in_lake(db, name, found) for name, found in (lake or {}).items()}
        of_edges = told_of(db.execute(_OF_EDGES).fetchall())
    devices = _per_device(by_device)
    classes = {name: sum(device[name] for device in devices) for name in CLASSES}
    received = len(log.readings)
    if sum(classes.values()) != received:
        problems.append(f"{received} readings received, but the classes sum to {classes}")
    if influx is not None and influx != {"windows": results, "count": inside}:
        problems.append(
            f"InfluxDB holds {influx['windows']} windows with {influx['count']} readings, Kafka "
            f"{results} with {inside}: is the sink behind?"
        )
    edges, lost = held_against(log.edges, _in_log(devices))
    problems += lost
    edge_windows, contradictions = held_against_results(
        log.edge_windows.counts(tenant),
        of_edges,
        log.edge_windows.given_up,
        log.results_since_ms,
    )
    problems += contradictions
    problems += [
        f"the lake: of {name}, {found['missing']} rows of the log are missing and "
        f"{found['twice']} are there twice: is the sink behind?"
        for name, found in stored.items()
        if found["missing"] or found["twice"]
    ]
    return AuditReport(
        received,
        classes,
        devices,
        results,
        covered,
        still_open,
        log.refused_records,
        influx or {},
        problems,
        stored,
        edges,
        edge_windows,
    )


def _in_log(devices: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], int]:
    found: Counter[tuple[str, str]] = Counter()
    for device in devices:
        found[device["tenant"], device["device"]] += sum(device[name] for name in CLASSES)
    return found


def _with_counted(log: Log) -> pa.Table:
    counted = [source in log.counted for source in log.verdicts["source"].to_pylist()]
    return log.verdicts.append_column("counted", pa.array(counted, pa.bool_()))


def _in_lake(db: duckdb.DuckDBPyConnection, name: str, found: Any) -> dict[str, int]:
    """Count the rows of a log table that the lake holds, by their place in the log."""
    db.register(f"lake_{name}", found if found is not None else NO_PLACES.empty_table())
    there, missing, twice = db.execute(_STORED.format(name=name)).fetchall()[0]
    return {"there": there, "missing": missing, "twice": twice}


def _open_lake(root: Path) -> dict[str, Any]:
    tables = {name: opened(root, name) for name in (READINGS, AGGREGATES)}
    return {name: table and dataset_of(table) for name, table in tables.items()}


def _compare(
    db: duckdb.DuckDBPyConnection, definitions: Sequence[Window]
) -> tuple[list[str], int, int]:
    """Compare each window with its readings; return problems, readings covered, in open windows."""
    metrics = [m for (m,) in db.execute("SELECT DISTINCT metric FROM classed").fetchall()]
    problems: list[str] = []
    covered = still_open = 0
    for d in definitions:
        if not isinstance(d, Tumbling):
            continue
        wanted = [metric for metric in metrics if _outlasts_all(d, definitions, metric)]
        rows = db.execute(
            _COMPARE,
            {"shift": d.offset_ms, "size": d.size_ms, "name": d.name, "metrics": wanted},
        ).fetchall()
        for tenant, device, metric, start_ms, expected, told, rank in rows:
            if told is None or (rank < 0 and told <= expected):
                still_open += expected
            elif told == expected:
                covered += told
            else:
                problems.append(
                    f"{tenant}/{device}/{metric}, window {d.name} from {start_ms}: {expected} "
                    f"readings belong inside, the result (revision {rank}) says {told}"
                )
    return problems, covered, still_open


def _outlasts_all(one: Window, definitions: Sequence[Window], metric: str) -> bool:
    rivals = [d.reach_ms for d in definitions if d.applies_to(metric)]
    return one.applies_to(metric) and one.reach_ms == max(rivals)


def _per_device(rows: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for tenant, site, device, kind, count in rows:
        entry = found.setdefault(
            (tenant, site, device),
            {"tenant": tenant, "site": site, "device": device, **dict.fromkeys(CLASSES, 0)},
        )
        entry[kind] = count
    return list(found.values())


async def _count_influx(settings: Settings, tenant: str | None) -> dict[str, int]:
    """Return how many windows InfluxDB holds, and how many readings they count."""
    influx = Influx(settings)
    only = f' and r.tenant == "{tenant}"' if tenant else ""
    base = (
        f'from(bucket: "{settings.influxdb.bucket}") |> range(start: 1970-01-01T00:00:00Z, '
        f'stop: 2109-01-01T00:00:00Z) |> filter(fn: (r) => r._measurement == "{MEASUREMENT}" '
        f'and r._field == "count"{only}) |> group() '
    )
    try:
        windows = await influx.query(base + "|> count()")
        readings = await influx.query(base + "|> sum()")
    except DeliveryError:
        return {"windows": -1, "count": -1}
    finally:
        influx.close()
    return {
        "windows": int(windows[0]["_value"]) if windows else 0,
        "count": int(readings[0]["_value"]) if readings else 0,
    }
