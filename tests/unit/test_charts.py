"""Charts in messages: what is drawn, and when there is none."""

from __future__ import annotations

import base64
import io
import threading
from pathlib import Path

import jsonschema
import numpy as np
import orjson
import pytest
from PIL import Image

from streams.alerts import charts as charts_module
from streams.alerts.chart import HEIGHT, WIDTH, Plot, draw
from streams.alerts.charts import Charts, chart_of
from streams.errors import HeadwaterError
from streams.settings import Settings, Webhook
from tests.documents import DOCS
from tests.unit.test_rule_trials import START_MS, write_pumps
from tests.waiting import PATIENCE_S

SCHEMA = orjson.loads((DOCS / "alert.schema.json").read_bytes())["properties"]["data"]


def alert(**more):
    sample = {"t_ms": 60_000, "value": 95.0, "expected": 20.0}
    names = {"tenant": "t", "device": "d", "metric": "m"}
    return {"id": "alt_1", "state": "firing", "began_ms": 50_000, "sample": sample, **names, **more}


def settings(tmp_path, **alerts):
    hook = {"url": "https://example.org/", "secret_file": "none"}
    hooks = [Webhook(name="seeing", chart=True, **hook), Webhook(name="blind", **hook)]
    return Settings(lake=tmp_path, webhooks=hooks, alerts=alerts)


def pixels(png):
    image = Image.open(io.BytesIO(png))
    assert (image.format, image.size) == ("PNG", (WIDTH, HEIGHT))
    return {colour: n for n, colour in image.convert("RGB").getcolors(100_000)}


def test_a_chart_has_the_line_and_in_red_the_level_and_the_beginning():
    points = [(t * 1_000, 20.0 + t % 3) for t in range(60)]
    plain = pixels(draw(Plot("m of d", points, None, -1)))
    marked = pixels(draw(Plot("m of d", points, 30.0, 30_000)))
    blue, red = (0x1F, 0x6F, 0xEB), (0xD1, 0x24, 0x2F)
    assert plain[blue] > 500
    assert red not in plain
    assert marked[red] > 400


def test_a_hostile_name_and_odd_values_do_no_harm():
    with pytest.raises(ValueError, match="too far apart"):
        draw(Plot("m", [(0, 1e308), (2, -1e308)], None, 1))
    points = [(0, 1e300), (1, float("nan")), (2, -1e300), (3, 0.0)]
    assert len(draw(Plot("\u202e\x00" * 500, points, None, 1))) < 32_768
    with pytest.raises(ValueError, match="fewer than two"):
        draw(Plot("m", [(1, 1.0), (1, 2.0)], None, 1))


async def test_only_who_wants_one_gets_it_and_it_is_drawn_once(tmp_path, monkeypatch):
    drawn = []

    def picture(given, root):
        drawn.append((given["id"], root))
        return draw(Plot("m of d", [(0, 1.0), (1, 2.0)], None, 1))

    monkeypatch.setattr(charts_module, "chart_of", picture)
    monkeypatch.setattr(charts_module, "_TIMEOUT_S", PATIENCE_S)  # The first picture loads fonts.
    charts = Charts(settings(tmp_path, charts_per_minute=2))
    entry = {"alert": alert()}
    assert await charts.of(entry, "blind", 0.0) is None
    assert await charts.of({**entry, "group": {}}, "seeing", 0.0) is None
    found = await charts.of(entry, "seeing", 0.0)
    assert await charts.of(entry, "seeing", 1.0) is found
    assert drawn == [("alt_1", Path(tmp_path))]
    jsonschema.validate(found, SCHEMA["properties"]["chart"])
    assert pixels(base64.b64decode(found["base64"]))
    others = [{"alert": alert(id=f"alt_{i}")} for i in range(2, 5)]
    made = [await charts.of(other, "seeing", 30.0) for other in others]
    assert [one is not None for one in made] == [True, False, False]
    assert await charts.of(others[2], "seeing", 61.0) is not None


async def test_one_that_takes_too_long_is_not_waited_for_and_holds_up_the_next_only(
    tmp_path, monkeypatch
):
    let_go = threading.Event()

    def slow(given, root):
        let_go.wait(PATIENCE_S)
        return b""

    monkeypatch.setattr(charts_module, "chart_of", slow)
    monkeypatch.setattr(charts_module, "_TIMEOUT_S", 0.01)
    charts = Charts(settings(tmp_path))
    assert await charts.of({"alert": alert()}, "seeing", 0.0) is None
    assert await charts.of({"alert": alert(id="alt_2")}, "seeing", 0.0) is None
    let_go.set()
    await charts._busy


async def test_an_empty_lake_means_no_chart(tmp_path):
    assert await Charts(settings(tmp_path)).of({"alert": alert()}, "seeing", 0.0) is None
    with pytest.raises(HeadwaterError, match="empty"):
        chart_of(alert(), tmp_path)


def test_the_series_comes_from_the_lake_up_to_what_the_alert_says(tmp_path, monkeypatch):
    write_pumps(tmp_path, np.linspace(60.0, 70.0, 40))
    plots = []
    monkeypatch.setattr(charts_module, "draw", lambda plot: plots.append(plot) or b"png")
    at_ms = START_MS + 9 * 60_000
    sample = {"t_ms": at_ms, "value": 99.0, "expected": 65.0}
    names = {"tenant": "default", "device": "pump-1", "metric": "temperature"}
    given = alert(began_ms=at_ms, sample=sample, **names)
    assert chart_of(given, tmp_path) == b"png"
    (plot,) = plots
    assert plot.title == "temperature of pump-1"
    assert len(plot.points) == 37
    assert (plot.points[0], plot.points[-1]) == ((START_MS, 60.0), (at_ms, 99.0))
    assert (plot.bound, plot.began_ms) == (65.0, at_ms)
