"""What ``headwater edge status`` shows."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from streams.cli.main import app
from streams.edge_view import page
from streams.errors import HeadwaterError
from streams.services.ports import free_port


def status(**changes: Any) -> dict[str, Any]:
    lane = {"records": 2, "bytes": 1_500_000, "max_bytes": 3_000_000, "lag_ms": 61_000}
    uplink = {
        "connected": False,
        "why": "the connection was lost",
        "unanswered_batches": 3,
        "resent_batches": 1,
        "round_trip_ms": 41.5,
        "batch_readings": 1_250,
        "fresh_readings": 0,
    }
    found = {
        "tenant": "acme",
        "site": "north",
        "life": 4,
        "stored": 1_000,
        "filtered": 300,
        "confirmed": 400,
        "given_up": {"expired": 1_200},
        "lanes": [{"lane": "readings", "readings": 600, **lane}],
        "ring": {
            "readings": 901,
            "bytes": 2_000_000,
            "max_bytes": 8_000_000,
            "reaches_back_ms": 3_600_000,
            "retention_ms": 604_800_000,
        },
        "filters": {"series": 12, "max_series": 20_000, "sent": 100, "filtered": 300},
        "local": {
            "rules": [rule("calm", 0), rule("hot", 2, commands=3), rule("warm", 0, where="both")],
            "firing": 2,
            "newest_firing": [
                {
                    "id": "alt_1",
                    "rule": "hot",
                    "device": "press-3",
                    "metric": "t",
                    "severity": "warning",
                    "began_ms": 1_750_000_000_000,
                    "why": "max of t [°C] of press-3 in each was 90, over 80",
                }
            ],
            "windows": {"results": 1_440, "series": 24, "max_series": 20_000},
            "commands": 3,
            "waiting_commands": 1,
            "waiting_readings": 7,
            "passed_over": 0,
            "webhooks": [
                {"name": "pager", "waiting": 4, "delivered": 9, "trouble": "answered 503"}
            ],
        },
        "uplink": uplink,
    }
    return {**found, **changes}


def rule(name: str, firing: int, *, where: str = "edge", commands: int = 0) -> dict[str, Any]:
    return {"rule": name, "where": where, "firing": firing, "commands": commands}


def shown(*args: Any) -> str:
    console = Console(width=140, record=True)
    console.print(page(*args))
    return console.export_text()


def test_a_page_says_what_waits_for_how_long_and_what_is_lost() -> None:
    text = shown(status(), None, 0)
    assert "acme/north" in text
    assert "down: the connection was lost" in text
    assert "600" in text
    assert "1.5 of 3.0 MB, 50%" in text
    assert "61.0 s" in text
    assert "1,200 expired" in text
    assert "901" in text
    assert "2.0 of 8.0 MB, 25%" in text
    assert "3,600.0 s, kept for 168 h" in text


def test_an_edge_without_filters_has_no_ring() -> None:
    text = shown(status(ring=None, filters=None), None, 0)
    assert "ring (stays)" not in text
    assert "filters" not in text


def test_a_page_says_what_the_site_does_by_itself() -> None:
    text = shown(status(), None, 0)
    assert "filters: 12 of at most 20,000 series, 100 readings sent, 300 filtered, 75%" in text
    assert "1,440 windows of 24 series kept, 3 commands given, 1 wait; 7 readings wait" in text
    # What fires comes first.
    rows = [
        line.split() for line in text.splitlines() if line.split()[1:2] in (["edge"], ["cloud"])
    ]
    assert rows == [
        ["hot", "edge", "2", "3"], ["calm", "edge", "0", "0"], ["warm", "cloud", "0", "0"]
    ]  # fmt: skip
    assert "2025-06-15 15:06:40  hot  max of t [°C] of press-3 in each was 90, over 80" in text
    assert "1 more alerts fire" in text
    assert "webhook pager: 4 messages wait, 9 delivered: answered 503" in text
    assert "passed over" not in text


def test_an_edge_without_local_work_says_so_and_one_of_before_says_nothing() -> None:
    assert "no local work" in shown(status(local=None), None, 0)
    before = status()
    del before["local"]
    assert "local" not in shown(before, None, 0)


def test_many_rules_do_not_fill_the_screen() -> None:
    local = status()["local"] | {"rules": [rule(f"r{n}", 0) for n in range(50)], "passed_over": 9}
    text = shown(status(local=local), None, 0)
    assert "30 more rules" in text
    assert "9 readings were passed over" in text


def test_rates_are_of_one_life_only() -> None:
    before = status(stored=800, confirmed=0)
    assert "in 100/s  up 200/s" in shown(status(), before, 2.0)
    assert "in 1,000  up 400" in shown(status(life=5), before, 2.0)


def test_an_edge_that_does_not_answer_is_named_with_what_to_do() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    result = CliRunner().invoke(app, ["edge", "status", "--at", address])
    assert isinstance(result.exception, HeadwaterError)
    with pytest.raises(HeadwaterError, match="no edge answers: "):
        raise result.exception
