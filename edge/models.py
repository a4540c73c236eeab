"""Trained models at an edge: which version a device is to have is a field of its twin.

``desired.models.NAME`` is ``VERSION/SHA256`` of the card. What is not here yet is fetched from the
API, checked against that hash and loaded, while the version before goes on;
``reported.models.NAME`` then says the same. Scoring needs no link.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI, HTTPException
from prometheus_client import Counter

from crdt.core.errors import EditError
from crdt.sqlite_file import LogError
from edge.node import EdgeNode
from models.depot import MAX_FILE_BYTES, Depot, Wanted, wanted
from models.errors import ModelError
from models.reasons import words
from models.shelf import Live
from models.store import CARD, ONNX
from streams.log import get_logger
from streams.settings import EdgeModels as EdgeModelSettings

_log = get_logger(__name__)
_DESIRED, _REPORTED = "desired.models.", "reported.models."
_LOADED = Counter("headwater_edge_models_loaded", "Versions of models that became ready.")
_FAILED = Counter("headwater_edge_models_failed", "Attempts to get or load a version that failed.")
_TIMEOUT_S = 30.0
Fetch = Callable[[Wanted, str], Awaitable[bytes]]
"""Returns a file of a version; raises :class:`ModelError` if it cannot."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a model says of one row of a device; ``why`` is empty while it is as usual."""

    model: str
    version: int
    score: float
    threshold: float
    is_strange: bool
    why: str


class EdgeModels:
    """The models of all devices of a site."""

    def __init__(self, node: EdgeNode, depot: Depot, fetch: Fetch) -> None:
        self._node, self._depot, self._fetch = node, depot, fetch
        self._ready: dict[Wanted, Live] = {}
        self._of_device: dict[tuple[str, str], Wanted] = {}
        self._why_not: dict[Wanted, str] = {}
        self._looked: dict[tuple[str, str], Wanted] = {}

    async def settle(self) -> None:
        """Make what the twins ask for ready, and report it."""
        asked = await self._asked()
        for one in sorted(set(asked.values()), key=str):
            if one not in self._ready:
                await self._get(one)
        for place, one in asked.items():
            if one in self._ready:
                self._of_device[place] = one
                self._report(*place, one)
        for place in self._of_device.keys() - asked.keys():
            del self._of_device[place]
        used = set(self._of_device.values())
        self._ready = {one: live for one, live in self._ready.items() if one in used}
        self._why_not = {o: why for o, why in self._why_not.items() if o in asked.values()}
        self._looked = asked

    def judge(self, device: str, name: str, values: Mapping[str, float]) -> Judgement:
        """Score one row of a device.

        :param values: a number for each feature of the model.
        :raises ModelError: if the device has no such model ready, or features are missing.
        """
        held = self._of_device.get((device, name))
        if held is None:
            raise ModelError(f"{device} has no model {name!r} ready")
        live = self._ready[held]
        missing = [feature for feature in live.card.features if feature not in values]
        if missing:
            raise ModelError(f"{name} needs {', '.join(missing)} as well")
        row = np.asarray([values[feature] for feature in live.card.features], np.float64)
        if not np.isfinite(row).all():
            raise ModelError(f"{name}: a value is not finite")
        score = float(live.scorer.score(row[None])[0])
        strange = score >= live.card.threshold
        why = words(live, row, score) if strange else ""
        return Judgement(name, held.version, score, live.card.threshold, strange, why)

    def live(self, device: str, name: str) -> Live | None:
        """Return the version of a model that is ready for a device."""
        held = self._of_device.get((device, name))
        return None if held is None else self._ready.get(held)

    def status(self) -> list[dict[str, Any]]:
        """Return what is ready for each device, and why not what is asked for."""
        return [
            {
                "device": device,
                "model": name,
                "asked": str(one),
                "ready": self._of_device.get((device, name)) == one,
                "why_not": self._why_not.get(one, ""),
            }
            for (device, name), one in sorted(self._looked.items(), key=lambda item: item[0])
        ]

    async def _asked(self) -> dict[tuple[str, str], Wanted]:
        found: dict[tuple[str, str], Wanted] = {}
        for device in self._node.devices():
            await asyncio.sleep(0)  # Each twin takes a part of a millisecond; others go between.
            fields = (self._node.view(device) or {})["fields"]
            for path, field in fields.items():
                if path.startswith(_DESIRED) and field["value"] is not None:
                    name = path.removeprefix(_DESIRED)
                    try:
                        found[device, name] = wanted(name, field["value"])
                    except ModelError as error:
                        _FAILED.inc()
                        _log.warning("model not heeded", device=device, error=str(error))
        return found

    async def _get(self, one: Wanted) -> None:
        try:
            live = await self._load(one)
        except ModelError as error:
            _FAILED.inc()
            if self._why_not.get(one) != str(error):
                _log.warning("model not ready", model=one.name, version=one.version, why=str(error))
            self._why_not[one] = str(error)
            return
        _LOADED.inc()
        _log.info("model loaded", model=one.name, version=one.version)
        self._ready[one] = live
        self._why_not.pop(one, None)

    async def _load(self, one: Wanted) -> Live:
        try:
            return self._depot.load(one)
        except ModelError:
            card, graph = await self._fetch(one, CARD), await self._fetch(one, ONNX)
            return await asyncio.to_thread(self._depot.put, one, card, graph)

    def _report(self, device: str, name: str, one: Wanted) -> None:
        path = f"{_REPORTED}{name}"
        fields = (self._node.view(device) or {"fields": {}})["fields"]
        if fields.get(path, {}).get("value") == str(one):
            return
        try:
            self._node.edit(device, {path: str(one)}, ())
        except (EditError, LogError) as error:
            _log.warning("not reported", device=device, model=name, error=str(error))


