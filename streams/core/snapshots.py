"""The state of devices as a plain mapping of arrays and lists, and back.

Of all devices of a shard, or of some that leave memory. A snapshot names devices, metrics and
sites, never indices of the running engine: inside it, series and devices are numbered from zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from streams.core.aggregates import kept_of
from streams.core.classes import COLUMNS
from streams.core.engine import StreamEngine
from streams.core.identities import pack, unpack
from streams.core.index import ABSENT
from streams.core.points import SITE
from streams.core.readings import Bool, Int32, Int64, Labels, names_at
from streams.core.registry import NEVER
from streams.core.tumbling import TumblingOperator

State = dict[str, Any]


def snapshot(engine: StreamEngine, shard: int) -> State:
    """Return a shard's state and mark the shard clean."""
    engine.dirty_since[shard] = NEVER
    return take(engine, np.flatnonzero(engine.registry.devices["shard"] == shard))


def take(engine: StreamEngine, devices: Int64) -> State:
    """Return the state of some devices, ascending indices."""
    reg = engine.registry
    series = series_of(engine, devices)
    local_series = _numbering(series, reg.series.n)
    mask = local_series >= 0
    key_series, key_t = unpack(engine.identities.snapshot(mask))
    columns = reg.devices.select(devices)
    del columns["tenant"], columns["shard"]
    columns |= {name: columns[name].astype(np.int64) for name in COLUMNS}
    windows = [operator.snapshot(series) for operator in engine.operators]
    return {
        "names": reg.keys_of(devices),
        "devices": columns,
        "late_for": _rows(engine.late_for, devices),
        "definitions": [d.written for d in engine.definitions],
        "sequences": engine.sequences.snapshot(devices),
        "series": {
            "device": _numbering(devices, reg.devices.n)[reg.series["device"][series]],
            "metric": names_at(reg.metrics, reg.series["metric"][series]),
            "max_t_ms": reg.series["max_t_ms"][series],
        },
        "sites": [reg.sites[site] for site in _only_used_sites(windows)],
        "windows": windows,
        "identities": pack(local_series[key_series], key_t),
    }


def series_of(engine: StreamEngine, devices: Int64) -> Int64:
    """Return the series of some devices, ascending: as :func:`take` numbers them."""
    mask = np.zeros(engine.registry.devices.n, np.bool_)
    mask[devices] = True
    return engine.registry.series_of(mask)


def restore(engine: StreamEngine, shard: int, stamp: int, state: State) -> Int32:
    """Add a shard's state to an engine; see :func:`put`.

    :param stamp: offset of the last record folded into it.
    """
    series = put(engine, shard, state)
    engine.stamps[shard] = stamp
    return series


def put(engine: StreamEngine, shard: int, state: State) -> Int32:
    """Add the state of devices of a shard to an engine.

    :returns: int32, the engine's series index of each of the snapshot's series.
    :raises ValueError: if the snapshot was taken with other window definitions.
    """
    _check(state["definitions"], [d.written for d in engine.definitions])
    reg = engine.registry
    device = reg.restore_devices(state["names"], shard)
    reg.expect(max(int(state["devices"][name].max(initial=0)) for name in COLUMNS))
    for name, values in state["devices"].items():
        reg.devices[name][device] = values
    _add_late(engine, device, state["late_for"])
    engine.sequences.restore(device.astype(np.int64), state["sequences"])
    owner = device[state["series"]["device"]]
    metric = Labels.of(state["series"]["metric"])
    series = reg.intern_series(owner, metric, limited=False)
    reg.series["max_t_ms"][series] = state["series"]["max_t_ms"]
    sites = np.asarray([reg.site(name) for name in state["sites"]], np.int32)
    for operator, windows in zip(engine.operators, state["windows"], strict=True):
        operator.restore(windows, series, owner, sites)
    if len(state["identities"]):
        engine.identities.restore(state["identities"], series)
    return series


def take_windows(engine: StreamEngine, windows: State) -> State:
    """Return the state of some windows of one definition by itself, with names of its own.

    :param windows: what the operator has taken out, which is changed.
    """
    rows = windows["windows"]
    series, rows["series"] = np.unique(rows["series"], return_inverse=True)
    rows["series"] = rows["series"].astype(np.int32)
    del rows["device"]
    sites = [engine.registry.sites[site] for site in _only_used_sites([windows])]
    return {"series": series_names(engine, series), "sites": sites, **windows}


def put_windows(
    engine: StreamEngine, operator: TumblingOperator, state: State, series: Int32, some: Bool
) -> None:
    """Add some of the windows of a state that :func:`take_windows` has returned.

    :param series: the engine's index of each of its series.
    """
    if not some.any():
        return
    rows = {name: values[some] for name, values in state["windows"].items()}
    sites = np.asarray([engine.registry.site(name) for name in state["sites"]], np.int32)
    windows = {"windows": rows, "kept": kept_of(state["kept"], some)}
    operator.restore(windows, series, engine.registry.series["device"][series], sites)


def series_names(engine: StreamEngine, series: Int64) -> list[list[str]]:
    """Return tenant, device and metric of each series."""
    reg = engine.registry
    device = reg.series["device"][series].astype(np.int64)
    metric = names_at(reg.metrics, reg.series["metric"][series])
    keys = zip(reg.keys_of(device), metric, strict=True)
    return [[tenant, name, metric] for (tenant, name), metric in keys]


def series_named(engine: StreamEngine, named: Sequence[Sequence[str]]) -> Int32:
    """Return the series of these names, whose devices are here.

    :raises ValueError: if one is not.
    """
    device = np.asarray([engine.registry.find(tenant, name) for tenant, name, _ in named], np.int32)
    if (device == ABSENT).any():
        lost = named[int(device.argmin())]
        raise ValueError(f"a window came back whose device is not here: {lost}")
    metric = Labels.of([metric for _, _, metric in named])
    return engine.registry.intern_series(device, metric, limited=False)


def _only_used_sites(windows: list[State]) -> list[int]:
    """Number the sites in the states of windows from zero; return those that are there."""
    used = [found for state in windows for found in _sites_in(state)]
    sites = np.unique(np.concatenate([np.empty(0, np.int64), *used]))
    for found in used:
        found[:] = np.searchsorted(sites, found)
    return [int(site) for site in sites]


def _sites_in(state: State) -> Iterator[np.ndarray[Any, Any]]:
    """Yield views of the sites in the state of one operator."""
    for part in state.values():
        if isinstance(part, dict) and "site" in part:
            yield part["site"]
    if "block" in state:
        yield state["block"][SITE]


def _check(written: list[str], wanted: list[str]) -> None:
    if written != wanted:
        changed = sorted(set(written) ^ set(wanted))
        raise ValueError(
            f"the state was written with other windows than the settings define: {changed}; "
            "set them back, or start a new worker id, which reads the log again"
        )


def _numbering(kept: np.ndarray[Any, Any], n: int) -> Int32:
    local = np.full(n, -1, np.int32)
    local[kept] = np.arange(len(kept), dtype=np.int32)
    return local


def _rows(table: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    out = np.zeros((len(rows), table.shape[1]), np.int64)
    held = rows < len(table)
    out[held] = table[rows[held]]
    return out


def _add_late(engine: StreamEngine, device: Int32, late: np.ndarray[Any, Any]) -> None:
    n = engine.registry.devices.n
    if len(engine.late_for) < n:
        grown = np.zeros((n, late.shape[1]), np.int64)
        grown[: len(engine.late_for)] = engine.late_for
        engine.late_for = grown
    engine.late_for[device] = late
