"""Records of ``twin.updates`` and ``twin.down``, and settings as ``crdt`` takes them.

``twin.updates``, key ``tenant/device``: either an edit (header ``hw-kind: edit``, a JSON object
of fields) or a sync message of an edge (``hw-kind: sync``, ``hw-site``). ``twin.down``, key
``tenant/site``: an envelope of sync messages for that site.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from crdt.core.errors import EditError
from crdt.core.messages import Message, encode_batch
from crdt.core.policies import Policies
from crdt.core.twin import Limits
from crdt.core.values import Value, check_path, check_value, flatten
from crdt.replica import Reading
from streams.core.placement import device_key, partition_of
from streams.ports import Produce
from streams.settings import Twins
from streams.topics import TWIN_DOWN, TWIN_UPDATES

KIND, SITE, TENANT = "hw-kind", "hw-site", "hw-tenant"
EDIT, SYNC = b"edit", b"sync"


def reading_of(settings: Twins) -> Reading:
    """Return how twins are read and bounded."""
    policies = Policies(tuple((path.path, path.policy) for path in settings.paths))
    limits = Limits(
        max_fields=settings.max_fields,
        max_value_bytes=settings.max_value_bytes,
        max_bytes=settings.max_bytes,
        max_ledger_bytes=settings.max_ledger_bytes,
    )
    return Reading(policies, limits, settings.skew_ms)


def parse_edit(data: bytes | None) -> tuple[dict[str, Value], list[str]]:
    """Return what a JSON object sets and deletes: nested or dotted names; null deletes.

    :raises EditError: if it is no object, empty, or a path or value of it cannot be kept.
    """
    try:
        tree = orjson.loads(data or b"")
    except orjson.JSONDecodeError as error:
        raise EditError("malformed-json", f"an edit is a JSON object: {error}") from error
    if not isinstance(tree, dict):
        raise EditError("malformed-json", 'an edit is a JSON object: {"desired.interval_s": 5}')
    return checked_edit(tree)


def checked_edit(tree: Mapping[str, object]) -> tuple[dict[str, Value], list[str]]:
    """As :func:`parse_edit`, of decoded JSON."""
    sets: dict[str, Value] = {}
    deletes: list[str] = []
    for path, value in flatten(tree):
        check_path(path)
        check_value(value, path)
        if path in sets or path in deletes:
            raise EditError("contradiction", f"{path} is given twice")
        if value is None:
            deletes.append(path)
        else:
            sets[path] = value  # type: ignore[assignment] # checked above
    if not sets and not deletes:
        raise EditError("empty-edit", 'nothing to change; give fields: {"desired.interval_s": 5}')
    return sets, deletes


def edit_record(tenant: str, device: str, tree: Mapping[str, object], partitions: int) -> Produce:
    """Return the record of a cloud edit.

    :raises EditError: if the edit cannot be made on any twin.
    """
    checked_edit(tree)
    return Produce(
        TWIN_UPDATES,
        orjson.dumps(tree),
        device_key(tenant, device),
        partition_of(tenant, device, partitions),
        {KIND: EDIT, "content-type": b"application/json"},
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


def down_record(tenant: str, site: str, device: str, message: Message, partition: int) -> Produce:
    """Return the record of one sync message for a site."""
    return Produce(
        TWIN_DOWN,
        encode_batch([(device, message.encode())]),
        f"{tenant}/{site}".encode(),
        partition,
        {TENANT: tenant.encode(), SITE: site.encode(), "content-type": b"application/cbor"},
    )
