"""The one settings object: ``headwater.toml``, overridden by environment variables.

Every field can be set as ``HEADWATER_`` + path with ``__`` between the levels, for example
``HEADWATER_GATEWAY__LINGER_MS=5``. The file is ``./headwater.toml`` or ``$HEADWATER_CONFIG``.
Addresses come, in this order, from the environment, the file, the servers that
``headwater services up`` has started, and the servers' usual ports on loopback.
"""

from __future__ import annotations

import hashlib
import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from streams.errors import SettingsError
from streams.extensions import AGGREGATES, CODECS, DETECTORS, Installed, require
from streams.settings.addresses import AddressError, Broker, InfluxServer
from streams.settings.broker import Mqtt
from streams.settings.channels import Channel
from streams.settings.commands import Commands
from streams.settings.device_groups import DeviceTag, DeviceType
from streams.settings.edge import Edge
from streams.settings.filters import Filter
from streams.settings.intake import Intake
from streams.settings.plugged import OWN_AGGREGATE, check_installed
from streams.settings.routing import Inhibition, Maintenance, Route, check_routing
from streams.settings.rules import Rule, check_rules
from streams.settings.scoring import Scoring, check_scoring
from streams.settings.sections import (
    Alerts,
    Detection,
    Devices,
    Gateway,
    Influx,
    LocatedError,
    Log,
    Mapping,
    MetricSpec,
    Name,
    Ops,
    Rollup,
    RollupProcess,
    Sink,
    Topics,
    Twins,
    Webhook,
    Worker,
)
from streams.settings.windows import Window
from streams.toml_lines import TomlFile, read_toml

_SERVERS = ("kafka", "mqtt", "influx")


