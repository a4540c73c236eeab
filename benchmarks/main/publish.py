"""``python -m benchmarks.main.publish BROKER PLAN OUT``: publish the load, outside the system."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson

from benchmarks.main.load import Plan, publish

if __name__ == "__main__":
    broker, plan, out = sys.argv[1:]
    Path(out).write_bytes(orjson.dumps(publish(broker, Plan(**orjson.loads(plan)))))
