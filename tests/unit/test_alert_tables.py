"""What commands show of alerts, whatever names devices have."""

from __future__ import annotations

import pytest
from rich.console import Console

from streams.alerts.backtest import Backtest
from streams.alerts.backtest_view import page as backtest_page
from streams.alerts.book import dead_table, table_of
from streams.alerts.desk import Desk, silences_table
from streams.alerts.explaining import Explanation
from streams.alerts.explaining import page as explanation_page

NAME = "[/red]pump[bold]"
ALERT = {
    "id": "alt_1",
    "rule": "hot",
    "severity": "warning",
    "state": "firing",
    "tenant": "t",
    "site": NAME,
    "device": NAME,
    "metric": "m",
    "began_ms": -(1 << 62),
    "fired_ms": 1 << 62,
    "resolved_ms": None,
    "why": f"mean of m of {NAME} was 95",
    "sample": {"t_ms": 0},
}
SCORE = {"t_ms": 0, "value": 9.0, "score": 9.0, "expected": 1.0, "spread": 1.0, "why": NAME}
MESSAGE = {"id": "msg_1", "endpoint": "hook", "alert": ALERT, "reason": f"{NAME} answered 500"}
SAID = {"id": "sil_1", "kind": "silence", "globs": {"device": [NAME]}, "author": NAME}
SAID |= {"starts_ms": 0, "ends_ms": 1 << 62, "comment": NAME}


def desk():
    found = Desk()
    found.take(SAID, 0)
    return found


@pytest.mark.parametrize(
    "shown",
    [
        table_of([ALERT]),
        dead_table([MESSAGE]),
        silences_table(desk(), 1),
        backtest_page(Backtest("hot", 0, 1_000, 5, 1, [ALERT])),
        explanation_page(
            Explanation(
                ALERT,
                {"name": "hot"},
                [SCORE],
                messages=[{**MESSAGE, "what": "firing", "status": "dead", "at_ms": 0}],
            )
        ),
    ],
    ids=["alerts", "dead", "silences", "backtest", "explanation"],
)
def test_brackets_are_shown_as_they_are_and_times_without_a_date_as_numbers(shown):
    console = Console(width=300, record=True)
    console.print(shown)
    assert NAME in console.export_text()
