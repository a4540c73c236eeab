"""Python's cycle collector, set for processes through which many small objects pass.

Fetched records and parsed messages are tracked objects that hold no cycles, and live until
their batch is folded. With Python's defaults the collector looks through all of them after every
700th: measured, two thirds of the cost of a record on its way from Kafka to a logic
(docs/decisions/0008-fetch-path.md).
"""

from __future__ import annotations

import gc

_YOUNG = 10_000
"""Objects made, less those gone, between two looks at the youngest."""


def settle() -> None:
    """Collect seldom, and never look again at what lives now; call it once all is started."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, 10, 10)
