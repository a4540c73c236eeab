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
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from streams.errors import SettingsError
from streams.toml_lines import TomlFile, read_toml

Ms = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values do not change after load."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Topics(Section):
    """Kafka topics: counts are fixed when the topics are made and checked at every start."""

    partitions: Annotated[int, Field(gt=0, le=1024)] = 4
    shards: Annotated[int, Field(gt=0, le=256)] = 8
    replication: Annotated[int, Field(gt=0, le=9)] = 1
    retention_hours: Positive = 168


class Mqtt(Section):
    """How to log in to the MQTT broker. The address is the top-level ``mqtt``."""

    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: Positive = 30


class Mapping(Section):
    """From an MQTT topic to devices and metrics.

    ``topic`` is an MQTT filter whose levels may be ``{tenant}``, ``{site}``, ``{device}`` or
    ``{metric}`` (one level each), ``+`` or a final ``#``. What the topic does not name is
    given by the fields of the same name; they may also use the captured names.
    """

    topic: str
    tenant: str = "default"
    site: str = "default"
    device: str = "{device}"
    metric: str = "{metric}"
    format: Literal["auto", "json", "senml", "number", "frame"] = "auto"
    time: Literal["payload", "receipt"] = "payload"
    time_field: str = "t_ms"
    time_unit: Literal["ms", "s", "us", "ns"] = "ms"
    seq_field: str = "seq"
    boot_field: str = "boot"
    device_field: str | None = None
    """A field of a JSON payload that names the device, where the topic does not."""


class Gateway(Section):
    """The gateway: MQTT to Kafka."""

    group: Name = "gateway"
    client_id: Name | None = None
    """Stable across restarts, so that the broker keeps the session; default: gateway-HOSTNAME."""
    linger_ms: Ms = 20
    max_rows: Positive = 10_000
    receive_maximum: Annotated[int, Field(gt=0, le=65_535)] = 2_000
    max_payload_bytes: Positive = 262_144
    max_rejected_bytes: Positive = 65_536
    max_buffered_bytes: Positive = 67_108_864
    """Payloads taken and not yet confirmed by Kafka; beyond it the gateway stops reading."""
    session_expiry_s: Positive = 86_400


class MetricSpec(Section):
    """One entry of the metric catalogue: ``[metrics.NAME]``."""

    type: Literal["number", "integer", "text"] = "number"
    unit: str | None = None
    """Canonical unit; units of payloads are converted to it where a conversion is known."""


class Devices(Section):
    """Event time and identity of devices."""

    disorder_ms: Ms = 0
    """A device's watermark is its greatest event time less this."""
    skew_ms: Ms = 300_000
    """A reading further in the future of its receipt than this is quarantined."""
    idle_ms: Positive = 60_000
    """Log time without a reading after which a device's open windows are emitted as provisional."""
    idle_final_ms: Positive = 600_000
    """Log time without a reading after which they are closed with reason ``idle``."""
    max_seq_holes: Positive = 1_024
    max_identities: Positive = 1_000_000
    """Per shard: remembered (metric, time) identities of readings without a seq."""


class Window(Section):
    """A tumbling window definition."""

    name: Name
    metrics: list[str] = ["*"]
    """Globs over metric names."""
    size_ms: Positive
    offset_ms: Ms = 0
    grace_ms: Ms = 0
    """How far the watermark must pass the end before revision 0 is emitted."""
    horizon_ms: Ms = 3_600_000
    """How long after grace corrections are accepted; beyond it readings are late."""


class Detection(Section):
    """The causal detector that scores every accepted reading."""

    metrics: list[str] = ["*"]
    half_life: Positive = 576
    """Readings after which an observation has half its weight in the spread."""
    warmup: Positive = 64
    """Readings of a series before it is scored."""
    emit_score: Annotated[float, Field(gt=0)] = 4.0
    """Scores from here on are written to ``anomalies``, and the first below."""
    min_spread: Annotated[float, Field(ge=0)] = 1e-9

    def watches(self, metric: str) -> bool:
        """Whether a metric is scored."""
        return any(fnmatchcase(metric, glob) for glob in self.metrics)


