"""Records of ``commands``, ``commands.status`` and ``commands.down``.

``commands``, by the header ``hw-kind``: ``send``, a command as JSON; ``cancel``, ``{"id"}``;
``report`` of the edge that ``hw-site`` names; ``call``, key ``tenant/site``, for all that is open
there.
"""

from __future__ import annotations

import secrets
from typing import Any

import orjson

from crdt.core.commands.book import Entry
from crdt.core.commands.model import Command, CommandError, CommandLimits
from crdt.core.commands.wire import CALL, Standing
from crdt.core.errors import WireError
from crdt.core.messages import encode_batch
from streams.adapters.twin_records import KIND, SITE, TENANT
from streams.core.placement import device_key, partition_of
from streams.ports import Produce
from streams.settings import Commands
from streams.topics import COMMANDS, COMMANDS_DOWN, COMMANDS_STATUS

SEND, CANCEL, REPORT, CALLED = b"send", b"cancel", b"report", b"call"
CLOUD = "cloud"
_FIELDS = frozenset({"id", "name", "args", "ttl_ms", "site"})
_EXAMPLE = '{"name": "reboot", "args": {"delay_s": 5}, "ttl_ms": 60000}'
_JSON = {"content-type": b"application/json"}


def limits_of(settings: Commands) -> CommandLimits:
    """Return the bounds as ``crdt`` takes them."""
    return CommandLimits(
        max_open=settings.max_open,
        max_remembered=settings.max_remembered,
        max_args_bytes=settings.max_args_bytes,
        max_ttl_ms=settings.max_ttl_ms,
        retention_ms=settings.retention_ms,
        remember_ms=settings.remember_ms,
    )


def parse_command(
    data: bytes | None, origin: str, settings: Commands, *, site: str = ""
) -> Command:
    """Return the command that a JSON object asks for; an id is minted where it has none.

    :param site: where it goes if it does not say.
    :raises CommandError: if it is none, or something of it cannot be kept.
    """
    try:
        asked = orjson.loads(data or b"")
    except orjson.JSONDecodeError as error:
        raise CommandError("malformed-json", f"a command is JSON: {error}") from error
    if not isinstance(asked, dict):
        raise CommandError("malformed-json", f"a command is an object: {_EXAMPLE}")
    strange = sorted(asked.keys() - _FIELDS)
    if strange:
        raise CommandError(
            "bad-command", f"{strange[0]!r}: expected some of {', '.join(sorted(_FIELDS))}"
        )
    ttl_ms = asked.get("ttl_ms", settings.default_ttl_ms)
    if not isinstance(ttl_ms, int) or isinstance(ttl_ms, bool):
        raise CommandError("bad-ttl", f"ttl_ms: expected milliseconds, found {ttl_ms!r}")
    if not asked.get("site", site):
        raise CommandError(
            "bad-site", "the device is synced by no site, or by several: give the site"
        )
    command = Command(
        _text(asked, "id", secrets.token_hex(8)),
        _text(asked, "name", ""),
        asked.get("args"),
        ttl_ms,
        _text(asked, "site", site),
        origin,
    )
    command.check(limits_of(settings))
    return command


def parse_cancel(data: bytes | None) -> str:
    """Return the id that a JSON object ``{"id"}`` asks to cancel.

    :raises CommandError: if it is none.
    """
    try:
        asked = orjson.loads(data or b"")
    except orjson.JSONDecodeError as error:
        raise CommandError("malformed-json", f"a cancellation is JSON: {error}") from error
    match asked:
        case {"id": str(id_), **others} if not others:
            return id_
    raise CommandError("bad-command", 'a cancellation is {"id": "..."}')


def send_record(tenant: str, device: str, command: Command, partitions: int) -> Produce:
    """Return the record of a command of the cloud."""
    asked = {"id": command.id, "name": command.name, "args": command.args}
    asked |= {"ttl_ms": command.ttl_ms, "site": command.site}
    return _asked(tenant, device, SEND, orjson.dumps(asked), partitions)


def cancel_record(tenant: str, device: str, id_: str, partitions: int) -> Produce:
    """Return the record that takes a command back."""
    return _asked(tenant, device, CANCEL, orjson.dumps({"id": id_}), partitions)


def report_record(tenant: str, site: str, device: str, report: bytes, partitions: int) -> Produce:
    """Return the record of what an edge says of a command."""
    key, partition = device_key(tenant, device), partition_of(tenant, device, partitions)
    headers = {KIND: REPORT, SITE: site.encode(), "content-type": b"application/cbor"}
    return Produce(COMMANDS, report, key, partition, headers)


def call_record(tenant: str, site: str, name: str, call: bytes, partitions: int) -> Produce:
    """Return the record of an edge's call for what is open.

    :raises WireError: if it names no partition.
    """
    number = name.removeprefix(CALL)
    if not (number.isascii() and number.isdigit() and int(number) < partitions):
        raise WireError("bad-call", f"{name[:40]!r} names none of {partitions} partitions")
    headers = {KIND: CALLED, SITE: site.encode(), "content-type": b"application/cbor"}
    return Produce(COMMANDS, call, f"{tenant}/{site}".encode(), int(number), headers)


def status_record(key: str, entry: Entry, partition: int) -> Produce:
    """Return the record that tells how a command stands."""
    return Produce(
        COMMANDS_STATUS, orjson.dumps(status_of(key, entry)), key.encode(), partition, dict(_JSON)
    )


def status_of(key: str, entry: Entry) -> dict[str, Any]:
    """Return how a command stands, as data."""
    tenant, _, device = key.partition("/")
    command = entry.command
    return {
        "id": command.id,
        "tenant": tenant,
        "device": device,
        "name": command.name,
        "args": command.args,
        "site": command.site,
        "origin": command.origin,
        "number": entry.number,
        "state": str(entry.state),
        "ended": entry.ended,
        "at_ms": entry.changed_ms,
        "issued_ms": entry.issued_ms,
        "deadline_ms": entry.deadline_ms,
        "cancel": entry.cancel,
        "reason": entry.reason,
        "result": entry.result,
    }


def standing_record(key: str, site: str, standing: Standing, partition: int) -> Produce:
    """Return the record that tells an edge how a command stands."""
    tenant, _, device = key.partition("/")
    return Produce(
        COMMANDS_DOWN,
        encode_batch([(device, standing.encode())]),
        f"{tenant}/{site}".encode(),
        partition,
        {TENANT: tenant.encode(), SITE: site.encode(), "content-type": b"application/cbor"},
    )


def _asked(tenant: str, device: str, kind: bytes, value: bytes, partitions: int) -> Produce:
    key, partition = device_key(tenant, device), partition_of(tenant, device, partitions)
    return Produce(COMMANDS, value, key, partition, {KIND: kind, **_JSON})


def _text(asked: dict[str, Any], name: str, default: str) -> str:
    value = asked.get(name, default)
    if not isinstance(value, str):
        raise CommandError(f"bad-{name}", f"{name}: expected text, found {value!r}"[:200])
    return value
