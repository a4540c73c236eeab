"""Shards on disk: RocksDB below a Faust table whose keys name their partition.

Faust's own store asks the current event for the partition of a key, and walks through all
databases for the rest. A checkpoint has no current event, and our keys know better. What a
process had written when it died may be newer than its changelog, and is none the worse: every
piece is stamped with the offset it stands for, and the log is read again from the commit position.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from faust.stores import rocksdb

from streams.adapters.shard_keys import partition_in

OPTIONS = {
    "driver": "rocksdict",
    "max_open_files": 256,
    "write_buffer_size": 4 << 20,
    "max_write_buffer_number": 2,
    "target_file_size_base": 16 << 20,
    "block_cache_size": 1 << 20,
}
"""There is one database per table and partition, pieces are large, and read only at a start."""


class Store(rocksdb.Store):
    """Faust's store for RocksDB, with keys of :class:`~streams.adapters.shard_table.ShardTable`."""

    def of_partition(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys and values of one partition."""
        yield from self._visible_items(self._db_for_partition(partition))

    def _set(self, key: bytes, value: bytes | None) -> None:
        self._db_of(key).put(key, value)

    def _get(self, key: bytes) -> bytes | None:
        found: bytes | None = self._db_of(key).get(key)
        return found

    def _contains(self, key: bytes) -> bool:
        return self._get(key) is not None

    def _del(self, key: bytes) -> None:
        self._db_of(key).delete(key)

    def _db_of(self, key: bytes) -> Any:
        return self._db_for_partition(partition_in(key))
