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
        "uplink": uplink,
    }
    return {**found, **changes}


def shown(*args: Any) -> str:
    console = Console(width=140, record=True)
    console.print(page(*args))
    return console.export_text()


def test_a_page_says_what_waits_for_how_long_and_what_is_lost() -> None:
    text = shown(status(), None, 0)
    assert "acme/north" in text
    assert "down: the connection was lost" in text
    assert "600" in text
    assert "1.5 MB, 50%" in text
    assert "61.0 s" in text
    assert "1,200 expired" in text
    assert "901" in text
    assert "2.0 MB, 25%" in text


def test_an_edge_without_filters_has_no_ring() -> None:
    assert "ring" not in shown(status(ring=None), None, 0)


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
