"""Records of the topic ``labels``, and the markers in ``readings`` that carry one."""

from __future__ import annotations

import hashlib

import orjson

from streams.core.feedback import Label, label_of
from streams.ports import LogRecord, header

MARKER = "hw-label"


def label_id(tenant: str, device: str, metric: str, kind: str, since_ms: int) -> str:
    """Return the id of a label: the same if somebody says it again."""
    parts = "\x00".join([tenant, device, metric, kind, str(since_ms)])
    return "lab_" + hashlib.sha256(parts.encode()).hexdigest()[:24]


def decode(value: bytes) -> Label:
    """Read a record of ``labels``, or the header of a marker.

    :raises ValueError: if it is none.
    """
    held = orjson.loads(value or b"null")
    if not isinstance(held, dict):
        raise ValueError("a label is an object")  # noqa: TRY004 as of any other wrong label
    return label_of(held)


def marked(record: LogRecord) -> bytes | None:
    """Return the label that a marker carries, not yet decoded."""
    return header(record, MARKER)
