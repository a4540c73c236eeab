"""The sections of ``headwater.toml``: what can be set, with defaults and bounds.

The docstring below a field is its line in the reference of the documentation.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from crdt.core.values import PREFIXES
from streams.extensions import CODECS, DETECTORS, SINKS
from streams.settings.addresses import Broker, check_url
from streams.settings.plugged import Option, check_installed

Ms = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Globs = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class LocatedError(ValueError):
    """What is wrong between several settings.

    :param path: the one that is to be changed, from the section that is checked.
    """

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values do not change after load."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Topics(Section):
    """Kafka topics: counts are fixed when the topics are made and checked at every start."""

    partitions: Annotated[int, Field(gt=0, le=1024)] = 4
    """Of every data topic; a device has the same partition number everywhere."""
    shards: Annotated[int, Field(gt=0, le=256)] = 8
    """State of a partition is kept in this many pieces."""
    replication: Annotated[int, Field(gt=0, le=9)] = 1
    """Copies of every topic; 3 on a cluster."""
    retention_hours: Positive = 168
    """How long data topics keep records."""


class Mapping(Section):
    """From an MQTT topic to devices and metrics.

    ``topic`` is an MQTT filter whose levels may be ``{tenant}``, ``{site}``, ``{device}`` or
    ``{metric}`` (one level each), ``+`` or a final ``#``. What the topic does not name is
    given by the fields of the same name; they may also use the captured names.
    """

    topic: str
    """MQTT filter, such as ``factory/{site}/{device}/{metric}``."""
    tenant: str = "default"
    """A name, or a pattern of captured names."""
    site: str = "default"
    """As ``tenant``."""
    device: str = "{device}"
    """As ``tenant``."""
    metric: str = "{metric}"
    """As ``tenant``; for JSON it is left out, because the payload names its metrics."""
    format: Name = "auto"
    """``auto`` recognises the payload by its first bytes; else ``json``, ``senml``, ``number``,
    ``frame``, or a codec that a package adds under ``headwater.codecs``."""
    time: Literal["payload", "receipt"] = "payload"
    """Whether event time is in the payload or is the time of receipt."""
    time_field: str = "t_ms"
    """JSON field with the event time."""
    time_unit: Literal["ms", "s", "us", "ns"] = "ms"
    """Unit of ``time_field``; text is read as ISO 8601."""
    seq_field: str = "seq"
    """JSON field that numbers the messages of a device."""
    boot_field: str = "boot"
    """JSON field that tells starts of a device apart."""
    device_field: str | None = None
    """A field of a JSON payload that names the device, where the topic does not."""

    @field_validator("format")
    @classmethod
    def _is_format(cls, name: str) -> str:
        return name if name in ("auto", "frame") else check_installed(CODECS, name)


class Gateway(Section):
    """The gateway: MQTT to Kafka."""

    group: Name = "gateway"
    """Name of the shared subscription: gateways of one group share the messages."""
    client_id: Name | None = None
    """Stable across restarts, so that the broker keeps the session; default: gateway-HOSTNAME."""
    brokers: list[Broker] = []
    """Further brokers beside ``mqtt``, for devices and edges that are spread over several: the
    gateway subscribes to all of them, with the log-in of ``[broker]``."""
    linger_ms: Ms = 20
    """How long messages are gathered into one frame."""
    max_rows: Positive = 10_000
    """Readings in one frame."""
    receive_maximum: Annotated[int, Field(gt=0, le=65_535)] = 2_000
    """Messages that the broker may send before it waits for an acknowledgement."""
    max_payload_bytes: Positive = 262_144
    """Longer payloads are rejected."""
    max_inflated_bytes: Positive = 4_194_304
    """Frames of edges that are longer once they are inflated are rejected."""
    max_rejected_bytes: Positive = 65_536
    """Bytes of a refused payload that are kept."""
    max_buffered_bytes: Positive = 67_108_864
    """Payloads taken and not yet confirmed by Kafka; beyond it the gateway stops reading."""
    session_expiry_s: Positive = 86_400
    """How long the broker keeps messages for a gateway that is away."""
    sparkplug: list[Annotated[str, Field(pattern=r"^[^/+#\x00]{1,128}$")]] = []
    """Sparkplug B groups that this gateway is the host of. Name each at one gateway only: aliases
    and sequence numbers need all messages of a node in one place."""
    sparkplug_max_metrics: Positive = 1_000_000
    """Names and aliases of births that are remembered; births beyond it are refused."""
    twin_key: Path | None = None
    """Private key of the hub, which signs what edges are told of twins; needed with
    ``twins.registry``."""


class MetricSpec(Section):
    """One entry of the metric catalogue: ``[metrics.NAME]``."""

    type: Literal["number", "integer", "text"] = "number"
    """``integer`` keeps 64 bits exactly; ``text`` is stored, not aggregated."""
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
    """Gaps in a device's numbers, below its last 64, that are remembered; beyond, the oldest are
    given up."""
    max_identities: Positive = 1_000_000
    """Per shard: remembered (metric, time) identities of readings without a seq."""
    max_devices: Positive = 131_072
    """Per shard: readings of further devices are rejected as ``too-many-devices``."""
    max_metrics: Positive = 1_000
    """Per device: readings of further metrics are rejected as ``too-many-metrics``."""


class Rollup(Section):
    """A roll-up: the results of a group's devices, folded into one per window."""

    name: Name
    """Names the roll-up in results."""
    group: Literal["site", "tenant", "type"]
    """A group is one site, all devices of one tenant, or those of one type (``[[types]]``)."""
    metrics: list[str] = ["*"]
    """Globs over metric names."""
    windows: list[str] = ["*"]
    """Globs over the names of window definitions."""
    quiet_ms: Ms = 2_000
    """Log time without a change after which a result is told: at each of the two stages."""
    max_members: Positive = 100_000
    """Devices of one group in one partition; the results of others are refused, and counted."""
    max_results: Positive = 100_000
    """Per partition: results of devices kept in one of 32 pieces, spread by window start."""


