"""Rules tried out: cases in a file, and the past in the lake."""

from __future__ import annotations

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from streams.alerts.backtest import backtest
from streams.alerts.backtest_html import html
from streams.alerts.backtest_view import page
from streams.alerts.rule_cases import run_cases
from streams.cli.main import app
from streams.errors import HeadwaterError, SettingsError
from streams.settings import load
from tests.documents import titled
from tests.lake_rows import write_readings

MINUTE_MS = 60_000
YEAR_MS = 365 * 86_400_000
START_MS = 1_767_225_600_000


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.toml").write_text(titled("rules.md", "rules.toml"))
    (tmp_path / "rules.test.toml").write_text(titled("rules.md", "rules.test.toml"))
    return tmp_path


def test_the_cases_of_the_documentation_hold(home):
    verdicts = run_cases(home / "rules.test.toml")
    assert [v.found for v in verdicts] == [[], ["pump-1"], []]
    assert all(v.holds for v in verdicts)
    assert CliRunner().invoke(app, ["rules", "test", "rules.test.toml"]).exit_code == 0


def test_a_case_that_does_not_hold_ends_with_1_and_says_what_fires(home):
    path = home / "rules.test.toml"
    path.write_text(path.read_text().replace('firing = ["pump-1"]', 'firing = ["pump-2"]'))
    ended = CliRunner().invoke(app, ["rules", "test", str(path)])
    assert ended.exit_code == 1
    assert "✗" in ended.stdout
    assert "pump-1" in ended.stdout


CASE = '[[tests]]\nname = "t"\nseries = [{ device = "d", metric = "temperature", values = [1] }]\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            '[[tests]]\nname = "t"\nseries = []\nexpect = []\n',
            "toml:3: tests.0.series: List should",
        ),
        (
            CASE + 'expect = [{ after = "soon", rule = "hot", firing = [] }]\n',
            "toml:4: tests.0.expect.0.after: 'soon' is no time span",
        ),
        (
            CASE + 'expect = [{ after = "1s", rule = "cold", firing = [] }]\n',
            "toml:4: there is no rule 'cold'",
        ),
        (
            CASE.replace("[1]", '["many"]') + "expect = []\n",
            "'many' is no value; expected a number",
        ),
        (CASE + "wanted = 1\n", "toml:4: tests.0.wanted: unknown setting"),
    ],
)
def test_an_offence_in_a_file_of_cases_is_named_with_its_line(home, text, says):
    path = home / "bad.test.toml"
    path.write_text(text)
    (home / "headwater.toml").write_text((home / "rules.toml").read_text())
    with pytest.raises(SettingsError) as error:
        run_cases(path)
    assert says in str(error.value)


def test_late_readings_of_a_case_correct_what_fired(home):
    (home / "late.toml").write_text(
        '[[windows]]\nname = "1m"\nsize_ms = 60000\n'
        '[[rules]]\nname = "hot"\nkind = "threshold"\nwindow = "1m"\nover = 90.0\n'
    )
    path = home / "late.test.toml"
    path.write_text(
        'settings = "late.toml"\n[[tests]]\nname = "t"\nseries = [\n'
        '{ device = "d", metric = "m", every_ms = 30000, values = ["95x4"] },\n'
        '{ device = "d", metric = "m", offset_ms = 1, delay_ms = 180000, values = ["10x2"] },\n'
        "]\nexpect = [\n"
        '{ after = "2min", rule = "hot", firing = ["d"] },\n'
        '{ after = "6min", rule = "hot", firing = [] },\n]\n'
    )
    assert [v.found for v in run_cases(path)] == [["d"], []]


def write_pumps(root, values, later_ms=0):
    """Readings of two devices, which came in later; only one gets hot."""
    n = len(values)
    t_ms = START_MS + np.arange(n) * MINUTE_MS // 4
    for device, found in (("pump-1", values), ("pump-2", np.full(n, 70.0))):
        names = {"tenant": "default", "site": "north", "device": device, "metric": "temperature"}
        write_readings(root, t_ms, found, later_ms, **names)


