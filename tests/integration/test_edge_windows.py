"""Windows of an edge, through broker and gateway into Kafka and the lake, replace the cloud's."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from streams import lake
from streams.adapters import frames
from streams.adapters.edge_ledger import EdgeCount, EdgeLedger
from streams.adapters.lake import LakeTable, rows_of
from streams.adapters.log_reader import read_all
from streams.agents.readings import make_readings
from streams.ports import is_time_marker
from streams.settings import Settings, Window
from streams.sim.proxy import Proxy
from streams.testing import Driver
from streams.topics import AGGREGATES, LOSSES, READINGS
from tests.integration.edge_child import edge_node
from tests.integration.gateway_child import gateway, unique
from tests.waiting import eventually, eventually_async

CONFIG = """
[[windows]]
name = "1s"
size_ms = 1000
horizon_ms = 600000

[detection]
warmup = 8

[[filters]]
mode = "windows-and-anomalies"
around_ms = 500

[edge.ring]
tell_ms = 200
"""
BEGIN_MS = 1_750_000_000_000


def row(device: str, number: int, t_ms: int, value: float) -> dict:
    return {"device": device, "t_ms": BEGIN_MS + t_ms, "boot": 1, "seq": number, "m": value}


async def test_windows_of_an_edge_are_the_only_ones_whatever_dies_on_the_way(
    kafka: str, mqtt: str, tmp_path: Path
) -> None:
    device, site = unique("dev"), unique("site")
    parts = urlsplit(mqtt)
    assert parts.hostname and parts.port
    with (
        Proxy(parts.hostname, parts.port) as link,
        gateway(kafka, mqtt, tmp_path, ""),
        edge_node(f"mqtt://127.0.0.1:{link.port}", tmp_path, site, CONFIG) as edge,
    ):
        link.cut()
        values = [1_000.0 if n == 100 else float(n % 3) for n in range(200)]
        rows = [row(device, n, 100 * n, value) for n, value in enumerate(values)]
        assert edge.post(rows).status_code == 202
        assert edge.post([row(device, 200, 60_000, 0.0)]).status_code == 202
        eventually(lambda: edge.waiting("windows") >= 20, what="windows in the spool")
        eventually(lambda: edge.waiting() == 11, what="readings around the anomaly")
        edge.kill()
        edge.start()
        # A correction, by an edge that has computed its open windows anew.
        assert edge.post([row(device, 201, 3_050, 7.0)]).status_code == 202
        link.heal()
        expected = {BEGIN_MS + 1_000 * n: 11 if n == 3 else 10 for n in range(20)}

        async def current() -> bool:
            await carry(kafka, device, tmp_path / "lake")
            return {one["start_ms"]: one["count"] for one in shown(tmp_path / "lake")} == expected

        await eventually_async(current, every_s=1, what="each window once")
        eventually(lambda: edge.waiting() == edge.waiting("windows") == 0)
        await carry(kafka, device, tmp_path / "lake")
        found = shown(tmp_path / "lake")
        assert {(one["source"], one["site"]) for one in found} == {("edge", site)}
        ranks = {one["start_ms"]: one["rank"] for one in found}
        assert ranks == {start_ms: int(count > 10) for start_ms, count in expected.items()}
        told = lake.sql(
            "SELECT start_ms, rank FROM aggregates WHERE rank >= 0 GROUP BY ALL "
            "HAVING count(DISTINCT (count, sum, min, max, mean, sd)) > 1",
            root=tmp_path / "lake",
        )
        assert told.num_rows == 0, "what was told again has other bits"
        counts = EdgeCount("default", site, device, 11, 202 - 11, 0)

        async def balanced() -> bool:
            ledger = EdgeLedger()
            async for record in read_all(kafka, [LOSSES]):
                ledger.add(record)
            return [one for one in ledger.counts() if one.site == site] == [counts]

        await eventually_async(balanced, every_s=1, what=f"{counts} in the ledger")
        assert edge.stop() == 0


def shown(root: Path) -> list[dict]:
    """The windows of the lake but that of the last reading, told once the device is quiet."""
    if not lake.tables(root=root):
        return []
    return lake.windows(root=root, until_ms=BEGIN_MS + 60_000).to_pylist()


async def carry(kafka: str, device: str, root: Path) -> None:
    """Put into the lake what `aggregates` has of a device, and what a worker would make of its
    readings."""
    windows = [Window(name="1s", size_ms=1_000, horizon_ms=600_000)]
    worker = Driver(make_readings(Settings(windows=windows)))
    table = LakeTable(root, AGGREGATES)
    raw: list[int] = []
    async for record in read_all(kafka, [AGGREGATES, READINGS]):
        if is_time_marker(record):
            continue
        if record.topic == AGGREGATES:
            rows = rows_of(AGGREGATES, record)
            if device in rows["device"].to_pylist():
                table.append(rows, {record.partition: record.offset})
        elif (record.value or b"")[:4] == b"\xff\xff\xff\xff":
            found = frames.decode(record.value or b"")
            if device in found.device.values:
                raw += ((found.t_ms - BEGIN_MS) // 100).tolist()
                worker.send(record.value, at_ms=record.timestamp)
    assert set(raw) <= set(range(95, 106)), "only what is around the anomaly goes up raw"
    worker.tick(at_ms=1 << 41)
    assert not worker.rows(AGGREGATES), "the worker makes windows of what an edge has windowed"
