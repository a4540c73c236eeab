"""Readings in the lake, as the sink writes them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake


def write_readings(root, t_ms, values, later_ms=0, **names):
    """Append readings of one series: ``names`` are tenant, site, device and metric.

    :param later_ms: how long after its time each came in, beside some milliseconds.
    """
    n = len(values)
    table = pa.table(
        {
            **{name: [value] * n for name, value in names.items()},
            "t_ms": t_ms,
            "received_ms": t_ms + later_ms + 10,
            "value": values,
            "quality": np.zeros(n, np.int16),
            "boot": pa.nulls(n, pa.int64()),
            "seq": pa.nulls(n, pa.int64()),
            "text": pa.nulls(n, pa.string()),
            "kafka_ms": t_ms + later_ms + 20,
            "kafka_partition": np.zeros(n, np.int32),
            "kafka_offset": np.arange(n),
            "row": np.zeros(n, np.int32),
        }
    )
    write_deltalake(root / "readings", table, mode="append")
