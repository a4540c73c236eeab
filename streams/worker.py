"""The worker process: agents on ``readings``, ``twin.updates``, ``commands``, and of models."""

from __future__ import annotations

import asyncio
from functools import partial

from streams.adapters.config_log import Documents, begin
from streams.agents.commands import make_commands
from streams.agents.host import HostOptions
from streams.agents.readings import make_readings
from streams.agents.scoring import make_scoring
from streams.agents.twins import make_twins
from streams.app import AgentSpec, AppSpec, build, run
from streams.log import configure
from streams.settings import Settings
from streams.topics import AGGREGATES, COMMANDS, READINGS, TWIN_UPDATES


def main(settings: Settings) -> None:
    """Run a worker until SIGTERM; several with the same ``worker.id`` share the partitions."""
    configure(settings.log, "worker")
    documents = Documents()
    asyncio.run(begin(settings, documents, note=True))
    agents = [
        AgentSpec(
            READINGS,
            make_readings(settings, documents),
            partial(documents.learn, settings.kafka),
        ),
        AgentSpec(TWIN_UPDATES, make_twins(settings)),
        AgentSpec(COMMANDS, make_commands(settings)),
    ]
    if settings.scoring:
        agents.append(AgentSpec(AGGREGATES, make_scoring(settings)))
    spec = AppSpec(
        name="worker",
        id=settings.worker.id,
        instance_id=settings.worker.instance_id,
        agents=agents,
        ops_port=settings.ops.worker_port,
        store=settings.worker.store,
        standbys=settings.worker.standbys,
        options=HostOptions(settings.worker.checkpoint_ms, settings.worker.silent_ms),
    )
    run(build(spec, settings))
