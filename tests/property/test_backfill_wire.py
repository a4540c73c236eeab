"""Requests for a backfill and reports on them: what is written is read, the rest is refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import DecodeError
from streams.intake.backfill_wire import (
    MAX_BYTES,
    Progress,
    Request,
    State,
    decode_progress,
    decode_request,
    encode,
)

ids = st.text("0123456789abcdef", min_size=8, max_size=32)
times = st.integers(0, 1 << 41)
globs = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=9).map(tuple)
counts = st.integers(0, 1 << 40)
GOOD = {"id": "5f0c2b7d", "from_ms": 1, "to_ms": 2}


@given(ids, times, st.integers(1, 1 << 40), globs, globs)
def test_a_request_survives_the_way(
    id: str, begin: int, span: int, devices: tuple[str, ...], metrics: tuple[str, ...]
) -> None:
    request = Request(id, begin, begin + span, devices, metrics)
    assert decode_request(encode(request)) == request


@given(st.builds(Progress, ids, st.sampled_from(State), counts, counts, counts, st.text()))
def test_a_report_survives_the_way(progress: Progress) -> None:
    assert decode_progress(encode(progress)) == progress


def test_a_request_without_globs_is_about_everything() -> None:
    request = decode_request(orjson.dumps(GOOD))
    assert (request.devices, request.metrics) == (("*",), ("*",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"to_ms": 1}, "not before"),
        ({"from_ms": -1}, "whole number"),
        ({"from_ms": 1.5}, "whole number"),
        ({"to_ms": True}, "whole number"),
        ({"id": "../../x"}, "hex digits"),
        ({"devices": []}, "list of 1 to"),
        ({"devices": "*"}, "list of 1 to"),
        ({"metrics": [7]}, "1 to 128"),
    ],
)
def test_what_is_no_request_is_refused_with_the_reason(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DecodeError, match=message):
        decode_request(orjson.dumps({**GOOD, **changes}))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        decode_request(data)
    except DecodeError as error:
        assert error.reason == "bad-backfill"


def test_a_long_request_is_not_parsed() -> None:
    with pytest.raises(DecodeError, match="at most"):
        decode_request(b" " * (MAX_BYTES + 1))