class Worker(Section):
    """The Faust worker."""

    id: Name = "headwater-worker"
    instance_id: Name | None = None
    """Kafka's static membership: a stable name per worker process brings it back in seconds."""
    checkpoint_ms: Positive = 1_000
    silent_ms: Positive = 1_000
    """Silence at a partition's end after which it gets a time marker, if something waits."""
    buffer_batches: Positive = 64
    """Batches a partition may have waiting before its fetching pauses."""
    max_poll_records: Positive = 2_000
    store: Literal["memory"] = "memory"


class Sink(Section):
    """The sink process: from Kafka into InfluxDB and the lake."""

    targets: list[Literal["influx", "lake"]] = ["influx", "lake"]
    batch_rows: Positive = 5_000
    flush_ms: Positive = 1_000
    lake_flush_ms: Positive = 10_000
    retry_min_ms: Positive = 200
    retry_max_ms: Positive = 30_000
    max_buffered_rows: Positive = 200_000


class Influx(Section):
    """How to log in to InfluxDB. The address is the top-level ``influx``."""

    org: str = "-"
    bucket: str = "headwater/autogen"
    token_file: Path | None = None
    timeout_ms: Positive = 10_000


class Rule(Section):
    """An alert rule."""

    name: Name
    kind: Literal["anomaly"] = "anomaly"
    score_over: Annotated[float, Field(gt=0)] = 5.0
    hold_ms: Ms = 0
    """The score must stay over the bound this long, in event time, before the alert fires."""
    resolve_ms: Ms = 60_000
    """The score must stay below the bound this long before the alert resolves."""
    severity: Literal["info", "warning", "critical"] = "warning"
    tenants: list[str] = ["*"]
    sites: list[str] = ["*"]
    devices: list[str] = ["*"]
    metrics: list[str] = ["*"]


class Webhook(Section):
    """An endpoint that receives alerts, signed after Standard Webhooks 1.0."""

    name: Name
    url: str
    secret_file: Path
    """A file with the signing secret (``whsec_...``); ``headwater webhooks secret`` makes one."""
    allow_private: bool = False
    """Allow an address that is not public, or plain http: for receivers in your own network."""
    timeout_ms: Positive = 10_000
    tenants: list[str] = ["*"]

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if not url.startswith(("https://", "http://")):
            raise ValueError("expected an address that starts with https:// (or http://)")
        return url

    @model_validator(mode="after")
    def _https_unless_private(self) -> Webhook:
        if self.url.startswith("http://") and not self.allow_private:
            raise ValueError(
                "plain http needs allow_private = true; use https:// outside your own network"
            )
        return self

    def takes(self, tenant: str) -> bool:
        """Whether alerts of a tenant go to this endpoint."""
        return any(fnmatchcase(tenant, glob) for glob in self.tenants)


class Alerts(Section):
    """The alerts process."""

    id: Name = "headwater-alerts"
    instance_id: Name | None = None
    checkpoint_ms: Positive = 1_000
    concurrency: Positive = 16
    retry_min_ms: Positive = 500
    retry_max_ms: Positive = 3_600_000
    give_up_hours: Positive = 72
    max_outbox: Positive = 100_000


class TwinPath(Section):
    """Kind and policy of the twin fields that a glob matches; the first match counts."""

    path: str
    kind: Literal["register"] = "register"
    policy: Literal["latest", "edge-wins", "cloud-wins", "min", "max", "keep-all"] = "latest"


class Twins(Section):
    """Device twins."""

    paths: list[TwinPath] = []
    max_fields: Positive = 512
    max_value_bytes: Positive = 65_536
    max_bytes: Positive = 262_144
    """All values of a twin together; a sync message must fit into a Kafka record."""
    max_ledger_bytes: Positive = 131_072
    """Conflicts kept per device, the newest."""
    skew_ms: Ms = 300_000
    ledger_days: Positive = 90
    max_live: Positive = 1_024
    """Twins of a partition kept ready as Docs; the others wait as bytes."""