class RollupProcess(Section):
    """The rollup process."""

    id: Name = "headwater-rollup"
    """Consumer group, and name of the state topics."""
    instance_id: Name | None = None
    """As ``worker.instance_id``."""
    checkpoint_ms: Positive = 1_000
    """As ``worker.checkpoint_ms``."""


class Detection(Section):
    """The causal detector that scores every accepted reading."""

    metrics: list[str] = ["*"]
    """Globs over metric names."""
    half_life: Positive = 576
    """Readings after which an observation has half its weight in the spread."""
    warmup: Positive = 64
    """Readings of a series before it is scored."""
    emit_score: Annotated[float, Field(gt=0)] = 4.0
    """Scores from here on are written to ``anomalies``, and the first below."""
    min_spread: Annotated[float, Field(ge=0)] = 1e-9
    """Least spread of a series, in its own unit; keeps a flat series from alarming at noise."""
    detector: Name = "robust-level"
    """``robust-level`` or ``ensemble`` (docs/detection.md), or one that a package adds under
    ``headwater.detectors``. Another one learns anew."""
    options: dict[str, Option] = {}
    """For a detector of another package, as its page says."""
    feedback_step: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share by which an operator's label moves the bound of its series: up for each "not an
    anomaly", down for each "missed one"; 0: labels are kept and counted, and move nothing."""
    feedback_max: Annotated[float, Field(ge=1)] = 1.5
    """The bound of a series is at most so many times what it was, and at least so little."""
    max_labels: Positive = 10_000
    """That move bounds, in one shard; further ones do not, and are counted."""

    @field_validator("detector")
    @classmethod
    def _is_detector(cls, name: str) -> str:
        return check_installed(DETECTORS, name)

    def watches(self, metric: str) -> bool:
        """Whether a metric is scored."""
        return any(fnmatchcase(metric, glob) for glob in self.metrics)


