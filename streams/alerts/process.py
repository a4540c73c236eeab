"""The alerts process: rules on ``anomalies`` and ``aggregates``, and the courier of the outbox."""

from __future__ import annotations

import asyncio
from functools import partial

from streams.adapters.config_log import Documents, begin
from streams.agents.alerting import make_alerting
from streams.agents.edge_alerting import make_edge_alerting
from streams.agents.grouping import make_grouping
from streams.agents.host import HostOptions
from streams.agents.peers import make_peers
from streams.agents.window_alerting import make_window_alerting
from streams.alerts.courier import Courier
from streams.alerts.outbox_http import show_outbox
from streams.app import AgentSpec, AppSpec, build, run
from streams.log import configure
from streams.settings import Settings
from streams.topics import AGGREGATES, ALERT_GROUPS, ALERT_PEERS, ANOMALIES, EDGE_ALERTS


def main(settings: Settings) -> None:
    """Run until SIGTERM; several with the same ``alerts.id`` share the partitions."""
    configure(settings.log, "alerts")
    documents = Documents()
    asyncio.run(begin(settings, documents))
    makers = {
        ANOMALIES: make_alerting,
        AGGREGATES: make_window_alerting,
        ALERT_PEERS: make_peers,
        ALERT_GROUPS: make_grouping,
        EDGE_ALERTS: make_edge_alerting,
    }
    learn = partial(documents.learn, settings.kafka)
    agents = [AgentSpec(topic, make(settings, documents), learn) for topic, make in makers.items()]
    courier = Courier(settings)
    spec = AppSpec(
        name="alerts",
        id=settings.alerts.id,
        instance_id=settings.alerts.instance_id,
        agents=agents,
        ops_port=settings.ops.alerts_port,
        options=HostOptions(settings.alerts.checkpoint_ms, settings.worker.silent_ms),
        companions=[courier],
        views=[show_outbox(courier.about)],
    )
    run(build(spec, settings))
