"""The demo, small: everything adds up, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys

import orjson
import psutil


def test_the_demo_ends_well_and_leaves_no_process(tmp_path):
    mine = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")}
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli.main", "demo", "--scale", "0.08", "--json"],
        cwd=tmp_path,
        env={**mine, "HEADWATER_STATE": str(tmp_path / "state")},
        capture_output=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    summary = orjson.loads(done.stdout)
    assert summary["holds"]
    assert summary["audit"]["holds"]
    assert summary["audit"]["influx"]["windows"] == summary["audit"]["windows"] > 1000
    assert summary["audit"]["classes"]["accepted"] == summary["audit"]["influx"]["count"]
    assert summary["alerts"]["firing"] > 0
    assert summary["twin"]["conflicts"], "both sides wrote the same field"
    assert summary["twin"]["fields"]["desired.limits.vibration"] == 65
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if any(str(tmp_path) in part for part in process.info["cmdline"] or ())
    ]
    assert left == []
