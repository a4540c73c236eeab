"""The uplink of an edge on the wire: batches up, acknowledgements down (docs/wire.md).

An edge publishes a batch on :func:`up_topic` and says by user properties which batch it is, what
is in it, and how it is compressed. The gateway answers on :func:`ack_topic` once Kafka has
confirmed all records of the batch, or with a refusal. Acknowledgements are per batch, never
cumulative: several gateways share the topic. Pure: pairs and bytes in, dataclasses out, and back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from streams.errors import DecodeError

MAX_BATCH_ID = 96
"""Characters of the id of a batch."""
MAX_ACK_BATCHES = 4_096
"""Ids that one acknowledgement may hold."""
MAX_REASON = 256
"""Characters of the reason of a refusal."""
BATCH, KIND, ENCODING = "hw.batch", "hw.kind", "hw.encoding"
"""Names of the user properties."""

_ID = re.compile(rf"[!-~]{{1,{MAX_BATCH_ID}}}")
_MAX_ACK_BYTES = MAX_ACK_BATCHES * (2 * MAX_BATCH_ID + 2 * MAX_REASON)


class Kind(StrEnum):
    """What is in a batch."""

    READINGS = "readings"
    """A frame."""
    LOSSES = "losses"
    """JSON: what the edge gave up."""
    STATUS = "status"
    """JSON: how the edge is."""
    ALERTS = "alerts"
    """JSON: what fired at the edge."""
    BACKFILL = "backfill"
    """A frame: raw readings that were asked for."""
    WINDOWS = "windows"
    """Frames of results, one after the other: windows that the edge has computed."""


class Encoding(StrEnum):
    """How the payload of a batch is compressed."""

    ZSTD = "zstd"
    IDENTITY = "identity"


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """What an edge says about a batch beside its payload."""

    batch: str
    kind: Kind
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Refusal:
    """A batch that is not in Kafka. ``retry_after_ms``: milliseconds; ``None``: never again, its
    bytes are in ``rejected``."""

    batch: str
    reason: str
    retry_after_ms: int | None


@dataclass(frozen=True, slots=True)
class Ack:
    """What a gateway says about batches: those that Kafka has confirmed, and those refused."""

    batches: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()


def up_topic(tenant: str, site: str) -> str:
    """Return the topic that a site's batches go to."""
    return f"hw/v1/{tenant}/{site}/up"


def ack_topic(tenant: str, site: str) -> str:
    """Return the topic that a site hears acknowledgements on."""
    return f"hw/v1/{tenant}/{site}/ack"


def batch_id(spool: str, lane: str, number: int) -> str:
    """Return the id of a batch of an edge.

    :raises ValueError: if it is none: too long, or with signs beyond printable ASCII.
    """
    made = f"{spool}/{lane}/{number}"
    if not _ID.fullmatch(made):
        raise ValueError(f"{made!r:.120} is no batch id: 1 to {MAX_BATCH_ID} printable ASCII signs")
    return made


def encode_header(header: BatchHeader) -> list[tuple[str, str]]:
    """Return the user properties of a batch."""
    return [
        (BATCH, header.batch),
        (KIND, header.kind.value),
        (ENCODING, header.encoding.value),
    ]


def decode_header(properties: Iterable[tuple[str, str]]) -> BatchHeader | None:
    """Return what user properties say of a batch; ``None`` if they name none.

    :raises DecodeError: ``bad-uplink`` if the id cannot be one, a property is there twice, or kind
        or encoding are missing or unknown.
    """
    found: dict[str, str] = {}
    for name, value in properties:
        if name in (BATCH, KIND, ENCODING):
            if name in found:
                raise DecodeError("bad-uplink", f"the user property {name} is there twice")
            found[name] = value
    if BATCH not in found:
        return None
    return BatchHeader(
        _batch(found[BATCH]),
        Kind(_one_of(Kind, KIND, found.get(KIND))),
        Encoding(_one_of(Encoding, ENCODING, found.get(ENCODING, Encoding.IDENTITY))),
    )


def encode_ack(ack: Ack) -> bytes:
    """Return an acknowledgement as JSON; reasons are cut to ``MAX_REASON`` characters."""
    return orjson.dumps(
        {
            "batches": ack.batches,
            "refused": [
                {
                    "batch": one.batch,
                    "reason": one.reason[:MAX_REASON],
                    "retry_after_ms": one.retry_after_ms,
                }
                for one in ack.refused
            ],
        }
    )


def decode_ack(payload: bytes) -> Ack:
    """Read an acknowledgement. Unknown fields are left for later versions.

    :raises DecodeError: ``bad-ack`` if it is not one.
    """
    if len(payload) > _MAX_ACK_BYTES:
        raise DecodeError("bad-ack", f"{len(payload)} bytes; at most {_MAX_ACK_BYTES} are taken")
    try:
        parsed = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise DecodeError("bad-ack", f"not JSON: {error}") from error
    if type(parsed) is not dict:
        raise DecodeError("bad-ack", f"found {type(parsed).__name__}; expected an object")
    batches, refused = _listed(parsed, "batches"), _listed(parsed, "refused")
    if len(batches) + len(refused) > MAX_ACK_BATCHES:
        raise DecodeError(
            "bad-ack", f"{len(batches) + len(refused)} batches; at most {MAX_ACK_BATCHES} are taken"
        )
    return Ack(
        tuple(_batch(one, "bad-ack") for one in batches), tuple(_refusal(one) for one in refused)
    )


def split_acks(acks: Sequence[str], refused: Sequence[Refusal]) -> list[Ack]:
    """Return acknowledgements that together say all of it, none with too many batches."""
    made = [
        Ack(tuple(acks[at : at + MAX_ACK_BATCHES])) for at in range(0, len(acks), MAX_ACK_BATCHES)
    ]
    made += [
        Ack((), tuple(refused[at : at + MAX_ACK_BATCHES]))
        for at in range(0, len(refused), MAX_ACK_BATCHES)
    ]
    if len(made) == 2 and len(acks) + len(refused) <= MAX_ACK_BATCHES:
        return [Ack(tuple(acks), tuple(refused))]
    return made


def _batch(value: object, reason: str = "bad-uplink") -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise DecodeError(
            reason,
            f"the batch id is {value!r:.120}; expected 1 to {MAX_BATCH_ID} printable ASCII signs",
        )
    return value


def _one_of(known: type[Kind | Encoding], name: str, value: str | None) -> str:
    names = [one.value for one in known]
    if value not in names:
        raise DecodeError("bad-uplink", f"{name} is {value!r:.60}; expected {' or '.join(names)}")
    return value


def _listed(parsed: dict[str, Any], name: str) -> list[Any]:
    found = parsed.get(name, [])
    if type(found) is not list:
        raise DecodeError("bad-ack", f"{name} is {type(found).__name__}; expected a list")
    return found


def _refusal(one: object) -> Refusal:
    if type(one) is not dict:
        raise DecodeError("bad-ack", f"a refusal is {type(one).__name__}; expected an object")
    reason, retry = one.get("reason"), one.get("retry_after_ms")
    if not isinstance(reason, str):
        raise DecodeError("bad-ack", f"the reason of a refusal is {type(reason).__name__}")
    if retry is not None and (type(retry) is not int or not 0 <= retry < 2**31):
        raise DecodeError("bad-ack", f"retry_after_ms is {retry!r:.40}; expected null or ms")
    return Refusal(_batch(one.get("batch"), "bad-ack"), reason[:MAX_REASON], retry)