def fetch_from(url: str | None) -> Fetch:
    """Return what fetches files from an API.

    :param url: its address; None where files can only be in the folder already.
    """

    async def fetch(one: Wanted, file: str) -> bytes:
        if url is None:
            raise ModelError(
                f"{one.name} {one.version} is not here, and edge.models.url is not set"
            )
        address = f"{url.rstrip('/')}/v1/models/{one.name}/{one.version}/{file}"
        data = bytearray()
        try:
            async with (
                httpx.AsyncClient(timeout=_TIMEOUT_S) as client,
                client.stream("GET", address) as answer,
            ):
                if answer.is_error:
                    raise ModelError(f"{address} answered {answer.status_code}")
                async for chunk in answer.aiter_bytes():
                    data += chunk
                    if len(data) > MAX_FILE_BYTES:
                        raise ModelError(f"{address}: more than {MAX_FILE_BYTES} bytes")
        except httpx.HTTPError as error:
            raise ModelError(f"{address}: {error!r}") from error
        return bytes(data)

    return fetch


@asynccontextmanager
async def models_running(
    node: EdgeNode, settings: EdgeModelSettings, app: FastAPI
) -> AsyncIterator[EdgeModels]:
    """Keep the models of a node as its twins ask for, and serve them, while the block runs."""
    found = EdgeModels(node, Depot(settings.data, settings.keep), fetch_from(settings.url))
    add_routes(app, found)

    async def follow() -> None:
        while True:
            await found.settle()
            await asyncio.sleep(settings.poll_ms / 1000)

    task = asyncio.create_task(follow(), name="models")
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def add_routes(app: FastAPI, models: EdgeModels) -> None:
    """Add ``GET /v1/models`` and ``POST /v1/devices/{device}/models/{name}``, which scores."""

    @app.get("/v1/models")
    async def status() -> list[dict[str, Any]]:
        return models.status()

    @app.post("/v1/devices/{device}/models/{name}")
    async def judge(device: str, name: str, values: dict[str, float]) -> Judgement:
        try:
            return models.judge(device, name, values)
        except ModelError as error:
            raise HTTPException(409, str(error)) from error
