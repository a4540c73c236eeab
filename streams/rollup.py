"""The rollup process: both stages of roll-ups, in a consumer group of their own."""

from __future__ import annotations

import asyncio
from functools import partial

from streams.adapters.config_log import Documents, begin
from streams.agents.host import HostOptions
from streams.agents.rollups import make_groups, make_partials
from streams.app import AgentSpec, AppSpec, build, run
from streams.log import configure
from streams.settings import Settings
from streams.topics import AGGREGATES, ROLLUPS_PARTIAL


def main(settings: Settings) -> None:
    """Run until SIGTERM; several with the same ``rollup.id`` share the partitions."""
    configure(settings.log, "rollup")
    documents = Documents()
    settings = asyncio.run(begin(settings, documents))
    learn = partial(documents.learn, settings.kafka)
    spec = AppSpec(
        name="rollup",
        id=settings.rollup.id,
        instance_id=settings.rollup.instance_id,
        agents=[
            AgentSpec(AGGREGATES, make_partials(settings, documents), learn),
            AgentSpec(ROLLUPS_PARTIAL, make_groups(settings, documents), learn),
        ],
        ops_port=settings.ops.rollup_port,
        options=HostOptions(settings.rollup.checkpoint_ms, settings.worker.silent_ms),
    )
    run(build(spec, settings))