class Edge(Section):
    """One edge node: a site."""

    tenant: str = "default"
    site: str = "default"
    data: Path = Path(".headwater/edge")
    devices: list[str] = []
    """Devices whose twins are synced from the start; any that is edited here is added."""
    retry_min_ms: Positive = 200
    retry_max_ms: Positive = 30_000


class Ops(Section):
    """Health and metrics of each process: ``/healthz``, ``/readyz``, ``/metrics``."""

    host: str = "127.0.0.1"
    gateway_port: int = 8101
    worker_port: int = 8102
    sink_port: int = 8103
    alerts_port: int = 8104
    api_port: int = 8105
    edge_port: int = 8106


class Log(Section):
    """Logging."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    json_lines: bool | None = None
    """Default: JSON unless the log goes to a terminal."""


class Settings(BaseSettings):
    """All settings of Headwater."""

    model_config = SettingsConfigDict(
        env_prefix="HEADWATER_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    kafka: str = "127.0.0.1:9092"
    """Bootstrap servers, ``host:port[,host:port]``."""
    mqtt: str = "mqtt://127.0.0.1:1883"
    """``mqtt://host:port`` or ``mqtts://host:port``."""
    influx: str = "http://127.0.0.1:8086"
    lake: Path = Path(".headwater/lake")
    state: Path = Path(".headwater")
    """Where local servers and small files of this clone live."""

    topics: Topics = Topics()
    broker: Mqtt = Mqtt()
    gateway: Gateway = Gateway()
    mappings: list[Mapping] = []
    metrics: dict[str, MetricSpec] = {}
    devices: Devices = Devices()
    windows: list[Window] = [Window(name="1m", size_ms=60_000)]
    detection: Detection = Detection()
    worker: Worker = Worker()
    sink: Sink = Sink()
    influxdb: Influx = Influx()
    rules: list[Rule] = [Rule(name="anomaly")]
    webhooks: list[Webhook] = []
    alerts: Alerts = Alerts()
    twins: Twins = Twins()
    edge: Edge = Edge()
    ops: Ops = Ops()
    log: Log = Log()

    @field_validator("mqtt")
    @classmethod
    def _mqtt_address(cls, address: str) -> str:
        return address if "://" in address else f"mqtt://{address}"

    @field_validator("influx")
    @classmethod
    def _influx_address(cls, address: str) -> str:
        return address if "://" in address else f"http://{address}"

    @model_validator(mode="after")
    def _unique_names(self) -> Settings:
        for what in ("windows", "rules", "webhooks"):
            names = [item.name for item in getattr(self, what)]
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"{what}: the name {sorted(twice)[0]!r} is used twice")
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

    def fingerprint(self) -> str:
        """Hash of what decides results (windows, devices, detection, metrics), 12 hex digits."""
        deciding = self.model_dump(
            mode="json", include={"windows", "devices", "detection", "metrics", "topics"}
        )
        return hashlib.sha256(orjson.dumps(deciding, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]


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
        raise SettingsError(_explain(error, toml)) from error


def _local_services(file_values: dict[str, Any]) -> dict[str, Any]:
    """Addresses of the servers that ``headwater services up`` started in this clone."""
    state = Path(os.environ.get("HEADWATER_STATE") or file_values.get("state", ".headwater"))
    found = state / "services.json"
    if not found.exists():
        return {}
    running = orjson.loads(found.read_bytes())
    return {name: running[name] for name in ("kafka", "mqtt", "influx") if name in running}


def _explain(error: ValidationError, toml: TomlFile) -> str:
    lines = []
    for problem in error.errors():
        path = tuple(problem["loc"])
        dotted = ".".join(str(part) for part in path) or "settings"
        given = problem.get("input")
        shown = "" if isinstance(given, dict | list) else f" (found {given!r})"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message, shown = "unknown setting; check the spelling against docs/settings", ""
        lines.append(f"{toml.where(path)}: {dotted}: {message}{shown}")
    return "\n".join(lines)
