"""The lake, for people: readings, windows and anomalies as Arrow tables, queried with DuckDB.

::

    from streams import lake

    lake.windows(device="pump-1", metric="temperature")
    lake.sql("SELECT device, count(*) AS n FROM readings GROUP BY device ORDER BY n DESC")

Times are integer milliseconds since the epoch (UTC). The lake is the one of the settings,
unless ``root`` names another.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable

from streams.adapters.lake import OF_READINGS, TABLES, dataset_of
from streams.errors import HeadwaterError
from streams.settings import load
from streams.topics import BACKFILL, LABELS

_CURRENT = """
    SELECT * FROM {table}
    QUALIFY row_number() OVER (
        PARTITION BY {series}, metric, "window", start_ms, source
        ORDER BY rank DESC, count DESC, kafka_offset DESC
    ) = 1
"""
_VIEW = """
    SELECT *, split_part("window", '@', 1) AS definition,
        coalesce(try_cast(nullif(split_part("window", '@', 2), '') AS INTEGER), 1) AS generation
    FROM (
        SELECT * FROM ({current}) QUALIFY row_number() OVER (
            PARTITION BY {series}, metric, "window", start_ms
            ORDER BY rank >= 0 DESC, source = 'edge' DESC, source
        ) = 1
    ) WHERE count > 0
"""
"""Greatest rank per source; then one source per window: a final result before a provisional one, an
edge's before the cloud's; then without what was retracted. Of equal ranks, which only
provisional results have with different content, the one with more readings is the newer. Of a
window whose definition was changed, ``definition`` is the name in the settings."""
_LABELS_SAID = "labels_said"
_LABELS_VIEW = f"""
    CREATE TEMP VIEW {LABELS} AS SELECT * FROM (
        SELECT * FROM {_LABELS_SAID}
        QUALIFY row_number() OVER (PARTITION BY id ORDER BY kafka_offset DESC) = 1
    ) WHERE NOT removed
"""  # noqa: S608 names of ours
_RAW = """
    CREATE TEMP VIEW raw AS
    SELECT DISTINCT ON (tenant, device, metric, t_ms) * FROM ({both})
    ORDER BY tenant, device, metric, t_ms, backfilled, kafka_offset
"""
_VIEWS = {
    "windows": ("aggregates", "tenant, device"),
    "groups": ("rollups", 'tenant, rollup, "group"'),
}


def sql(
    query: str, *, root: Path | None = None, parameters: Mapping[str, Any] | None = None
) -> Any:
    """Run SQL over the lake.

    Its tables are ``readings``, ``backfill`` (raw readings that edges were asked for),
    ``aggregates``, ``rollups``, ``anomalies`` and ``late``. The view ``raw`` holds of the first two
    each reading once. Two
    views hold each window once, in its current revision, without those that were retracted:
    ``windows`` of ``aggregates``, ``groups`` of ``rollups``. The view ``labels`` holds each label
    once, without those that were taken back.

    :returns: a ``pyarrow.Table``.
    :raises HeadwaterError: if the lake is empty, or the query is wrong.
    """
    folder = (root or load().lake).absolute()
    present = tables(root=folder)
    if not present:
        raise HeadwaterError(
            f"the lake at {folder} is empty; the sink process fills it: headwater sink"
        )
    # Else a name that is no table stands for a variable of Python that has it, such as ours.
    connection = duckdb.connect(config={"python_enable_replacements": "false"})
    try:
        for name in present:
            source = _LABELS_SAID if name == LABELS else name
            connection.register(source, dataset_of(DeltaTable(folder / name)))
        if LABELS in present:
            connection.execute(_LABELS_VIEW)
        both = " UNION ALL BY NAME ".join(
            f"SELECT *, {name == BACKFILL} AS backfilled FROM {name}"  # noqa: S608 names of ours
            for name in OF_READINGS
            if name in present
        )
        if both:
            connection.execute(_RAW.format(both=both))
        for view, (table, series) in _VIEWS.items():
            if table in present:
                current = _CURRENT.format(table=table, series=series)
                body = _VIEW.format(current=current, series=series)
                connection.execute(f"CREATE TEMP VIEW {view} AS {body}")
        found: pa.Table = connection.sql(query, params=dict(parameters or {})).to_arrow_table()
    except duckdb.Error as error:
        raise HeadwaterError(
            f"{error}\nTables in this lake: {', '.join(present)}. A table is there from its first "
            "row on; the sink process fills it: headwater sink"
        ) from error
    finally:
        connection.close()
    return found


def tables(*, root: Path | None = None) -> list[str]:
    """Return the names of the tables that hold something."""
    folder = (root or load().lake).absolute()
    return [name for name in TABLES if DeltaTable.is_deltatable(str(folder / name))]


def readings(**where: Any) -> Any:
    """Return readings as they came, duplicates included, in order of event time.

    :param where: ``device``, ``metric``, ``site``, ``tenant`` (exact names), ``since_ms``,
        ``until_ms`` (half-open), ``root``.
    """
    return _select("readings", "t_ms", where)


def raw(**where: Any) -> Any:
    """Return readings with those that edges had filtered and that were brought up since
    (``headwater edge backfill``), each time of a series once, in order of event time.

    :param where: as :func:`readings`. ``backfilled`` says which came so.
    """
    return _select("raw", "t_ms", where)


def windows(*, history: bool = False, **where: Any) -> Any:
    """Return window results in order of their start; the current revision of each.

    :param history: all revisions and provisional results instead.
    :param where: as :func:`readings`, and ``window`` (a name as in results: ``minute@2`` is the
        second generation of ``minute``), or ``definition`` (all generations) and ``generation``.
    """
    return _select("aggregates" if history else "windows", "start_ms", where)


def groups(*, history: bool = False, **where: Any) -> Any:
    """Return results of groups in order of their start; the current revision of each.

    :param history: all revisions instead.
    :param where: ``rollup``, ``group``, ``metric``, ``window``, ``tenant`` (exact names),
        ``since_ms``, ``until_ms`` (half-open), ``root``; ``definition`` and ``generation`` as in
        :func:`windows`.
    """
    return _select("rollups" if history else "groups", "start_ms", where)


def anomalies(**where: Any) -> Any:
    """Return scored readings at or over the emission bound, in order of event time."""
    return _select("anomalies", "t_ms", where)


def labels(**where: Any) -> Any:
    """Return what operators said of series and still holds, in order of its beginning: ``kind`` is
    ``not-an-anomaly`` or ``missed``.

    :param where: as :func:`readings`; times are those of the beginning.
    """
    return _select("labels", "since_ms", where)


def _select(table: str, time: str, where: dict[str, Any]) -> Any:
    root = where.pop("root", None)
    conditions: list[str] = []
    parameters: dict[str, Any] = {}
    for name, value in where.items():
        match name:
            case "since_ms":
                conditions.append(f"{time} >= $since_ms")
            case "until_ms":
                conditions.append(f"{time} < $until_ms")
            case "definition" | "generation" if table in _VIEWS:
                conditions.append(f"{name} = ${name}")
            case "tenant" | "site" | "device" | "metric" | "window" | "rollup" | "group":
                conditions.append(f'"{name}" = ${name}')
            case _:
                raise TypeError(f"unknown condition {name!r}; see the docstring of streams.lake")
        parameters[name] = value
    clause = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    # Names come from the fixed lists above; values are bound as parameters.
    query = f"SELECT * FROM {table}{clause} ORDER BY {time}"  # noqa: S608
    return sql(query, root=root, parameters=parameters)
