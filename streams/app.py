"""Wires real parts: a Faust app with the record-batch transport, its logics and its services."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import faust
import mode
from fastapi import FastAPI

from streams import collector
from streams.adapters import rocks_store
from streams.adapters.shard_table import CHANGELOG_CONFIG, ShardTable
from streams.agents.host import BeforeFold, HostOptions, PartitionHost
from streams.log import get_logger
from streams.ops import ops_app, serve
from streams.ports import LogicFactory
from streams.settings import Settings

_log = get_logger(__name__)
STORES = {"memory": "memory://", "rocksdb": "headwater-rocksdb://"}


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """One logic on one topic; its state goes to the table ``<topic>-state``."""

    topic: str
    factory: LogicFactory
    before_fold: BeforeFold | None = None
    """Awaited with the records that are about to be folded."""


@dataclass(frozen=True, slots=True)
class AppSpec:
    """A process built on Faust."""

    name: str
    id: str
    instance_id: str | None
    agents: Sequence[AgentSpec]
    ops_port: int
    options: HostOptions
    store: str = "memory"
    standbys: int = 0
    companions: Sequence[Companion] = ()
    views: Sequence[Callable[[FastAPI], None]] = ()
    """What adds pages to those of health and metrics."""


class Companion(Protocol):
    """Something that runs in the same process, such as the courier of the alerts process."""

    async def start(self) -> None:
        """Start; returns when it works."""
        ...

    async def stop(self) -> None:
        """Stop; returns when all is put away."""
        ...

    def ready(self) -> tuple[bool, str]:
        """Whether it can do its work now, and why not."""
        ...


class HeadwaterApp(faust.App):
    """A Faust app that knows which topics are delivered as batches."""

    batch_topics: frozenset[str] = frozenset()


def build(spec: AppSpec, settings: Settings) -> HeadwaterApp:
    """Return the app, with its agents, tables and companions attached."""
    worker = settings.worker
    app = HeadwaterApp(
        spec.id,
        broker=f"headwater://{settings.kafka.replace(',', ';')}",
        store=STORES[spec.store],
        datadir=str(settings.state / "-".join(filter(None, (spec.id, spec.instance_id)))),
        topic_partitions=settings.topics.partitions,
        topic_replication_factor=settings.topics.replication,
        table_standby_replicas=spec.standbys,
        consumer_group_instance_id=spec.instance_id,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=10.0,
        broker_heartbeat_interval=2.0,
        broker_max_poll_records=worker.max_poll_records,
        stream_buffer_maxsize=worker.buffer_batches,
        producer_max_request_size=2_097_152,
        web_enabled=False,
        topic_disable_leader=True,
        stream_wait_empty=False,
    )
    app.batch_topics = frozenset(agent.topic for agent in spec.agents)
    hosts = [_attach(app, agent, spec.options, settings) for agent in spec.agents]
    app.service(_ops_service(app, spec, settings, hosts))
    return app


def _attach(
    app: HeadwaterApp, agent: AgentSpec, options: HostOptions, settings: Settings
) -> PartitionHost:
    """Put a logic behind a Faust agent."""
    table = ShardTable(
        app,
        name=f"{agent.topic}-state",
        key_type=bytes,
        value_type=bytes,
        partitions=settings.topics.partitions,
        extra_topic_configs=dict(CHANGELOG_CONFIG),
        options=dict(rocks_store.OPTIONS),
    )
    app.tables.add(table)
    host = PartitionHost(
        app, agent.topic, agent.factory, table, options, before_fold=agent.before_fold
    )
    source = app.topic(
        agent.topic,
        value_type=bytes,
        value_serializer="raw",
        key_serializer="raw",
        acks=True,
        internal=False,
    )

    async def run(stream: Any) -> None:
        try:
            async for event in stream.noack().events():
                await host.take(event)
        except Exception as error:
            # Faust would start the agent again behind the batch that failed, and lose it.
            _log.error("the agent failed", topic=agent.topic, error=repr(error))
            await app.crash(error)
            raise

    app.agent(source, name=f"on-{agent.topic}")(run)
    app.on_partitions_revoked.connect(_forgetting(host), weak=False)
    return host


def _forgetting(host: PartitionHost) -> Callable[..., Any]:
    async def on_revoked(*_: Any, **__: Any) -> None:
        host.forget()

    return on_revoked


def _ops_service(
    app: HeadwaterApp, spec: AppSpec, settings: Settings, hosts: Sequence[PartitionHost]
) -> type[mode.Service]:
    """Return a service that serves health and metrics, ticks the hosts and runs companions."""

    def ready() -> tuple[bool, str]:
        if app.rebalancing or app.in_recovery:
            return False, "partitions are being assigned or restored"
        for companion in spec.companions:
            ok, why = companion.ready()
            if not ok:
                return ok, why
        return True, ""

    class Ops(mode.Service):
        async def on_start(self) -> None:
            web = ops_app(ready)
            for add in spec.views:
                add(web)
            await self.add_async_context(serve(web, settings.ops.host, spec.ops_port))
            for companion in spec.companions:
                await companion.start()
            collector.settle()

        @mode.Service.task
        async def _tick(self) -> None:
            pause_s = min(spec.options.checkpoint_ms, spec.options.silent_ms) / 2000
            while not self.should_stop:
                await self.sleep(pause_s)
                if not (app.rebalancing or app.in_recovery):
                    for host in hosts:
                        await host.tick()

        async def on_stop(self) -> None:
            for host in hosts:
                host.close()
            for companion in spec.companions:
                await companion.stop()

    return Ops


class _Worker(faust.Worker):
    def _setup_logging(self) -> None:
        """Leave logging as :mod:`streams.log` has set it up."""


def run(app: HeadwaterApp) -> None:
    """Run the app until SIGTERM or SIGINT; exits the process."""
    worker = _Worker(app, redirect_stdouts=False, override_logging=False)
    worker.execute_from_commandline()
    sys.exit(0)


__all__ = ["AgentSpec", "AppSpec", "Companion", "HeadwaterApp", "build", "run"]
