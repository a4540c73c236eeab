"""The page of a backtest is whole by itself, whatever the names and however many the alerts."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from streams.alerts.backtest import Backtest
from streams.alerts.backtest_html import html

NAME = '<b>&"\'press"</b>'
SPAN_MS = 86_400_000


def alert(n: int, **values: Any) -> dict[str, Any]:
    return {
        "id": f"alt_{n}", "tenant": "acme", "site": "north", "device": f"press-{n % 300}",
        "metric": "heat", "state": "resolved", "began_ms": 10_000 * n, "fired_ms": 10_000 * n,
        "resolved_ms": 10_000 * n + 5_000, "why": f"95 at {n}", "sample": {"t_ms": 10_000 * n},
        **values,
    }  # fmt: skip


def page_of(alerts: list[dict[str, Any]], rule: str = "hot") -> tuple[str, ElementTree.Element]:
    """The page, and its elements: it is well-formed XML, too, so no tag is left open."""
    text = html(Backtest(rule, 0, SPAN_MS, 12_345, 300, alerts))
    return text, ElementTree.fromstring(text)


def bars(root: ElementTree.Element) -> list[ElementTree.Element]:
    return root.findall(".//rect")


def rows(root: ElementTree.Element) -> list[list[str]]:
    return [["".join(cell.itertext()) for cell in row] for row in root.findall(".//tbody/tr")]


def test_names_are_text_wherever_they_stand() -> None:
    named = {"site": NAME, "device": NAME, "metric": NAME, "why": NAME}
    text, root = page_of([alert(1, **named)], rule=NAME)
    assert "<b>" not in text
    assert rows(root)[0][4:] == [NAME, NAME, NAME, NAME]
    assert root.find(".//h1").text == f"Backtest of {NAME}"  # type: ignore[union-attr]
    assert bars(root)[0][0].text == f"1970-01-01 00:00:10: {NAME}"


def test_nothing_is_fetched_and_nothing_runs() -> None:
    text, root = page_of([alert(n) for n in range(3)])
    assert not {"script", "link", "img", "iframe"} & {one.tag for one in root.iter()}
    assert not any(name in text for name in ("http:", "https:", "url(", "@import", "src="))
    assert "prefers-color-scheme:dark" in text


def test_a_rule_that_never_fired_has_its_figures_and_no_drawing() -> None:
    text, root = page_of([])
    assert "hot: 0 alerts on 0 devices" in text
    assert "12,345 readings of 300 series" in text
    assert root.find(".//svg") is None and root.find(".//table") is None


@pytest.mark.parametrize("count", [5_000, 20_000])
def test_of_many_alerts_what_is_left_out_is_said(count: int) -> None:
    text, root = page_of([alert(n) for n in range(count)])
    assert f"hot: {count:,} alerts on 300 devices" in text
    assert len(root.findall(".//line")) == 200
    assert len(rows(root)) == 1_000
    assert f"{count - 1_000:,} more alerts are not in the table" in text
    assert "100 more series are not drawn" in text
    drawn = min(5_000, sum(1 for n in range(count) if n % 300 < 200))
    assert len(bars(root)) <= drawn
    assert f"{count - len(bars(root)):,} more alerts are not drawn" in text
    assert len(text) < 2_000_000


def test_every_bar_is_inside_the_drawing() -> None:
    late = [
        alert(1, state="firing", resolved_ms=None),
        alert(2, began_ms=SPAN_MS - 1, resolved_ms=SPAN_MS + 90_000),
    ]
    _, root = page_of(late)
    places = [(float(one.get("x", "0")), float(one.get("width", "0"))) for one in bars(root)]
    assert all(x >= 240 and x + width <= 1_000.1 for x, width in places)
    assert rows(root)[0][:4] == ["1970-01-01 00:00:10", "1970-01-01 00:00:10", "", "firing"]
