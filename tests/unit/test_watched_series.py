"""What is kept of the series that are scored, and of those that are not."""

import numpy as np

from streams.agents.readings import make_readings
from streams.settings import Detection, Settings
from streams.testing import Driver, frame

START_MS = 1_764_000_000_000


def driver_of(*metrics):
    return Driver(make_readings(Settings(detection=Detection(metrics=[*metrics], warmup=16))))


def send(driver, number, metrics, value):
    t_ms = START_MS + number * 1_000
    rows = [{"device": "d", "metric": m, "t_ms": t_ms, "value": value} for m in metrics]
    driver.send(frame(*rows), at_ms=t_ms)


def rows_held(driver):
    return {len(rows) for rows in driver.logic.watch.detector.state().values()}


def test_nothing_is_kept_of_a_series_that_is_not_watched():
    driver = driver_of("seen")
    for number in range(3):
        send(driver, number, ["other"], 1.0)
        driver.checkpoint()
        driver.crash()
    assert rows_held(driver) == {0}
    send(driver, 9, ["seen"], 1.0)
    assert rows_held(driver) != {0}


def test_a_series_is_scored_alike_among_others_and_across_a_crash():
    random = np.random.default_rng(5)
    values = random.normal(20.0, 1.0, 90)
    values[[40, 41, 75]] += 50.0
    alone, among = driver_of("seen"), driver_of("seen")
    for number, value in enumerate(values.tolist()):
        send(alone, number, ["seen"], value)
        send(among, number, ["a", "b", "seen", f"c{number}"], value)
        if number in (5, 40, 60):
            among.checkpoint()
            among.crash()
    told = [
        [(row["t_ms"], row["score"], row["expected"]) for row in driver.rows("anomalies")]
        for driver in (alone, among)
    ]
    assert told[0] == told[1]
    assert {t_ms for t_ms, score, _ in told[0] if score > 4.0} >= {START_MS + 40_000}
