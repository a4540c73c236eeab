"""JSON messages read as columns, many at once: equal to the row codec, at a tenth of its cost.

Nearly all messages of a fleet are flat objects of numbers under the same few names. Those are
parsed together and read field by field; any other message is left to the row codec
(:mod:`streams.adapters.json_readings`), which alone decides what is refused and why.

Messages are joined by ``SEPARATOR`` into one array, so that one call parses all of them. That
none can reach into its neighbours follows from the separator: its line break is no part of a
string, its ``0`` no member of an object, and no message has a list that could hold it (the text
has one ``[``, our own). So each of the *n - 1* separators is an element of the array, with at
least one value between two of them; *2n - 1* elements then mean exactly one value a message.

A field is only read here where the row codec takes it as it is: no text, no truth value, no
integer that float64 may have rounded, no name given twice (two quotes for each name that is
left, none beyond).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import orjson

from streams.adapters.rows import MAX_T_MS, check_name
from streams.core.readings import ABSENT, Float64, Int64
from streams.errors import DecodeError
from streams.settings import MetricSpec

SEPARATOR = b"\n,0,\n"
TIME, BOOT, SEQ = "t_ms", "boot", "seq"
_LIMITS = {TIME: MAX_T_MS, BOOT: 2**63 - 1, SEQ: 2**63 - 1}
_EXACT = 2.0**53
_NUMBERS = frozenset((int, float))
_FEWEST = 8
"""Messages of one shape below which columns cost more than rows."""
_MAX_SHAPES = 4_096

Item = dict[str, Any]
Shape = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """*m* messages of one shape with *k* metrics, in order.

    ``at`` int64[m] are their places in the batch, ``value`` is float64[m, k], the columns of
    the metrics in the order of the message; ``t_ms``, ``boot`` and ``seq`` are int64[m], or
    ``None`` where the messages do not have them.
    """

    at: Int64
    metrics: Shape
    value: Float64
    t_ms: Int64 | None
    boot: Int64 | None
    seq: Int64 | None


class ColumnReader:
    """Reads JSON messages whose fields have the default names."""

    def __init__(self, metrics: Mapping[str, MetricSpec], max_rows: int) -> None:
        """Make a reader.

        :param metrics: the metric catalogue; what it declares as integer or text is left.
        :param max_rows: rows that one message may have.
        """
        self._catalogue = metrics
        self._max_rows = max_rows
        self._known: dict[Shape, Shape] = {}

    def read(self, payloads: Sequence[bytes | None]) -> list[Block]:
        """Return what can be read as columns; all other messages are left to the row codec."""
        if len(payloads) < _FEWEST:
            return []
        items = _parse([payload or b"" for payload in payloads])
        shape = tuple(items[0])
        if len(self._metrics_of(shape)) == 1 and set(map(len, items)) == {len(shape)}:
            # With one metric, the order of the names in a message tells nothing.
            try:
                return self._blocks(items, {shape: np.arange(len(items))})
            except KeyError:
                pass  # One has other names.
        return self._blocks(items, _by_shape(items))

    def _blocks(self, items: Sequence[Item], places: Mapping[Shape, Int64]) -> list[Block]:
        found = (self._block(shape, items, at) for shape, at in places.items())
        return [block for block in found if block is not None]

    def _block(self, shape: Shape, items: Sequence[Item], at: Int64) -> Block | None:
        metrics = self._metrics_of(shape)
        if not metrics or len(at) < _FEWEST:
            return None
        mine = items if len(at) == len(items) else [items[i] for i in at.tolist()]
        columns = _columns(shape, mine)
        if columns is None:
            kept = [i for i, item in enumerate(mine) if _is_plain(item)]
            at, mine = at[kept], [mine[i] for i in kept]
            columns = _columns(shape, mine) if kept else None
        if columns is None:
            return None
        value = np.stack([columns[name] for name in metrics], axis=1)
        return Block(at, metrics, value, columns.get(TIME), columns.get(BOOT), columns.get(SEQ))

    def _metrics_of(self, shape: Shape) -> Shape:
        """Return the metrics of messages of this shape; none if they are not for columns."""
        metrics = self._known.get(shape)
        if metrics is None:
            if len(self._known) >= _MAX_SHAPES:
                self._known.clear()
            metrics = self._known[shape] = self._judge(shape)
        return metrics

    def _judge(self, shape: Shape) -> Shape:
        metrics = tuple(name for name in shape if name not in _LIMITS)
        if len(metrics) > self._max_rows:
            return ()
        try:
            for name in metrics:
                check_name("metric", name, slash=True)
        except DecodeError:
            return ()
        specs = [self._catalogue.get(name) for name in metrics]
        return metrics if all(s is None or s.type == "number" for s in specs) else ()


def or_absent(column: Int64 | None, n: int) -> Int64:
    """Return *column*, or *n* times ``ABSENT``."""
    return np.full(n, ABSENT, np.int64) if column is None else column


def _parse(payloads: Sequence[bytes]) -> list[Item]:
    """Return one object a message; an empty one where it is none, or has more than numbers."""
    joined = b"[%b]" % SEPARATOR.join(payloads)
    try:
        parsed = orjson.loads(joined)
    except orjson.JSONDecodeError:
        parsed = []
    if len(parsed) == 2 * len(payloads) - 1 and joined.count(b"[") == 1:
        items: list[Item] = parsed[::2]
        if set(map(type, items)) == {dict} and joined.count(b'"') == 2 * sum(map(len, items)):
            return items
    return [_parse_one(payload) for payload in payloads]


def _parse_one(payload: bytes) -> Item:
    try:
        item = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return {}
    return item if type(item) is dict and payload.count(b'"') == 2 * len(item) else {}


def _by_shape(items: Sequence[Item]) -> dict[Shape, Int64]:
    """Return the places of the items by their names, in order."""
    shapes = list(map(tuple, items))
    distinct = dict.fromkeys(shapes)
    if len(distinct) == 1:
        return {shapes[0]: np.arange(len(items))}
    codes = dict(zip(distinct, range(len(distinct)), strict=True))
    code = np.fromiter(map(codes.__getitem__, shapes), np.int64, len(shapes))
    order = np.argsort(code, kind="stable")
    cuts = np.cumsum(np.bincount(code))[:-1]
    return dict(zip(distinct, np.split(order, cuts), strict=True))


def _columns(shape: Shape, items: Sequence[Item]) -> dict[str, Any] | None:
    """Return the columns by name, or ``None`` if a value is none that can be taken as it is."""
    columns: dict[str, Any] = {}
    for name, values in zip(shape, _values(shape, items), strict=True):
        column = _column(name, values)
        if column is None:
            return None
        columns[name] = column
    return columns


def _values(shape: Shape, items: Sequence[Item]) -> Iterable[Sequence[Any]]:
    """Return the values of each name; a KeyError if an item lacks one."""
    if len(shape) == 1:
        return [list(map(itemgetter(shape[0]), items))]
    return zip(*map(itemgetter(*shape), items), strict=True)


def _column(name: str, values: Sequence[Any]) -> Int64 | Float64 | None:
    kinds = set(map(type, values))
    if name not in _LIMITS:
        if not kinds <= _NUMBERS:
            return None
        numbers = np.fromiter(values, np.float64, len(values))
        return numbers if np.abs(numbers).max() < _EXACT else None
    if kinds != {int}:
        return None
    try:
        counts = np.fromiter(values, np.int64, len(values))
    except OverflowError:
        return None
    return counts if counts.min() >= 0 and counts.max() <= _LIMITS[name] else None


def _is_plain(item: Item) -> bool:
    return all(map(_is_plain_value, item, item.values()))


def _is_plain_value(name: str, value: object) -> bool:
    if name in _LIMITS:
        return type(value) is int and 0 <= value <= _LIMITS[name]
    return type(value) in (int, float) and abs(float(value)) < _EXACT  # type: ignore[arg-type]
