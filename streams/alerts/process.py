"""The alerts process: rules on ``anomalies`` and ``aggregates``, and the courier of the outbox."""

from __future__ import annotations

import asyncio

from streams.adapters.config_log import Documents, begin
from streams.agents.alerting import make_alerting
from streams.agents.grouping import make_grouping
from streams.agents.host import HostOptions
from streams.agents.peers import make_peers
from streams.agents.window_alerting import make_window_alerting
from streams.alerts.courier import Courier
from streams.app import AgentSpec, AppSpec, build, run
from streams.log import configure
from streams.settings import Settings
from streams.topics import AGGREGATES, ALERT_GROUPS, ALERT_PEERS, ANOMALIES


def main(settings: Settings) -> None:
    """Run until SIGTERM; several with the same ``alerts.id`` share the partitions."""
    configure(settings.log, "alerts")
    agents = [AgentSpec(ANOMALIES, make_alerting(settings))]
    if not all(rule.on_scores for rule in settings.rules):
        in_force = asyncio.run(begin(settings, Documents()))
        agents.append(AgentSpec(AGGREGATES, make_window_alerting(in_force)))
    if any(rule.among is not None for rule in settings.rules):
        agents.append(AgentSpec(ALERT_PEERS, make_peers(in_force)))
    if settings.routes:
        agents.append(AgentSpec(ALERT_GROUPS, make_grouping(settings)))
    spec = AppSpec(
        name="alerts",
        id=settings.alerts.id,
        instance_id=settings.alerts.instance_id,
        agents=agents,
        ops_port=settings.ops.alerts_port,
        options=HostOptions(settings.alerts.checkpoint_ms, settings.worker.silent_ms),
        companions=[Courier(settings)],
    )
    run(build(spec, settings))
