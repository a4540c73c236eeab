"""Settings: :class:`Settings`, its sections, and :func:`load`."""

from streams.settings.broker import Mqtt
from streams.settings.channels import Channel
from streams.settings.commands import Commands
from streams.settings.device_groups import DeviceTag, DeviceType
from streams.settings.edge import Edge, EdgeLocal, EdgeModels, EdgeRing, EdgeSpool, EdgeUplink
from streams.settings.filters import Filter
from streams.settings.intake import Intake
from streams.settings.loader import Settings, config_path, load, named_servers
from streams.settings.routing import Inhibition, Maintenance, Match, Route
from streams.settings.rule_commands import RuleCommand
from streams.settings.rules import Rule
from streams.settings.scoring import Scoring
from streams.settings.sections import (
    Alerts,
    Detection,
    Devices,
    Gateway,
    Influx,
    Log,
    Mapping,
    MetricSpec,
    Ops,
    Rollup,
    RollupProcess,
    Sink,
    Topics,
    TwinPath,
    Twins,
    Webhook,
    Worker,
)
from streams.settings.windows import Window

__all__ = [
    "Alerts",
    "Channel",
    "Commands",
    "Detection",
    "DeviceTag",
    "DeviceType",
    "Devices",
    "Edge",
    "EdgeLocal",
    "EdgeModels",
    "EdgeRing",
    "EdgeSpool",
    "EdgeUplink",
    "Filter",
    "Gateway",
    "Influx",
    "Inhibition",
    "Intake",
    "Log",
    "Maintenance",
    "Mapping",
    "Match",
    "MetricSpec",
    "Mqtt",
    "Ops",
    "Rollup",
    "RollupProcess",
    "Route",
    "Rule",
    "RuleCommand",
    "Scoring",
    "Settings",
    "Sink",
    "Topics",
    "TwinPath",
    "Twins",
    "Webhook",
    "Window",
    "Worker",
    "config_path",
    "load",
    "named_servers",
]
