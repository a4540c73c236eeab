"""Where a device lives: its Kafka partition, and its shard inside that partition.

Both follow from the device's key alone, so that every gateway, worker and script agrees
without asking anyone. The partition is Kafka's own default for keyed records
(murmur2, as in ``org.apache.kafka.clients.producer.internals.BuiltInPartitioner``), so a
producer of any language that sends the key ``tenant/device`` lands in the same place.
"""

from __future__ import annotations

from functools import lru_cache
from zlib import crc32

import numpy as np

from streams.core.device_names import DeviceKeys
from streams.core.readings import Int32

_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def device_key(tenant: str, device: str) -> bytes:
    """Return the Kafka key of a device: ``tenant/device`` in UTF-8."""
    return f"{tenant}/{device}".encode()


def murmur2(data: bytes) -> int:
    """Return Kafka's 32-bit murmur2 hash of *data*, unsigned (Appleby 2008, seed 0x9747b28c)."""
    length = len(data)
    h = 0x9747B28C ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little")
        k = (k * _M) & _MASK
        k ^= k >> 24
        k = (k * _M) & _MASK
        h = ((h * _M) & _MASK) ^ k
    rest = data[whole:]
    if rest:
        h ^= int.from_bytes(rest, "little")
        h = (h * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    return h ^ (h >> 15)


@lru_cache(maxsize=262_144)
def partition_of(tenant: str, device: str, partitions: int) -> int:
    """Return the partition of a device in every data topic."""
    return (murmur2(device_key(tenant, device)) & 0x7FFFFFFF) % partitions


def shard_of(tenant: str, device: str, shards: int) -> int:
    """Return the shard of a device inside its partition.

    By another hash than the partition (CRC-32), so that the shards of one partition are evenly
    filled whatever the two counts are.
    """
    return crc32(device_key(tenant, device)) % shards


def shards_of(keys: DeviceKeys, shards: int) -> Int32:
    """Return the shard of each of many devices; see :func:`shard_of`."""
    begun = {tenant: crc32(device_key(tenant, "")) for tenant in set(keys.tenants)}
    crcs = [crc32(device.encode(), begun[tenant]) for tenant, device in keys]
    found: Int32 = (np.asarray(crcs, np.int64) % shards).astype(np.int32)
    return found


def group_key(tenant: str, rollup: str, group: str) -> bytes:
    """Return the Kafka key of a group: ``tenant/rollup/group`` in UTF-8."""
    return f"{tenant}/{rollup}/{group}".encode()


def group_partition(key: bytes, partitions: int) -> int:
    """Return the partition of a group of devices or of alerts, from its key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