class Worker(Section):
    """The Faust worker."""

    id: Name = "headwater-worker"
    """Consumer group, and name of the state topics."""
    instance_id: Name | None = None
    """Kafka's static membership: a stable name per worker process brings it back in seconds."""
    checkpoint_ms: Positive = 1_000
    """How often changed state is stored and the position committed."""
    evict_ms: Ms = 21_600_000
    """Log time without a reading after which a device with no window open leaves memory for the
    table, until it is heard again; 0: none ever does."""
    shelve_ms: Ms = 60_000
    """Event time past its close after which a closed window leaves memory for the table, until late
    data or the end of its horizon, if that is at least four times as long; 0: none ever does."""
    silent_ms: Positive = 1_000
    """Silence at a partition's end after which it gets a time marker, if something waits."""
    buffer_batches: Positive = 16
    """Batches a partition may have waiting before its fetching pauses."""
    max_poll_records: Positive = 10_000
    """Records of one fetch."""
    store: Literal["memory", "rocksdb"] = "memory"
    """Where stored state lives beside its changelog in Kafka: ``rocksdb`` keeps it on disk, so that
    it takes no memory and a worker that comes back reads only what has changed since."""
    standbys: Annotated[int, Field(ge=0, le=8)] = 0
    """Further workers that follow the changelog of each partition, to take it over at once."""

    @model_validator(mode="after")
    def _on_disk_under_a_name(self) -> Worker:
        if self.store == "rocksdb" and self.instance_id is None:
            raise ValueError(
                'store = "rocksdb" needs instance_id: a stable name per worker, so that each finds '
                "its own files again"
            )
        return self


class Sink(Section):
    """The sink process: from Kafka into InfluxDB and the lake."""

    targets: list[Name] = ["influx", "lake"]
    """Which sinks run: ``influx``, ``lake``, and what packages add under ``headwater.sinks``."""
    batch_rows: Positive = 5_000
    """Rows of one write."""
    flush_ms: Positive = 1_000
    """Longest wait before rows are written to InfluxDB."""
    lake_flush_ms: Positive = 10_000
    """Longest wait before rows are written to the lake."""
    retry_min_ms: Positive = 200
    """First pause after a failed write."""
    retry_max_ms: Positive = 30_000
    """Longest pause."""
    max_buffered_rows: Positive = 200_000
    """Rows that wait in memory; beyond, fetching pauses and the lag grows in Kafka."""

    @field_validator("targets")
    @classmethod
    def _are_installed(cls, targets: list[str]) -> list[str]:
        return [check_installed(SINKS, name) for name in targets]


class Influx(Section):
    """How to log in to InfluxDB. The address is the top-level ``influx``."""

    org: str = "-"
    """InfluxDB 2: the organisation; ``-`` for 1.8."""
    bucket: str = "headwater/autogen"
    """InfluxDB 2: the bucket; for 1.8 ``database/retention-policy``."""
    token_file: Path | None = None
    """A file with the token; for 1.8 ``user:password``."""
    timeout_ms: Positive = 10_000
    """Of one write."""


class Webhook(Section):
    """An endpoint that receives alerts, signed after Standard Webhooks 1.0."""

    name: Name
    """Names the endpoint in metrics and deliveries."""
    url: str
    """Where alerts are posted."""
    secret_file: Path
    """A file with the signing secret (``whsec_...``); ``headwater webhooks secret`` makes one. Of
    several, one a line, all sign: put the new one above the old to change it. Read again when it
    changes."""
    allow_private: bool = False
    """Allow an address that is not public, or plain http: for receivers in your own network."""
    timeout_ms: Positive = 10_000
    """Of one attempt."""
    chart: bool = False
    """Put a small PNG of the series into messages about one alert, where the lake has it."""
    tenants: list[str] = ["*"]
    """Globs: whose alerts this endpoint gets."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        return check_url(url)

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
    """Consumer group, and name of the state topics."""
    instance_id: Name | None = None
    """As ``worker.instance_id``."""
    checkpoint_ms: Positive = 1_000
    """As ``worker.checkpoint_ms``."""
    concurrency: Positive = 16
    """Deliveries under way at once."""
    retry_min_ms: Positive = 500
    """First pause after a failed delivery; it doubles, with jitter."""
    retry_max_ms: Positive = 3_600_000
    """Longest pause."""
    breaker_failures: Positive = 5
    """Failures in a row after which one message at a time tries an endpoint."""
    give_up_hours: Positive = 72
    """A message that could not be delivered for so long is dead: ``headwater alerts redeliver``."""
    max_outbox: Positive = 100_000
    """Messages kept ready in memory; beyond, the outbox waits in Kafka."""
    max_series: Positive = 1_000_000
    """Per partition: series of windows that rules look at; results of others are refused, and
    counted."""
    max_compared: Positive = 500_000
    """Per partition, and among devices per shard: results held to be compared with others, about
    400 bytes each; further ones are not compared, and counted."""
    compare_quiet_ms: Positive = 2_000
    """Log time without a change of a group's results after which they are compared."""
    max_grouped: Positive = 100_000
    """Per shard: alerts that are told in groups; others are told one by one, and counted."""
    charts_per_minute: Annotated[int, Field(ge=0)] = 30
    """Charts drawn at most for webhooks with ``chart``; further messages go without."""
    max_listed: Annotated[int, Field(gt=0, le=100)] = 20
    """Alerts that one message about a group lists; it says how many there are."""
    max_edge_alerts: Positive = 10_000
    """Per partition: alerts of edges of which it is remembered what was told, the newest. What an
    edge says again of older ones is told again."""
    max_open: Positive = 100_000
    """Per partition: rules on series of which something is the matter; others do not fire, and are
    counted."""


