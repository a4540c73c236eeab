"""Records of ``twin.updates`` and ``twin.down``, and settings as ``crdt`` takes them.

``twin.updates``, key ``tenant/device``, by the header ``hw-kind``: an ``edit``, JSON as
:mod:`streams.adapters.twin_edits` has it; ``compact``, a wish for a new epoch; or ``sync``, a
message of the edge that ``hw-site`` names. ``twin.down``, key ``tenant/site``: an envelope of
sync messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from crdt.core.errors import TwinError, WireError
from crdt.core.limits import Limits
from crdt.core.messages import Message, encode_batch
from crdt.core.policies import Policies
from crdt.core.refusals import NAME as REFUSED
from crdt.core.refusals import Refusal
from crdt.core.rolls import NAME
from crdt.replica import Reading
from streams.adapters.rejected import rejected_from_log
from streams.core.placement import device_key, partition_of
from streams.errors import DecodeError
from streams.ports import LogRecord, Produce, header
from streams.settings import Twins
from streams.topics import TWIN_DOWN, TWIN_UPDATES

KIND, SITE, TENANT = "hw-kind", "hw-site", "hw-tenant"
EDIT, SYNC, COMPACT, ROLL = b"edit", b"sync", b"compact", b"roll"


def policies_of(settings: Twins) -> Policies:
    """Return kinds and policies of the fields."""
    rules = ((p.path, p.policy if p.kind == "register" else p.kind) for p in settings.paths)
    return Policies(tuple(rules))


def reading_of(settings: Twins) -> Reading:
    """Return how twins are read and bounded."""
    limits = Limits(
        max_fields=settings.max_fields,
        max_value_bytes=settings.max_value_bytes,
        max_bytes=settings.max_bytes,
        max_ledger_bytes=settings.max_ledger_bytes,
        max_actors=settings.max_actors,
    )
    return Reading(policies_of(settings), limits, settings.skew_ms, settings.compact_ratio)


def edit_record(
    tenant: str, device: str, tree: Mapping[str, object] | Sequence[object], partitions: int
) -> Produce:
    """Return the record of a cloud edit: JSON as :mod:`streams.adapters.twin_edits` has it."""
    return Produce(
        TWIN_UPDATES,
        orjson.dumps(tree),
        device_key(tenant, device),
        partition_of(tenant, device, partitions),
        {KIND: EDIT, "content-type": b"application/json"},
    )


def compact_record(tenant: str, device: str, partitions: int) -> Produce:
    """Return the record that begins a new epoch of a device's Doc."""
    return Produce(
        TWIN_UPDATES,
        b"",
        device_key(tenant, device),
        partition_of(tenant, device, partitions),
        {KIND: COMPACT},
    )


def sync_record(tenant: str, site: str, device: str, message: bytes, partitions: int) -> Produce:
    """Return the record of one sync message of an edge."""
    return Produce(
        TWIN_UPDATES,
        message,
        device_key(tenant, device),
        partition_of(tenant, device, partitions),
        {KIND: SYNC, SITE: site.encode(), "content-type": b"application/cbor"},
    )


def roll_record(tenant: str, site: str, name: str, call: bytes, partitions: int) -> Produce:
    """Return the record of a roll call.

    :raises WireError: if it names no partition.
    """
    number = name.removeprefix(NAME)
    if not (number.isascii() and number.isdigit() and int(number) < partitions):
        raise WireError("bad-roll", f"{name[:40]!r} names none of {partitions} partitions")
    headers = {KIND: ROLL, SITE: site.encode(), "content-type": b"application/cbor"}
    return Produce(TWIN_UPDATES, call, f"{tenant}/{site}".encode(), int(number), headers)


def answer_record(tenant: str, site: str, answer: bytes, partition: int) -> Produce:
    """Return the record of the answer to a roll call."""
    return Produce(
        TWIN_DOWN,
        encode_batch([(f"{NAME}{partition}", answer)]),
        f"{tenant}/{site}".encode(),
        partition,
        {TENANT: tenant.encode(), SITE: site.encode(), "content-type": b"application/cbor"},
    )


def refusal_record(
    topic: str, whose: tuple[str, str], device: str, refusal: Refusal, partition: int
) -> Produce:
    """Return the record that tells a site what was refused of a device.

    :param topic: ``twin.down`` or ``commands.down``.
    :param whose: tenant and site.
    """
    tenant, site = whose
    return Produce(
        topic,
        encode_batch([(f"{REFUSED}{device}", refusal.encode())]),
        f"{tenant}/{site}".encode(),
        partition,
        {TENANT: tenant.encode(), SITE: site.encode(), "content-type": b"application/cbor"},
    )


def refused(
    record: LogRecord, error: TwinError, *, topic: str, down: str, partition: int, max_bytes: int
) -> list[Produce]:
    """Return a record of the log for ``rejected``, and what tells the site that it came from.

    :param topic: that it was read from; ``down`` that its site hears.
    """
    tenant, _, device = (record.key or b"").decode(errors="replace").partition("/")
    site = (header(record, SITE) or b"").decode(errors="replace")
    rejected = rejected_from_log(
        record,
        DecodeError(error.reason, error.detail),
        topic=topic,
        partition=partition,
        max_bytes=max_bytes,
        tenant=tenant or None,
        site=site or None,
        device=device or None,
    )
    if not (tenant and site and device):
        return [rejected]
    refusal = Refusal(error.reason, error.detail)
    return [rejected, refusal_record(down, (tenant, site), device, refusal, partition)]


def down_record(tenant: str, site: str, device: str, message: Message, partition: int) -> Produce:
    """Return the record of one sync message for a site."""
    return Produce(
        TWIN_DOWN,
        encode_batch([(device, message.encode())]),
        f"{tenant}/{site}".encode(),
        partition,
        {TENANT: tenant.encode(), SITE: site.encode(), "content-type": b"application/cbor"},
    )
