"""Payloads of Sparkplug B: protobuf, after section 6.4 of the Sparkplug specification 3.0.

The schema is made here from the specification's names and numbers, as far as readings need it;
protobuf passes over the fields that are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError as ProtobufError
from google.protobuf.message_factory import GetMessageClass

from streams.errors import DecodeError

REBIRTH = "Node Control/Rebirth"
BD_SEQ = "bdSeq"


class DataType(IntEnum):
    """Types of metrics that can be readings."""

    INT8, INT16, INT32, INT64 = 1, 2, 3, 4
    UINT8, UINT16, UINT32, UINT64 = 5, 6, 7, 8
    FLOAT, DOUBLE, BOOLEAN = 9, 10, 11
    STRING, DATETIME, TEXT, UUID = 12, 13, 14, 15


_SIGNED_BITS = {DataType.INT8: 8, DataType.INT16: 16, DataType.INT32: 32, DataType.INT64: 64}
TEXTS = frozenset((DataType.STRING, DataType.TEXT, DataType.UUID))
_TYPES = {
    "uint64": FieldDescriptorProto.TYPE_UINT64,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "string": FieldDescriptorProto.TYPE_STRING,
    "float": FieldDescriptorProto.TYPE_FLOAT,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
}
_METRIC = (
    ("name", "string", 1),
    ("alias", "uint64", 2),
    ("timestamp", "uint64", 3),
    ("datatype", "uint32", 4),
    ("is_null", "bool", 7),
)
_VALUES = (
    ("int_value", "uint32", 10),
    ("long_value", "uint64", 11),
    ("float_value", "float", 12),
    ("double_value", "double", 13),
    ("boolean_value", "bool", 14),
    ("string_value", "string", 15),
    ("bytes_value", "bytes", 16),
)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. ``name`` or ``alias`` tell which; ``t_ms`` is milliseconds since the epoch."""

    name: str | None
    alias: int | None
    datatype: int | None
    t_ms: int | None
    value: int | float | bool | str | None
    """As it is in the payload: integers without their sign, see :func:`signed`."""


@dataclass(frozen=True, slots=True)
class Payload:
    """One message."""

    t_ms: int | None
    seq: int | None
    metrics: tuple[Metric, ...]


def decode(payload: bytes) -> Payload:
    """Read a payload.

    :raises DecodeError: ``malformed-sparkplug`` if it is none.
    """
    try:
        found = _Payload.FromString(payload)
    except ProtobufError as error:
        raise DecodeError(
            "malformed-sparkplug", f"{len(payload)} bytes are no Sparkplug B payload: {error}"
        ) from error
    return Payload(
        _given(found, "timestamp"),
        _given(found, "seq"),
        tuple(_metric(metric) for metric in found.metrics),
    )


def encode(payload: Payload) -> bytes:
    """Return a payload: commands to nodes, and what tests send."""
    made = _Payload()
    _put(made, "timestamp", payload.t_ms)
    _put(made, "seq", payload.seq)
    for metric in payload.metrics:
        one = made.metrics.add()
        _put(one, "name", metric.name)
        _put(one, "alias", metric.alias)
        _put(one, "timestamp", metric.t_ms)
        _put(one, "datatype", metric.datatype)
        _put_value(one, metric.value, metric.datatype)
    packed: bytes = made.SerializeToString()
    return packed


def rebirth(t_ms: int) -> bytes:
    """Return the command that asks a node for its birth certificates."""
    asked = Metric(REBIRTH, None, DataType.BOOLEAN, t_ms, value=True)
    return encode(Payload(t_ms, None, (asked,)))


def signed(value: int, datatype: int | None) -> int:
    """Return an integer with the sign that its type gives it (two's complement)."""
    bits = _SIGNED_BITS.get(DataType(datatype)) if datatype in _KNOWN else None
    if bits is None:
        return value
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


_KNOWN = frozenset(DataType)


def _given(message: Any, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


def _put(message: Any, field: str, value: object) -> None:
    if value is not None:
        setattr(message, field, value)


def _metric(metric: Any) -> Metric:
    which = metric.WhichOneof("value")
    value = None if which in (None, "bytes_value") or metric.is_null else getattr(metric, which)
    name = _given(metric, "name")
    for text in (name, value):
        # protobuf hands over what is no UTF-8 as bytes.
        if isinstance(text, bytes):
            raise DecodeError("malformed-sparkplug", f"a text is not UTF-8: {text[:40]!r}")
    return Metric(
        name,
        _given(metric, "alias"),
        _given(metric, "datatype"),
        _given(metric, "timestamp"),
        value,
    )


def _put_value(message: Any, value: object, datatype: int | None) -> None:
    if isinstance(value, bool):
        message.boolean_value = value
    elif isinstance(value, int):
        is_long = datatype in (DataType.INT64, DataType.UINT64, DataType.DATETIME)
        if is_long:
            message.long_value = value % (1 << 64)
        else:
            message.int_value = value % (1 << 32)
    elif isinstance(value, float):
        message.double_value = value
    elif isinstance(value, str):
        message.string_value = value
    else:
        message.is_null = True


def _payload_class() -> Any:
    file = FileDescriptorProto(name="sparkplug_b.proto", package="sparkplug", syntax="proto2")
    payload = file.message_type.add(name="Payload")
    metric = payload.nested_type.add(name="Metric")
    metric.oneof_decl.add(name="value")
    for fields, oneof in ((_METRIC, None), (_VALUES, 0)):
        for name, kind, number in fields:
            metric.field.add(
                name=name,
                number=number,
                type=_TYPES[kind],
                label=FieldDescriptorProto.LABEL_OPTIONAL,
                **({} if oneof is None else {"oneof_index": oneof}),
            )
    for name, number in (("timestamp", 1), ("seq", 3)):
        payload.field.add(
            name=name,
            number=number,
            type=_TYPES["uint64"],
            label=FieldDescriptorProto.LABEL_OPTIONAL,
        )
    payload.field.add(
        name="metrics",
        number=2,
        type=FieldDescriptorProto.TYPE_MESSAGE,
        type_name=".sparkplug.Payload.Metric",
        label=FieldDescriptorProto.LABEL_REPEATED,
    )
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("sparkplug.Payload"))


_Payload = _payload_class()
