"""The alerts process: rules on ``anomalies``, and the courier of the outbox."""

from __future__ import annotations

from streams.agents.alerting import make_alerting
from streams.agents.host import HostOptions
from streams.alerts.courier import Courier
from streams.app import AgentSpec, AppSpec, build, run
from streams.log import configure
from streams.settings import Settings
from streams.topics import ANOMALIES


def main(settings: Settings) -> None:
    """Run until SIGTERM; several with the same ``alerts.id`` share the partitions."""
    configure(settings.log, "alerts")
    spec = AppSpec(
        name="alerts",
        id=settings.alerts.id,
        instance_id=settings.alerts.instance_id,
        agents=[AgentSpec(ANOMALIES, make_alerting(settings))],
        ops_port=settings.ops.alerts_port,
        options=HostOptions(settings.alerts.checkpoint_ms, settings.worker.silent_ms),
        companions=[Courier(settings)],
    )
    run(build(spec, settings))
