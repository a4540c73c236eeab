"""Building the columns of a whole batch of messages, one message after another.

Codecs of row formats (JSON, SenML, plain numbers) write here instead of making one
:class:`~streams.core.readings.Readings` per message: what a message's rows share is kept once
as a *run*, and becomes columns at the end in one step per column.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from streams.core.readings import ABSENT, TIME_OF_RECEIPT, Int32, Labels, Readings
from streams.errors import DecodeError
from streams.settings import MetricSpec

MAX_NAME = 128
"""Characters of a tenant, site or device."""
MAX_METRIC = 256
"""Characters of a metric; nested JSON and SenML names are longer than plain ones."""
MAX_TEXT = 4_096
"""Characters of a text value."""
MAX_T_MS = 253_402_300_799_999
"""The last millisecond of the year 9999."""

_EXACT = 2**53
_INT64 = 2**63


@dataclass(frozen=True, slots=True)
class Source:
    """What a topic and its mapping say about a message, before its payload is read.

    ``device`` is ``None`` where the payload names it (``device_field``), ``metric`` is ``None``
    where the payload does. ``time_field`` is ``None`` where time is the time of receipt.
    """

    tenant: str
    site: str
    device: str | None
    metric: str | None
    format: str = "auto"
    time_field: str | None = "t_ms"
    time_unit: Literal["ms", "s", "us", "ns"] = "ms"
    seq_field: str = "seq"
    boot_field: str = "boot"
    device_field: str | None = None
    reserved: frozenset[str] = frozenset()
    """JSON fields that are not metrics."""


def check_name(kind: str, name: str, *, slash: bool = False) -> str:
    """Return *name* if it can name a tenant, site, device or metric.

    :raises DecodeError: ``bad-name`` if it is empty, too long, has control characters, or has a
        slash where *slash* does not allow one (it separates tenant from device in Kafka keys).
    """
    limit = MAX_METRIC if kind == "metric" else MAX_NAME
    if not name:
        raise DecodeError("bad-name", f"the {kind} is empty; expected 1 to {limit} characters")
    if len(name) > limit:
        raise DecodeError(
            "bad-name", f"the {kind} has {len(name)} characters; at most {limit} are allowed"
        )
    if not name.isprintable():
        raise DecodeError("bad-name", f"the {kind} {name!r} has control characters")
    if not slash and "/" in name:
        raise DecodeError("bad-name", f"the {kind} {name!r} has a slash, which separates names")
    return name


class _Index(dict[str, int]):
    """String -> code in order of first appearance."""

    def __missing__(self, name: str) -> int:
        code = self[name] = len(self)
        return code

    def labels(self, codes: Int32) -> Labels:
        return Labels(codes, tuple(self))


class RowBuilder:
    """Collects rows of many messages; :meth:`finish` gives them as columns and starts anew."""

    def __init__(self, metrics: Mapping[str, MetricSpec], max_rows: int) -> None:
        """Make an empty builder.

        :param metrics: the metric catalogue; a metric that is not in it is a number.
        :param max_rows: rows that one message may have.
        """
        self._metrics = metrics
        self._max_rows = max_rows
        self._known: dict[str, MetricSpec | None] = {}
        self._clear()

    def _clear(self) -> None:
        self._tenants, self._sites = _Index(), _Index()
        self._devices, self._names = _Index(), _Index()
        self._runs: list[tuple[int, int, int, int, int, int, int, int]] = []
        self._starts: list[int] = []
        self._metric: list[int] = []
        self._value: list[float] = []
        self._exact: dict[int, int] = {}
        self._text: dict[int, str] = {}
        self._first_row = 0

    def __len__(self) -> int:
        return len(self._value)

    def mark(self) -> tuple[int, int]:
        """Begin a message: return what :meth:`rollback` needs to forget it as a whole."""
        self._first_row = len(self._value)
        return len(self._value), len(self._runs)

    def rollback(self, mark: tuple[int, int]) -> None:
        """Forget all that was added since *mark*."""
        row, run = mark
        del self._value[row:], self._metric[row:], self._runs[run:], self._starts[run:]
        for sparse in (self._exact, self._text):
            for late in [at for at in sparse if at >= row]:
                del sparse[late]

    def begin(
        self,
        source: Source,
        device: str,
        t_ms: int | None,
        received_ms: int,
        *,
        boot: int = ABSENT,
        seq: int = ABSENT,
    ) -> None:
        """Begin rows that share device, time, boot and seq.

        :param device: a checked name.
        :param t_ms: event time; ``None`` takes the time of receipt and says so in the quality.
        """
        self._runs.append(
            (
                self._tenants[source.tenant],
                self._sites[source.site],
                self._devices[device],
                received_ms if t_ms is None else t_ms,
                received_ms,
                TIME_OF_RECEIPT if t_ms is None else 0,
                boot,
                seq,
            )
        )
        self._starts.append(len(self._value))

    def add(self, metric: str, value: object) -> None:
        """Add one reading to the rows begun last.

        Booleans count as 0 and 1.

        :raises DecodeError: ``not-a-number`` (or ``not-an-integer``, ``not-text`` as the metric
            catalogue says) if the value is not of the metric's type, ``integer-too-large`` if
            64 bits do not hold it, ``bad-name``, or ``too-many-fields`` if the message has too
            many rows.
        """
        try:
            spec = self._known[metric]
        except KeyError:
            spec = self._learn(metric)
        kind = type(value)
        if spec is not None and spec.type != "number":
            self._add_declared(metric, spec, value)
        elif kind is float:
            self._append(metric, value)  # type: ignore[arg-type]
        elif kind is int or kind is bool:
            self._add_int(metric, value)  # type: ignore[arg-type]
        else:
            raise DecodeError(
                "not-a-number",
                f"{metric} is {_shown(value)}; expected a number "
                f'(for text, set type = "text" under [metrics."{metric}"])',
            )

    def _learn(self, metric: str) -> MetricSpec | None:
        check_name("metric", metric, slash=True)
        if len(self._known) >= 65_536:
            self._known.clear()
        spec = self._known[metric] = self._metrics.get(metric)
        return spec

    def _append(self, metric: str, value: float) -> None:
        if not math.isfinite(value):
            raise DecodeError("not-a-number", f"{metric} is {value}; expected a finite number")
        if len(self._value) - self._first_row >= self._max_rows:
            raise DecodeError(
                "too-many-fields",
                f"more than {self._max_rows} readings in one message; send several messages",
            )
        self._metric.append(self._names[metric])
        self._value.append(value)

    def _add_int(self, metric: str, value: int) -> None:
        if not -_INT64 <= value < _INT64:
            raise DecodeError(
                "integer-too-large", f"{metric} is {_shown(value)}; 64 bits with a sign hold less"
            )
        if not -_EXACT <= value <= _EXACT:
            self._exact[len(self._value)] = int(value)
        self._append(metric, float(value))

    def _add_declared(self, metric: str, spec: MetricSpec, value: object) -> None:
        if spec.type == "integer":
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if not isinstance(value, int):
                raise DecodeError(
                    "not-an-integer",
                    f"{metric} is {_shown(value)}; the metric catalogue says integer",
                )
            self._add_int(metric, value)
            return
        if not isinstance(value, str):
            raise DecodeError(
                "not-text", f"{metric} is {_shown(value)}; the metric catalogue says text"
            )
        if len(value) > MAX_TEXT:
            raise DecodeError(
                "text-too-long", f"{metric} has {len(value)} characters; at most {MAX_TEXT}"
            )
        self._append(metric, 0.0)
        self._text[len(self._value) - 1] = value
        self._value[-1] = math.nan

    def is_text(self, metric: str) -> bool:
        """Whether the metric catalogue declares *metric* as text."""
        spec = self._metrics.get(metric)
        return spec is not None and spec.type == "text"

    def unit_of(self, metric: str) -> str | None:
        """Return the canonical unit of *metric*, if the catalogue has one."""
        spec = self._metrics.get(metric)
        return None if spec is None else spec.unit

    def finish(self) -> Readings:
        """Return all rows as columns, and start anew."""
        n = len(self._value)
        ends = np.asarray([*self._starts, n], dtype=np.int64)
        runs = np.asarray(self._runs, dtype=np.int64).reshape(-1, 8)
        rows = np.repeat(runs, np.diff(ends), axis=0)
        readings = Readings(
            self._tenants.labels(rows[:, 0].astype(np.int32)),
            self._sites.labels(rows[:, 1].astype(np.int32)),
            self._devices.labels(rows[:, 2].astype(np.int32)),
            self._names.labels(np.asarray(self._metric, dtype=np.int32)),
            np.ascontiguousarray(rows[:, 3]),
            np.ascontiguousarray(rows[:, 4]),
            np.asarray(self._value, dtype=np.float64),
            rows[:, 5].astype(np.uint8),
            np.ascontiguousarray(rows[:, 6]),
            np.ascontiguousarray(rows[:, 7]),
            self._exact,
            self._text,
        )
        self._clear()
        return readings


def check_t_ms(t_ms: int, given: Any) -> int:
    """Return *t_ms* if it lies between the years 1970 and 9999.

    :raises DecodeError: ``bad-time`` if not.
    """
    if not 0 <= t_ms <= MAX_T_MS:
        raise DecodeError(
            "bad-time",
            f"the time {_shown(given)} is outside the years 1970 to 9999; is time_unit right?",
        )
    return t_ms


def _shown(value: object) -> str:
    """A value for a message: its JSON type and a bounded piece of it."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if value is None:
        return "null"
    if isinstance(value, int) and abs(value) >= 10**40:
        return "an integer of more than 40 digits"
    text = repr(value)
    what = "the text " if isinstance(value, str) else ""
    return what + (text if len(text) <= 60 else text[:57] + "...")