class Settings(BaseSettings):
    """All settings of Headwater."""

    model_config = SettingsConfigDict(
        env_prefix="HEADWATER_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    kafka: str = "127.0.0.1:9092"
    """Bootstrap servers, ``host:port[,host:port]``."""
    mqtt: Broker = "mqtt://127.0.0.1:1883"
    """``mqtt://host:port`` or ``mqtts://host:port``."""
    influx: InfluxServer = "http://127.0.0.1:8086"
    """Address of InfluxDB."""
    lake: Path = Path(".headwater/lake")
    """Folder of the Delta tables."""
    models: Path = Path(".headwater/models")
    """Folder of trained models, which ``headwater train`` fills."""
    state: Path = Path(".headwater")
    """Where local servers and small files of this clone live."""

    codecs: list[Name] = []
    """Codecs of other packages that payloads and records are recognised as, in this order, after
    Headwater's own; a package adds one under ``headwater.codecs``."""
    topics: Topics = Topics()
    broker: Mqtt = Mqtt()
    gateway: Gateway = Gateway()
    intake: Intake = Intake()
    mappings: list[Mapping] = []
    metrics: dict[str, MetricSpec] = {}
    types: list[DeviceType] = []
    tags: list[DeviceTag] = []
    devices: Devices = Devices()
    windows: list[Window] = [Window(name="1m", size_ms=60_000)]
    rollups: list[Rollup] = [
        Rollup(name="site", group="site"),
        Rollup(name="tenant", group="tenant"),
        Rollup(name="type", group="type"),
    ]
    rollup: RollupProcess = RollupProcess()
    detection: Detection = Detection()
    scoring: list[Scoring] = []
    worker: Worker = Worker()
    sink: Sink = Sink()
    influxdb: Influx = Influx()
    rules: list[Rule] = [Rule(name="anomaly")]
    webhooks: list[Webhook] = []
    channels: list[Channel] = []
    routes: list[Route] = []
    inhibitions: list[Inhibition] = []
    maintenance: list[Maintenance] = []
    alerts: Alerts = Alerts()
    twins: Twins = Twins()
    commands: Commands = Commands()
    edge: Edge = Edge()
    filters: list[Filter] = []
    ops: Ops = Ops()
    log: Log = Log()

    @field_validator("codecs")
    @classmethod
    def _are_codecs(cls, codecs: list[str]) -> list[str]:
        return [check_installed(CODECS, name) for name in codecs]

    @model_validator(mode="after")
    def _unique_names(self) -> Settings:
        for what in (
            *("windows", "rollups", "types", "tags", "scoring", "rules"),
            *("webhooks", "channels"),
            *("routes", "inhibitions", "maintenance"),
        ):
            names = [item.name for item in getattr(self, what)]
            for at, name in enumerate(names):
                if name in names[:at]:
                    raise LocatedError((what, at, "name"), f"the name {name!r} is used twice")
        both = {hook.name for hook in self.webhooks} & {way.name for way in self.channels}
        if both:
            raise ValueError(f"channels: {min(both)!r} is the name of a webhook, too")
        return self

    @model_validator(mode="after")
    def _windows_of_rollups(self) -> Settings:
        names = [window.name for window in self.windows]
        sliding = [window.name for window in self.windows if window.kind == "sliding"]
        for at, rollup in enumerate(self.rollups):
            for glob in rollup.windows:
                if not any(fnmatchcase(name, glob) for name in names):
                    raise LocatedError(
                        ("rollups", at, "windows"),
                        f"{rollup.name!r} names the window {glob!r}, expected one of "
                        f"{', '.join(names) or 'none'}",
                    )
                if glob in sliding:
                    raise LocatedError(
                        ("rollups", at, "windows"),
                        f"{rollup.name!r} names the sliding window {glob!r}: its windows end at "
                        "the readings of one device, so there is nothing to fold",
                    )
        return self

    @model_validator(mode="after")
    def _what_rules_name(self) -> Settings:
        late_ms = self.devices.disorder_ms + self.devices.idle_ms
        named = {"types": [t.name for t in self.types], "tags": [t.name for t in self.tags]}
        check_rules(self.rules, self.windows, late_ms, named)
        check_scoring(self.scoring, self.windows)
        check_routing(
            self.routes,
            self.inhibitions,
            self.maintenance,
            [*(hook.name for hook in self.webhooks), *(way.name for way in self.channels)],
            [rule.name for rule in self.rules],
        )
        return self

    @model_validator(mode="after")
    def _filters_have_what_they_need(self) -> Settings:
        for at, one in enumerate(self.filters):
            if one.is_windowed and not self.windows:
                raise LocatedError(
                    ("filters", at, "mode"), f"mode {one.mode!r} needs at least one of [[windows]]"
                )
            least = self.detection.emit_score
            if one.score_over is not None and one.score_over < least:
                raise LocatedError(
                    ("filters", at, "score_over"),
                    f"{one.score_over:g} is below detection.emit_score, {least:g}: "
                    "lower scores are not told",
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first, then what :func:`load` passes from the file."""
        return env_settings, init_settings

    def fingerprint(self, *more: str) -> str:
        """Hash of what decides results, 12 hex digits: windows, devices, detection, metrics, and
        the versions of the packages that bring codecs, aggregates and the detector in use.

        :param more: further sections that do.
        """
        deciding = self.model_dump(
            mode="json", include={"windows", "devices", "detection", "metrics", "topics", *more}
        )
        brought = [f"{one.group} {one.name} {one.package} {one.version}" for one in self._foreign()]
        if brought:
            deciding["extensions"] = brought
        return hashlib.sha256(orjson.dumps(deciding, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]

    def _foreign(self) -> list[Installed]:
        """Return what other packages bring that decides results."""
        aggregates = {name for window in self.windows for name in window.aggregates}
        used = [(CODECS, name) for name in self.codecs]
        used += [
            (AGGREGATES, name) for name in sorted(aggregates) if not OWN_AGGREGATE.fullmatch(name)
        ]
        used.append((DETECTORS, self.detection.detector))
        found = [require(group, name) for group, name in used]
        return [one for one in found if not one.is_ours]


def config_path() -> Path:
    """Return where the settings file is looked for."""
    return Path(os.environ.get("HEADWATER_CONFIG", "headwater.toml"))


def load(path: Path | None = None) -> Settings:
    """Load and check the settings.

    :param path: the file; default :func:`config_path`. A missing default file means defaults.
    :raises SettingsError: if the file is not TOML, or a value is not what it should be; the
        message lists every offence with file and line.
    """
    wanted = path or config_path()
    if not wanted.exists():
        if path is not None or "HEADWATER_CONFIG" in os.environ:
            raise SettingsError(f"{wanted}: no such file (HEADWATER_CONFIG or --config names it)")
        toml = TomlFile(wanted, {}, {})
    else:
        toml = read_toml(wanted)
    values = {**_local_services(toml.values), **toml.values}
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(explain_offences(error, toml)) from error


def named_servers() -> dict[str, str]:
    """Return the addresses of existing servers that the environment or the file names.

    :raises SettingsError: if the file is not TOML.
    """
    path = config_path()
    values = read_toml(path).values if path.exists() else {}
    named = {
        name: os.environ.get(f"HEADWATER_{name.upper()}") or values.get(name) for name in _SERVERS
    }
    return {name: str(address) for name, address in named.items() if address}


def _local_services(file_values: dict[str, Any]) -> dict[str, Any]:
    """Addresses of the servers that ``headwater services up`` started in this clone."""
    state = Path(os.environ.get("HEADWATER_STATE") or file_values.get("state", ".headwater"))
    found = state / "services.json"
    if not found.exists():
        return {}
    running = orjson.loads(found.read_bytes())
    return {name: running[name] for name in _SERVERS if name in running}


def explain_offences(error: ValidationError, toml: TomlFile) -> str:
    """Return a line for every offence, each with its place in the file."""
    lines = []
    for problem in error.errors():
        cause = problem.get("ctx", {}).get("error")
        below = cause.path if isinstance(cause, LocatedError) else ()
        path = (*problem["loc"], *below)
        dotted = ".".join(str(part) for part in path) or "settings"
        given = problem.get("input")
        hides = isinstance(cause, AddressError) or isinstance(given, dict | list | Settings)
        shown = "" if hides else f" (found {given!r})"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message, shown = "unknown setting; check the spelling against docs/settings", ""
        lines.append(f"{toml.where(path)}: {dotted}: {message}{shown}")
    return "\n".join(lines)
