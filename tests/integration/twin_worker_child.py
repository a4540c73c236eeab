"""A worker with the twins alone, and the bridge: what the worker and gateway processes run."""

from __future__ import annotations

import asyncio
import sys

from streams.agents.host import HostOptions
from streams.agents.twins import make_twins
from streams.app import AgentSpec, AppSpec, build, run
from streams.gateway.twin_bridge import run_twin_bridge
from streams.log import configure
from streams.settings import Settings, load
from streams.topics import TWIN_UPDATES


def worker(settings: Settings) -> None:
    spec = AppSpec(
        name="twins",
        id=settings.worker.id,
        instance_id=settings.worker.instance_id,
        agents=[AgentSpec(TWIN_UPDATES, make_twins(settings))],
        ops_port=settings.ops.worker_port,
        options=HostOptions(settings.worker.checkpoint_ms, settings.worker.silent_ms),
    )
    run(build(spec, settings))


if __name__ == "__main__":
    settings = load()
    configure(settings.log, sys.argv[1])
    if sys.argv[1] == "worker":
        worker(settings)
    else:
        asyncio.run(run_twin_bridge(settings, asyncio.Event()))
