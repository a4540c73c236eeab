"""Local work by example: what is kept, told, paced and given while the uplink is down."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from crdt.core.commands.model import Command, CommandError
from crdt.sqlite_file import LogError
from edge.errors import SpoolError
from edge.local.actuator import Actuator
from edge.local.evaluation import Evaluation
from edge.local.journal import Journal
from edge.local.pacing import Due, Pacer
from edge.local.recent import RecentWindows
from edge.local.work import LocalWork
from streams.core.readings import ABSENT, Labels, Readings
from streams.errors import SettingsError
from streams.settings import Edge, EdgeLocal, Rule, Settings, Window
from tests.waiting import eventually_async

FAN_ON = {"name": "fan", "args": {"on": True}, "device": "fan-{device}"}
FAN_OFF = {**FAN_ON, "args": {"on": False}, "when": "resolved"}


def settings(folder: Path, *, topic: str | None = None, local: EdgeLocal | None = None) -> Settings:
    more = {} if topic is None else {"topic": topic}
    return Settings(
        windows=[Window(name="each", kind="sliding", last=1)],
        rules=[
            Rule(
                name="hot",
                kind="threshold",
                window="each",
                over=80.0,
                clear=70.0,
                resolve_ms=0,
                where="edge",
                commands=[{**FAN_ON, **more}, {**FAN_OFF, **more}],
                commands_every_ms=0,
            ),
            Rule(
                name="warm", kind="threshold", window="each", over=50.0, resolve_ms=0, where="both"
            ),
        ],
        edge=Edge(
            site="north",
            data=folder,
            local_mqtt=None if topic is None else "mqtt://127.0.0.1:1",
            local=local or EdgeLocal(),
        ),
    )


def readings(*values: float, first_ms: int = 1_000, device: str = "d") -> Readings:
    n = len(values)
    return Readings(
        *(Labels.constant(name, n) for name in ("default", "north", device, "t")),
        first_ms + np.arange(n),
        first_ms + np.arange(n),
        np.array(values, np.float64),
        np.zeros(n, np.uint8),
        np.full(n, ABSENT, np.int64),
        np.full(n, ABSENT, np.int64),
        {},
        {},
    )


class Site:
    """Local work whose commands and alerts end in lists."""

    def __init__(self, given: Settings) -> None:
        self.commands: list[tuple[str, Any]] = []
        self.told: list[dict[str, Any]] = []
        self.spool_fails = False
        self.now_ms = 1_000
        actuator = Actuator(given, self._issue, lambda *_: False, lambda: 5)
        self.work = LocalWork(given, actuator, self._tell, lambda: self.now_ms)

    def _issue(self, device: str, command: Command) -> None:
        self.commands.append((device, command.args))

    async def _tell(self, alerts) -> None:
        if self.spool_fails:
            raise SpoolError("no disk")
        self.told += [orjson.loads(one) for one in alerts]


def states(alerts: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(one["rule"], one["state"]) for one in alerts]


async def test_a_reading_over_the_bound_is_told_shown_and_acted_on(tmp_path: Path) -> None:
    site = Site(settings(tmp_path))
    async with site.work.running():
        # A reading's window closes with the next reading of its device.
        site.work.take(readings(20.0, 90.0, 75.0))
        await eventually_async(_coroutine(lambda: len(site.told) == 1))
        site.work.take(readings(60.0, 60.0, 60.0, first_ms=2_000))
        await eventually_async(_coroutine(lambda: len(site.told) == 2))
        # The cloud tells of "warm"; it is shown here.
        assert states(site.told) == [("hot", "firing"), ("hot", "resolved")]
        assert len({one["id"] for one in site.told}) == 1
        assert site.commands == [("fan-d", {"on": True}), ("fan-d", {"on": False})]
        assert states(site.work.alerts()) == [("hot", "resolved"), ("warm", "firing")]
        status = site.work.status()
        assert status["rules"] == [
            {"rule": "hot", "where": "edge", "firing": 0, "commands": 2},
            {"rule": "warm", "where": "both", "firing": 1, "commands": 0},
        ]
        assert (status["firing"], status["commands"], status["waiting_readings"]) == (1, 2, 0)
        assert [one["rule"] for one in status["newest_firing"]] == ["warm"]
        assert status["windows"] == {"results": 5, "series": 1, "max_series": 20_000}
        assert [one["mean"] for one in site.work.recent.device("d") or ()] == [
            *(20, 90, 75, 60, 60)
        ]


async def test_an_alert_across_a_start_is_not_acted_on_again_and_resolves(tmp_path: Path) -> None:
    given = settings(tmp_path)
    first = Site(given)
    async with first.work.running():
        first.work.take(readings(90.0, 90.0))
        await eventually_async(_coroutine(lambda: first.told))
    again = Site(given)
    async with again.work.running():
        assert states(again.work.alerts("firing")) == [("warm", "firing"), ("hot", "firing")]
        again.work.take(readings(91.0, 60.0, 60.0, 60.0, first_ms=2_000))
        await eventually_async(_coroutine(lambda: again.told))
    assert states(again.told) == [("hot", "resolved")]
    assert again.told[0]["id"] == first.told[0]["id"]
    assert again.commands == [("fan-d", {"on": False})]


async def test_the_last_window_of_a_series_that_falls_silent_is_judged_by_time(
    tmp_path: Path,
) -> None:
    hot = {"name": "hot", "kind": "threshold", "window": "1s", "over": 80.0, "where": "edge"}
    given = Settings(
        windows=[Window(name="1s", size_ms=1_000)],
        devices={"idle_ms": 5_000, "idle_final_ms": 9_000},
        rules=[Rule(**hot, resolve_ms=0)],
        edge=Edge(site="north", data=tmp_path),
    )
    site = Site(given)

    def reasons() -> list[str]:
        return [one["reason"] for one in site.work.recent.device("d") or ()]

    async with site.work.running():
        site.work.take(readings(90.0))
        await eventually_async(_coroutine(lambda: site.work.status()["waiting_readings"] == 0))
        assert reasons() == []
        # No reading comes any more, and the clock goes on: as in the cloud, without a marker.
        site.now_ms += 5_001
        await eventually_async(_coroutine(lambda: reasons() == ["provisional"]))
        site.now_ms += 4_000
        await eventually_async(_coroutine(lambda: reasons() == ["idle"]))
        await eventually_async(_coroutine(lambda: states(site.told) == [("hot", "firing")]))


async def test_alerts_that_the_spool_refused_are_told_later(tmp_path: Path) -> None:
    site = Site(settings(tmp_path))
    site.spool_fails = True
    async with site.work.running():
        site.work.take(readings(90.0, 90.0))
        await eventually_async(_coroutine(lambda: site.commands))
        await eventually_async(_coroutine(site.work.alerts))
        assert site.told == []
        site.spool_fails = False
        await eventually_async(_coroutine(lambda: states(site.told) == [("hot", "firing")]))


async def test_readings_beyond_the_bound_are_passed_over_oldest_first(tmp_path: Path) -> None:
    site = Site(settings(tmp_path, local=EdgeLocal(max_waiting_rows=2)))
    for first_ms in (1_000, 2_000, 3_000, 4_000):
        site.work.take(readings(1.0, first_ms=first_ms))
    async with site.work.running():
        await eventually_async(_coroutine(lambda: site.work.recent.device("d")))
        ends = [one["end_ms"] for one in site.work.recent.device("d") or ()]
    assert ends == [3_001]


def _coroutine(probe):
    async def asked():
        await asyncio.sleep(0)
        return probe()

    return asked


# -- commands --------------------------------------------------------------------------------------


def due(state: str, device: str = "d") -> Due:
    names = {"tenant": "default", "site": "north", "device": device, "metric": "t", "rule": "hot"}
    return Due("hot", state, {**names, "id": "alt_1", "state": state})


class Broker:
    def __init__(self) -> None:
        self.is_there = False
        self.sent: list[tuple[str, Any]] = []

    def publish(self, topic: str, payload: bytes, _ttl_ms: int) -> bool:
        if self.is_there:
            self.sent.append((topic, orjson.loads(payload)))
        return self.is_there


def test_what_waited_for_the_broker_is_replaced_by_what_holds_now(tmp_path: Path) -> None:
    broker = Broker()
    given = settings(tmp_path, topic="plant/{device}/set")
    actuator = Actuator(given, lambda *_: None, broker.publish, lambda: 77)
    actuator.give(due("firing"), 0)
    actuator.give(due("resolved"), 10)
    broker.is_there = True
    assert (actuator.waiting, actuator.given.total()) == (1, 0)
    actuator.flush(20)
    actuator.flush(30)
    assert (actuator.waiting, actuator.given["hot"]) == (0, 1)
    ((topic, told),) = broker.sent
    assert topic == "plant/d/set"
    assert told["args"] == {"on": False}
    assert (told["device"], told["name"], told["issued_ms"]) == ("fan-d", "fan", 77)
    assert (told["rule"], told["alert"], told["state"]) == ("hot", "alt_1", "resolved")


def test_a_command_whose_time_is_over_is_not_published(tmp_path: Path) -> None:
    broker = Broker()
    given = settings(tmp_path, topic="plant/{device}/set")
    actuator = Actuator(given, lambda *_: None, broker.publish, lambda: 0)
    actuator.give(due("firing"), 0)
    broker.is_there = True
    actuator.flush(60_000)
    assert broker.sent == []


def test_a_device_whose_name_is_no_level_of_a_topic_gets_nothing(tmp_path: Path) -> None:
    broker = Broker()
    broker.is_there = True
    given = settings(tmp_path, topic="plant/{device}/set")
    Actuator(given, lambda *_: None, broker.publish, lambda: 0).give(due("firing", "a#"), 0)
    assert broker.sent == []


def test_a_command_that_the_desk_refuses_stops_nothing(tmp_path: Path) -> None:
    asked: list[str] = []

    def refuse(device: str, _command: Command) -> None:
        asked.append(device)
        raise CommandError("too-many-open", "64 are open") if len(asked) == 1 else LogError("disk")

    actuator = Actuator(settings(tmp_path), refuse, lambda *_: True, lambda: 0)
    actuator.give(due("firing"), 0)
    actuator.give(due("resolved"), 0)
    assert asked == ["fan-d", "fan-d"]


def test_a_command_on_a_topic_needs_the_sites_broker(tmp_path: Path) -> None:
    given = settings(tmp_path, topic="plant/set")
    given = given.model_copy(update={"edge": Edge(data=tmp_path)})
    with pytest.raises(SettingsError, match="the rule hot gives commands on a topic"):
        Actuator(given, lambda *_: None, lambda *_: True, lambda: 0)


def test_places_are_bounded_and_forgotten_once_nothing_holds() -> None:
    pacer = Pacer({"hot": 10}, 1)
    assert pacer.take(due("firing", "a").alert | {"id": "1"}, 0)
    assert not pacer.take(due("firing", "b").alert | {"id": "2"}, 100)
    assert pacer.refused == 1
    assert pacer.take(due("resolved", "a").alert | {"id": "1"}, 100)
    assert pacer.take(due("firing", "b").alert | {"id": "2"}, 200)


# -- the journal -----------------------------------------------------------------------------------


def alert(number: int, state: str = "firing") -> dict[str, Any]:
    return {"id": f"alt_{number}", "state": state}


def test_the_journal_keeps_what_fires_and_the_newest_that_is_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.db", 2)
    journal.record([alert(n) for n in range(5)], [alert(0), alert(1)], {"scores": b"1"})
    journal.record([alert(n, "resolved") for n in range(4)], [], {"scores": b"2"})
    journal.close()
    again = Journal(tmp_path / "a.db", 2)
    assert [one["id"] for one in again.alerts()] == ["alt_4", "alt_2", "alt_3"]
    assert again.state() == {"scores": b"2"}
    (first, _), (last, data) = again.untold()
    assert orjson.loads(data) == alert(1)
    again.told(first)
    assert [number for number, _ in again.untold()] == [last]
    again.close()


def test_a_journal_of_another_version_is_not_opened(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as db:
        db.execute("PRAGMA user_version=9")
    db.close()
    with pytest.raises(LogError, match="has version 9"):
        Journal(tmp_path / "a.db", 2)


# -- windows ---------------------------------------------------------------------------------------


def results(start_ms: int, mean: float, rank: int = 0, count: int = 1, device: str = "d") -> Any:
    from streams.core.results import WindowResults

    label = {"tenant": "t", "site": "s", "device": device, "metric": "m", "window": "1m"}
    text = {**label, "source": "edge", "reason": "closed"}
    numbers = dict.fromkeys(("sum", "min", "max", "sd"), np.array([np.nan]))
    return WindowResults(
        **{name: Labels.constant(value, 1) for name, value in text.items()},
        start_ms=np.array([start_ms]),
        end_ms=np.array([start_ms + 60_000]),
        rank=np.array([rank], np.int32),
        count=np.array([count]),
        mean=np.array([mean]),
        last_received_ms=np.array([0]),
        kafka_ms=np.array([0]),
        **numbers,
    )


def shown(recent: RecentWindows, device: str = "d") -> list[tuple[int, float]]:
    return [(one["start_ms"], one["mean"]) for one in recent.device(device) or ()]


def test_recent_windows_are_the_newest_in_their_last_revision() -> None:
    recent = RecentWindows(2, 1)
    for one in (results(0, 1.0), results(60, 2.0), results(60, 2.5, rank=1), results(60, 9.0)):
        recent.update(one)
    assert shown(recent) == [(0, 1.0), (60, 2.5)]
    recent.update(results(120, 3.0))
    # Older than all that is kept.
    recent.update(results(0, 1.5, rank=1))
    assert shown(recent) == [(60, 2.5), (120, 3.0)]
    recent.update(results(60, 0.0, rank=2, count=0))
    assert shown(recent) == [(120, 3.0)]
    recent.update(results(0, 1.0, device="e"))
    assert recent.device("e") is None
    assert recent.device("d", metric="other") == []


def scored(score: float, t_ms: int) -> Any:
    from streams.core.results import Scores

    label = {"tenant": "default", "site": "north", "device": "d", "metric": "model.pump"}
    text = {**label, "detector": "pump/1", "why": "the pump is strange"}
    whole = {"t_ms": t_ms, "received_ms": t_ms, "kafka_ms": t_ms, "offset": 0, "row": 0}
    numbers = {"value": score, "score": score, "expected": 0.0, "spread": 1.0}
    return Scores(
        **{name: Labels.constant(value, 1) for name, value in text.items()},
        **{name: np.array([value]) for name, value in {**whole, **numbers}.items()},
    )


def test_scores_of_the_sites_models_go_by_the_local_rules() -> None:
    given = Settings(
        windows=[Window(name="1s", size_ms=1_000)],
        rules=[Rule(name="worn", metrics=["model.*"], resolve_ms=0, where="edge")],
    )
    evaluation = Evaluation(given)

    class Models:
        def take(self, found, offset):
            assert offset >= 0
            return [scored(9.0 if found.mean[0] > 50 else 0.0, int(found.end_ms[0]))]

    evaluation.models = Models()
    told = [
        one
        for n, value in enumerate((90.0, 10.0, 10.0))
        for one in evaluation.take(readings(value, first_ms=1_000 * n), 5_000).alerts
    ]
    assert [(one["rule"], one["metric"], one["state"]) for one in told] == [
        ("worn", "model.pump", "firing"),
        ("worn", "model.pump", "resolved"),
    ]
    assert "the pump is strange" in told[0]["why"]
