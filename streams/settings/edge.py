"""The settings of an edge node."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from streams.settings.addresses import Broker, LocalBroker
from streams.settings.broker import LocalMqtt
from streams.settings.intake import Intake
from streams.settings.sections import Ms, Positive, Section, Webhook

_SPAN = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


class EdgeSpool(Section):
    """Where readings wait until they are in Kafka (docs/edge.md)."""

    max_bytes: Annotated[int, Field(ge=1 << 24)] = 1 << 30
    """Disk for readings. Alerts and the loss ledger have 16 MiB each beside it."""
    when_full: Literal["refuse", "drop-oldest", "thin"] = "refuse"
    """``refuse`` takes no more, and loses nothing that was acknowledged. ``drop-oldest`` gives the
    oldest up. ``thin`` keeps of old readings the first, last, least and greatest of each series and
    ``thin_ms``, then drops. What is given up is in the loss ledger."""
    thin_ms: Positive = 60_000
    """Width of the windows that ``thin`` thins."""
    expiry_ms: Ms = 0
    """Readings that wait for longer are given up; 0: never."""
    segment_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 24)] = 1 << 22
    """Size of one file, which is what is given up at once."""
    linger_ms: Ms = 0
    """How long readings are gathered before a write, and senders wait for their acknowledgement.
    At a few readings a second some 100 ms save much disk: a record of one takes 700 bytes."""
    max_rows: Annotated[int, Field(gt=0, le=10_000)] = 2_000
    """Readings of one write."""
    max_waiting_rows: Positive = 100_000
    """Readings that may wait for the disk; beyond, they are refused."""


class EdgeRing(Section):
    """Where raw readings of filtered devices stay at the site; nothing without ``[[filters]]``."""

    max_bytes: Annotated[int, Field(ge=1 << 24)] = 1 << 30
    """Disk for them; the oldest file goes when it is full."""
    retention_ms: Positive = 604_800_000
    """They stay for so long, a week."""
    segment_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 22)] = 1 << 21
    """Size of one file, which is what goes at once."""
    tell_ms: Positive = 60_000
    """How often the ledger is told how much was filtered, for ``headwater audit``."""
    max_series: Positive = 20_000
    """Series that are thinned, first come, first served; further ones go up whole."""


class EdgeWindows(Section):
    """Windows that go up in place of readings; nothing without ``[[filters]]`` of such a mode."""

    max_bytes: Annotated[int, Field(ge=1 << 22)] = 1 << 28
    """Disk for results that wait for the uplink. When it is full, no more readings are taken, or
    the oldest results are given up if ``edge.spool.when_full`` gives readings up."""
    checkpoint_ms: Positive = 10_000
    """How often open windows are stored. After a crash they are computed from there on, out of the
    ring."""
    max_waiting_rows: Positive = 100_000
    """Readings on disk that may wait to be computed; beyond, no more are taken."""
    max_around_rows: Positive = 100_000
    """Readings in memory that would go up if an anomaly came; beyond, the oldest stay in the
    ring."""


class EdgeUplink(Section):
    """How readings go up."""

    linger_ms: Ms = 200
    """How long fresh readings are gathered into one batch."""
    fresh_ms: Positive = 10_000
    """Readings that could not be sent for so long join the backlog."""
    max_fresh_bytes: Positive = 8_388_608
    """Fresh readings in memory; beyond it the oldest join the backlog, on disk."""
    min_rows: Positive = 50
    """Readings of a batch at least, on a bad link."""
    max_rows: Annotated[int, Field(gt=0, le=10_000)] = 5_000
    """Readings of a batch at most, on a good one; at most the gateway's ``gateway.max_rows``."""
    max_batch_bytes: Annotated[int, Field(gt=0, le=1 << 24)] = 200_000
    """Of a batch, compressed; below the gateway's ``gateway.max_payload_bytes``."""
    target_ms: Positive = 500
    """Batches grow while they are answered within this."""
    window_batches: Annotated[int, Field(gt=1, le=1_000)] = 16
    """Batches that may be unanswered."""
    window_bytes: Positive = 4_194_304
    """Their bytes."""
    answer_min_ms: Positive = 2_000
    """Shortest wait for an answer before a batch is sent again; each wait doubles, with jitter."""
    answer_max_ms: Positive = 120_000
    """Longest wait."""
    message_expiry_s: Positive = 600
    """How long a broker may keep a batch that no gateway takes."""
    max_bytes_per_s: Ms = 0
    """Bandwidth for readings; 0: no bound. Alerts and losses go at once."""
    backlog_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Part of the bytes that the backlog gets while fresh readings wait, too."""
    hours: Annotated[tuple[str, ...], Field(max_length=24)] = ()
    """When readings go up, such as ``["22:00-06:00"]``, local time; empty: always. Alerts and
    losses always go."""
    spread_ms: Ms = 2_000
    """After a connection the backlog waits a random time up to this: sites that come back together
    do not start together."""
    status_ms: Positive = 10_000
    """How often the edge says how it is."""

    @field_validator("hours")
    @classmethod
    def _are_spans(cls, hours: tuple[str, ...]) -> tuple[str, ...]:
        for span in hours:
            if not _SPAN.fullmatch(span):
                raise ValueError(f"{span!r} is no span of the day; expected such as 22:00-06:00")
        return hours

    def spans(self) -> tuple[tuple[int, int], ...]:
        """Return ``hours`` as minutes of the day."""
        found = (_SPAN.fullmatch(span) for span in self.hours)
        numbers = ([int(part) for part in match.groups()] for match in found if match)
        return tuple((h * 60 + m, h2 * 60 + m2) for h, m, h2, m2 in numbers)


class EdgeModels(Section):
    """Trained models at an edge."""

    data: Path = Path(".headwater/edge/models")
    """Where fetched versions are kept."""
    url: str | None = None
    """Address of the API that has them, such as ``https://headwater.example``; without one, only
    what lies in the folder is used."""
    poll_ms: Positive = 10_000
    """Pause between two looks at what the twins ask for."""
    keep: Positive = 3
    """Versions of one model that stay in the folder."""


class EdgeLocal(Section):
    """Work at the site: windows, detection and rules over the readings that the edge takes."""

    enabled: bool = True
    """``false``: the edge only stores and sends."""
    windows: list[str] = Field(default=["*"])
    """Globs over the names of ``[[windows]]``: those that are folded here, too. What local rules
    look at always is."""
    recent: Annotated[int, Field(gt=0, le=10_000)] = 60
    """Results of each series and window that can be read here, the newest."""
    max_recent: Positive = 20_000
    """Pairs of a series and a window of which there are some; further ones are left out, and
    counted."""
    max_waiting_rows: Positive = 100_000
    """Readings that may wait for the local work; beyond, the oldest are passed over by it, and
    counted. They are stored and sent all the same."""
    max_alerts: Positive = 1_000
    """Alerts that are over and are still listed."""
    max_untold: Positive = 10_000
    """Changes of alerts that wait in memory where the disk refuses them; beyond, the oldest go."""
    max_commands: Positive = 10_000
    """Pairs of a rule and a device of which the last command is remembered, and published commands
    that wait for the site's broker; further ones are not given, and counted."""
    max_messages: Positive = 10_000
    """Messages that wait for ``edge.webhooks``; beyond, the oldest are given up, and counted."""


