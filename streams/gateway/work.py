"""What becomes of a batch of deliveries: records for Kafka, and answers to edges. Pure.

A device's message becomes readings or a record of ``rejected``. A batch of an edge is opened
first (header, compression), its readings go the same way, and the rest of its kinds becomes one
record each. What edges are told once Kafka has all records comes back as answers: a batch is
either confirmed or refused with the reason, never neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from streams.adapters import zstd
from streams.adapters.rejected import Original
from streams.adapters.rows import check_name
from streams.adapters.strict_json import loads
from streams.core.readings import Readings
from streams.errors import DecodeError
from streams.gateway.edge_windows import window_records
from streams.gateway.link import Delivery
from streams.gateway.packets import user_properties
from streams.gateway.records import frame_records, refused_records
from streams.intake.decode import BatchDecoder, Message, Refused
from streams.intake.uplink_wire import (
    BatchHeader,
    Encoding,
    Kind,
    Refusal,
    decode_header,
)
from streams.ports import Produce
from streams.settings import Gateway
from streams.topics import BACKFILL, EDGE_ALERTS, EDGE_STATUS, LOSSES

_TOPICS = {Kind.LOSSES: LOSSES, Kind.STATUS: EDGE_STATUS, Kind.ALERTS: EDGE_ALERTS}
_NATIVE = "hw/v1/"
_UP = "/up"
_INFLATED_BOUNDS = 4

Place = tuple[int, str, str]
"""Which broker a batch came by, its tenant and its site."""


@dataclass(slots=True)
class Answers:
    """What one site is told."""

    batches: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Work:
    """Records to be confirmed together, and what is to be counted and told then."""

    taken: int
    """How many of the deliveries it is about: the first ones."""
    records: list[Produce]
    readings: Readings
    refused: list[Refused]
    """Places are those of the deliveries."""
    ignored: int
    answers: dict[Place, Answers]


def work_of(
    deliveries: Sequence[Delivery], decoder: BatchDecoder, limits: Gateway, partitions: int
) -> Work:
    """Open and decode the first of *deliveries*, in order.

    It is all of them, unless what is inflated grows beyond ``4 * limits.max_inflated_bytes``: a few
    hundred bytes can inflate to megabytes.

    :param deliveries: at least one.
    :param partitions: partition count of ``readings``.
    """
    opened = _Opened(limits, partitions)
    for delivery in deliveries:
        opened.add(delivery)
        if opened.inflated_bytes > _INFLATED_BOUNDS * limits.max_inflated_bytes:
            break
    decoded = decoder.decode([opened.messages[at] for at in opened.decodable])
    refused = opened.refused
    refused += [replace(one, index=opened.decodable[one.index]) for one in decoded.refused]
    records = frame_records(decoded.readings, partitions, limits.max_rows) + opened.records
    if opened.asked_for:
        raw = decoder.decode([opened.messages[at] for at in opened.asked_for])
        refused += [replace(one, index=opened.asked_for[one.index]) for one in raw.refused]
        records += frame_records(raw.readings, partitions, limits.max_rows, BACKFILL)
    if refused:
        records += refused_records(opened.messages, refused, limits.max_rejected_bytes)
    answers = _answers(deliveries, opened.headers, refused) if opened.headers else {}
    return Work(len(opened.messages), records, decoded.readings, refused, decoded.ignored, answers)


class _Opened:
    """Deliveries on their way to the decoder."""

    def __init__(self, limits: Gateway, partitions: int) -> None:
        self._limits, self._partitions = limits, partitions
        self.inflated_bytes = 0
        self.messages: list[Message] = []
        self.decodable: list[int] = []
        self.asked_for: list[int] = []
        """Backfills: they are no readings of the log, and no window sees them."""
        self.headers: dict[int, BatchHeader] = {}
        self.refused: list[Refused] = []
        self.records: list[Produce] = []

    def add(self, delivery: Delivery) -> None:
        topic, limit = delivery.topic, self._limits.max_payload_bytes
        at = len(self.messages)
        if len(delivery.payload) > limit:
            kept = Original.of(delivery.payload, self._limits.max_rejected_bytes)
            self.messages.append(Message(topic, kept, delivery.received_ms))
        else:
            self.messages.append(Message(topic, delivery.payload, delivery.received_ms))
        if delivery.properties and _is_uplink(topic):
            try:
                self._open(at, delivery)
            except DecodeError as error:
                self.refused.append(Refused(at, error.reason, error.detail, None))
        else:
            self.decodable.append(at)

    def _open(self, at: int, delivery: Delivery) -> None:
        header = decode_header(user_properties(delivery.properties))
        if header is None:
            self.decodable.append(at)
            return
        self.headers[at] = header
        message = self.messages[at]
        if isinstance(message.payload, Original):
            # The decoder says why.
            self.decodable.append(at)
        elif header.kind in (Kind.READINGS, Kind.BACKFILL):
            if header.encoding is Encoding.ZSTD:
                payload = self._inflate(message.payload, self._limits.max_inflated_bytes)
                self.messages[at] = replace(message, payload=payload, is_inflated=True)
            (self.decodable if header.kind is Kind.READINGS else self.asked_for).append(at)
        elif header.kind is Kind.WINDOWS:
            payload = message.payload
            if header.encoding is Encoding.ZSTD:
                payload = self._inflate(payload, self._limits.max_inflated_bytes)
            of = (payload, *_owner(message.topic), self._partitions, self._limits.max_rows)
            self.records += window_records(*of)
        else:
            payload = message.payload
            if header.encoding is Encoding.ZSTD:
                payload = self._inflate(payload, self._limits.max_payload_bytes)
            self.records.append(_record(header, delivery, payload))

    def _inflate(self, packed: bytes, max_bytes: int) -> bytes:
        data = zstd.inflate(packed, max_bytes)
        self.inflated_bytes += len(data)
        return data


def _is_uplink(topic: str) -> bool:
    """Whether a topic is a site's; ``.../twin/up`` ends so too, and is another process's."""
    return topic.startswith(_NATIVE) and topic.endswith(_UP) and topic.count("/") == 4


def _owner(topic: str) -> tuple[str, str]:
    """Return tenant and site of a site's topic.

    :raises DecodeError: if they cannot be names.
    """
    _, _, tenant, site, _ = topic.split("/")
    check_name("tenant", tenant)
    check_name("site", site)
    return tenant, site


def _record(header: BatchHeader, delivery: Delivery, payload: bytes) -> Produce:
    tenant, site = _owner(delivery.topic)
    parsed = loads(payload)
    for one in parsed if type(parsed) is list else [parsed]:
        _check_owner(one, tenant, site)
    return Produce(
        _TOPICS[header.kind],
        payload,
        key=f"{tenant}/{site}".encode(),
        headers={
            "hw-tenant": tenant.encode(),
            "hw-site": site.encode(),
            "hw-batch": header.batch.encode(),
            "hw-received-ms": b"%d" % delivery.received_ms,
            "content-type": b"application/json",
        },
    )


def _check_owner(one: Any, tenant: str, site: str) -> None:
    if type(one) is not dict:
        raise DecodeError(
            "not-an-object", f"found {type(one).__name__}; expected an object or a list of them"
        )
    for kind, expected in (("tenant", tenant), ("site", site)):
        if one.get(kind, expected) != expected:
            raise DecodeError(
                f"wrong-{kind}",
                f"the payload says {kind} {one[kind]!r:.60}, its topic {expected!r}",
            )


def _answers(
    deliveries: Sequence[Delivery], headers: dict[int, BatchHeader], refused: Sequence[Refused]
) -> dict[Place, Answers]:
    why = {one.index: f"{one.reason}: {one.detail}" for one in refused}
    answers: dict[Place, Answers] = {}
    for at, header in headers.items():
        delivery = deliveries[at]
        _, _, tenant, site, _ = delivery.topic.split("/")
        told = answers.setdefault((delivery.origin, tenant, site), Answers())
        if at in why:
            told.refused.append(Refusal(header.batch, why[at], None))
        else:
            told.batches.append(header.batch)
    return answers