class TwinPath(Section):
    """Kind and policy of the twin fields that a glob matches; the first match counts."""

    path: str
    """Glob over field paths, such as ``desired.*``."""
    kind: Literal["register", "counter", "set", "latch"] = "register"
    """A register holds one value; a ``counter`` adds up what all sides count; a ``set`` holds what
    any side added and none removed; a ``latch`` stays set until a release that knew of every
    set."""
    policy: Literal["latest", "edge-wins", "cloud-wins", "min", "max", "keep-all"] = "latest"
    """Of a register: which of concurrent values is shown; all are kept in the ledger."""

    @field_validator("path")
    @classmethod
    def _is_under_a_prefix(cls, path: str) -> str:
        literal = re.split(r"[*?\[]", path)[0]
        begins = [f"{prefix}." for prefix in PREFIXES]
        some = path != literal and any(begin.startswith(literal) for begin in begins)
        if not some and not any(literal.startswith(begin) for begin in begins):
            raise ValueError(
                f"no field has such a path; expected a glob under {', '.join(PREFIXES)}"
            )
        return path

    @field_validator("policy")
    @classmethod
    def _is_of_a_register(cls, policy: str, given: ValidationInfo) -> str:
        kind = given.data.get("kind", "register")
        if kind != "register":
            raise ValueError(f"a {kind} has no policy: nothing that was written to it is lost")
        return policy


class Twins(Section):
    """Device twins."""

    paths: list[TwinPath] = []
    max_fields: Positive = 512
    """Of one twin."""
    max_value_bytes: Positive = 65_536
    """Of one field."""
    max_bytes: Positive = 262_144
    """All values of a twin together; a sync message must fit into a Kafka record."""
    max_ledger_bytes: Positive = 131_072
    """Conflicts kept per device, the newest."""
    max_actors: Annotated[int, Field(gt=1, le=1_024)] = 64
    """Writers of one field whose values may stand beside each other: sites that were apart."""
    skew_ms: Ms = 300_000
    """A clock stamp further ahead than this does not move the clock of who receives it, loses
    ``latest`` against others, and is reported."""
    compact_ratio: Annotated[float, Field(ge=1.2, le=100)] = 2.0
    """A Doc that is so many times as large as what it holds begins a new epoch, without what was
    overwritten; ``headwater twin compact`` does it at once."""
    registry: Path | None = None
    """Public keys of replicas, a file of ``headwater pki``. With it every message between edges and
    gateways must be signed, and workers check what a site may write."""
    max_live: Positive = 4_096
    """Twins of a partition kept ready as Docs, about 15 KiB each; the others wait as bytes, and a
    change to one of those costs twice as much."""


class Ops(Section):
    """Health and metrics of each process: ``/healthz``, ``/readyz``, ``/metrics``."""

    host: str = "127.0.0.1"
    """Address to bind; loopback unless told otherwise."""
    gateway_port: int = 8101
    """Of the gateway."""
    worker_port: int = 8102
    """Of the worker."""
    sink_port: int = 8103
    """Of the sink."""
    alerts_port: int = 8104
    """Of the alerts process."""
    api_port: int = 8105
    """Of the API; it serves twins too."""
    edge_port: int = 8106
    """Of the edge node; it serves twins too."""
    rollup_port: int = 8107
    """Of the rollup process."""


class Log(Section):
    """Logging."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written."""
    json_lines: bool | None = None
    """Default: JSON unless the log goes to a terminal."""