class Edge(Section):
    """One edge node: a site."""

    tenant: str = "default"
    """Whose site it is."""
    site: str = "default"
    """Name of the site."""
    data: Path = Path(".headwater/edge")
    """Where the durable logs live."""
    key: Path | None = None
    """Private key that signs what this site says of its twins; needed with ``twins.registry``."""
    devices: tuple[str, ...] = ()
    """Devices whose twins are synced from the start; any that is edited here is added."""
    retry_min_ms: Positive = 200
    """First pause after a lost link; it doubles, with jitter."""
    retry_max_ms: Positive = 30_000
    """Longest pause."""
    brokers: Annotated[tuple[Broker, ...], Field(max_length=64)] = ()
    """Further brokers of the cloud beside the top-level ``mqtt``, with the log-in of ``[broker]``,
    as in ``gateway.brokers``. The edge takes one of them all by chance, and another when that is
    gone. All are ``mqtt://``, or all ``mqtts://``."""
    local_mqtt: LocalBroker | None = None
    """A broker of the site, ``mqtt://host:port``, whose topics are taken as ``[[mappings]]`` say.
    The broker that leads up is the top-level ``mqtt``."""
    max_latest: Positive = 100_000
    """Series whose latest reading can be read here; further ones are left out."""
    local_broker: LocalMqtt = LocalMqtt()
    intake: Intake = Intake()
    spool: EdgeSpool = EdgeSpool()
    ring: EdgeRing = EdgeRing()
    windows: EdgeWindows = EdgeWindows()
    uplink: EdgeUplink = EdgeUplink()
    models: EdgeModels = EdgeModels()
    local: EdgeLocal = EdgeLocal()
    webhooks: Annotated[tuple[Webhook, ...], Field(max_length=16)] = ()
    """Endpoints on the site's network: the edge itself tells them of alerts of rules with
    ``where = "edge"``, uplink or not. The cloud leaves an endpoint of the same name out then.
    ``chart`` is not drawn here."""

    @field_validator("webhooks")
    @classmethod
    def _can_be_told(cls, webhooks: tuple[Webhook, ...]) -> tuple[Webhook, ...]:
        names = [hook.name for hook in webhooks]
        for hook in webhooks:
            if names.count(hook.name) > 1:
                raise ValueError(f"the name {hook.name!r} is used twice")
            if hook.chart:
                raise ValueError(f"{hook.name!r}: charts are drawn from the lake, not at an edge")
        return webhooks