def test_the_past_is_judged_anew(home):
    values = np.full(400, 70.0)
    values[100:140], values[300:340] = 95.0, 99.0
    write_pumps(home / "lake", values)
    settings = load(home / "rules.toml")
    end_ms = START_MS + 100 * MINUTE_MS
    found = backtest(settings, "hot", START_MS, end_ms, root=home / "lake")
    assert (found.readings, found.series) == (800, 2)
    assert [(a["device"], a["state"]) for a in found.alerts] == [("pump-1", "resolved")] * 2
    assert [(a["began_ms"] - START_MS) // MINUTE_MS for a in found.alerts] == [25, 75]
    half = backtest(settings, "hot", START_MS + 50 * MINUTE_MS, end_ms, root=home / "lake")
    assert [(a["began_ms"] - START_MS) // MINUTE_MS for a in half.alerts] == [75]
    written = html(found)
    assert written.count("<rect") == 2
    assert "pump-1" in written
    with pytest.raises(HeadwaterError, match="more than 10 readings"):
        backtest(settings, "hot", START_MS, end_ms, max_readings=10, root=home / "lake")
    with pytest.raises(HeadwaterError, match="no rule 'cold'; there are strange, hot"):
        backtest(settings, "cold", START_MS, end_ms, root=home / "lake")


def test_a_recording_of_another_year_is_shown_in_its_own_time(home):
    values = np.full(400, 70.0)
    values[100:140], values[300:340] = 95.0, 99.0
    write_pumps(home / "lake", values, later_ms=YEAR_MS)
    came_ms = START_MS + YEAR_MS
    end_ms = came_ms + 100 * MINUTE_MS
    settings = load(home / "rules.toml")
    found = backtest(settings, "hot", came_ms, end_ms, root=home / "lake")
    began = [alert["began_ms"] - START_MS for alert in found.alerts]
    assert [at_ms // MINUTE_MS for at_ms in began] == [25, 75]
    console = Console(width=200, record=True)
    console.print(page(found))
    shown = console.export_text()
    assert "█" in shown
    assert "in their last state: 2 resolved" in shown
    assert html(found).count("<rect") == 2
    half = backtest(settings, "hot", came_ms + 50 * MINUTE_MS, end_ms, root=home / "lake")
    assert len(half.alerts) == 1
    none = backtest(settings, "hot", START_MS, came_ms, root=home / "lake")
    console.print(page(none))
    assert "The lake has no readings that the rule looks at" in console.export_text()


def test_the_command_plots_and_writes_a_page(home, monkeypatch):
    values = np.full(100, 70.0)
    values[40:80] = 95.0
    write_pumps(home / "lake", values)
    monkeypatch.setenv("HEADWATER_CONFIG", str(home / "rules.toml"))
    monkeypatch.setenv("HEADWATER_LAKE", str(home / "lake"))
    words = ["rules", "backtest", "hot", "--from", "2026-01-01", "--to", "2026-01-01T00:25"]
    ended = CliRunner().invoke(app, [*words, "--html", "out.html"])
    assert ended.exit_code == 0, ended.output
    assert "hot: 1 alerts on 1 devices" in ended.stdout
    assert "█" in ended.stdout
    assert (home / "out.html").read_text(encoding="utf-8").count("<rect") == 1
    ended = CliRunner().invoke(app, [*words, "--html", "nowhere/out.html"])
    assert "nowhere/out.html cannot be written: No such file" in str(ended.exception)


def test_a_rule_on_scores_is_tried_with_its_detector(home):
    random = np.random.default_rng(3)
    values = random.normal(20.0, 1.0, 400)
    values[350] = 60.0
    write_pumps(home / "lake", values)
    found = backtest(
        load(home / "rules.toml"),
        "strange",
        START_MS + 50 * MINUTE_MS,
        START_MS + 101 * MINUTE_MS,
        warmup_ms=50 * MINUTE_MS,
        root=home / "lake",
    )
    assert [a["sample"]["value"] for a in found.alerts] == [60.0]
