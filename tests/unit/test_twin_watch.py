"""A twin watched: changes and new conflicts, once each."""

from __future__ import annotations

from itertools import islice

from streams.twin_view import conflict_lines, diff_lines
from streams.twin_watch import watch


def twin(conflicts=(), **fields):
    return {
        "digest": f"d{sorted(fields.items())}",
        "fields": {f"desired.{name}": {"value": value} for name, value in fields.items()},
        "conflicts": [{"key": key, "path": "desired.a", "why": "edge-wins"} for key in conflicts],
    }


def test_what_changes_is_told_once_and_what_stays_is_not():
    looks = iter([{}, twin(a=1), twin(a=1), twin(["k"], a=2, b=0), twin(["k"], b=0)])
    pauses = []
    news = list(islice(watch(lambda: next(looks), lambda: pauses.append(1)), 3))
    assert [diff_lines(one.fields) for one in news] == [
        ["[green]+ desired.a[/] = 1"],
        ["[yellow]~ desired.a[/] = 2, was 1", "[green]+ desired.b[/] = 0"],
        ["[red]- desired.a[/] was 2"],
    ]
    assert [conflict_lines(one.conflicts) for one in news] == [
        [],
        ["[magenta]! desired.a[/] edge-wins"],
        [],
    ]
    assert len(pauses) == 4
    assert news[1].as_json()["fields"][0]["before"] == {"value": 1}
