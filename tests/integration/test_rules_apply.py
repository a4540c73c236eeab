"""Rules, routes and comparisons change in running processes, over a kill."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import orjson
from aiokafka import AIOKafkaProducer

from streams.alerts.secrets import new_secret
from tests.integration.test_alerts import Receiver
from tests.waiting import eventually
from tests.windows import result, results_frame

HEAD = """
[[webhooks]]
name = "hook"
url = "http://127.0.0.1:{port}/"
secret_file = "{folder}/secret"
allow_private = true
[alerts]
instance_id = "a1"
compare_quiet_ms = 100
[worker]
silent_ms = 200
"""
HOT = '[[rules]]\nname = "hot"\nkind = "threshold"\nwindow = "1m"\nover = 90.0\nresolve_ms = 0\n'
WARM = HOT.replace("hot", "warm").replace("90.0", "50.0")
ODD = (
    '[[rules]]\nname = "odd"\nkind = "compare"\nwindow = "1m"\namong = "site"\nover = 20.0\n'
    "resolve_ms = 0\n"
)
ROUTE = '[[routes]]\nname = "all"\ngroup_wait_ms = 100\ngroup_interval_ms = 100\n'


def test_rules_and_routes_change_in_a_running_process_and_over_a_kill(
    own_servers, processes, tmp_path
):
    (tmp_path / "secret").write_text(new_secret())
    toml = tmp_path / "headwater.toml"
    env = own_servers.env(tmp_path, HEADWATER_CONFIG=str(toml))
    base_ms = int(time.time()) // 60 - 20
    with Receiver() as receiver:
        head = HEAD.format(port=receiver.port, folder=tmp_path)

        def apply(*sections):
            toml.write_text(head + "".join(sections))
            command("config", "apply", "--yes")

        def command(*words):
            run = [sys.executable, "-m", "streams.cli.main", *words]
            return subprocess.run(run, env=env, capture_output=True, text=True, check=True).stdout

        def publish(*rows):
            kafka = own_servers.addresses["kafka"]
            now_ms = int(time.time() * 1000)
            asyncio.run(_publish(kafka, [{**row, "kafka_ms": now_ms} for row in rows]))

        def row(minute, value, device="d"):
            return result(base_ms + minute, value, device=device)

        def said():
            seen = {}
            for headers, body in receiver.got:
                data = orjson.loads(body)["data"]
                for one in data.get("alerts", [data]):
                    key = (headers["webhook-id"], one["device"])
                    seen[key] = (one["device"], one["rule"], one["state"])
            return sorted(seen.values())

        toml.write_text(head + HOT)
        processes("worker", env=env)  # Notes what was there before the first change.
        process = processes("alerts", env=env)
        publish(row(0, 95.0))
        eventually(lambda: said() == [("d", "hot", "firing")])
        eventually(lambda: len(listed(command)) == 1)

        eventually(lambda: "no worker" not in _output(command))
        apply(WARM, ODD, ROUTE)
        wanted = [("d", "hot", "firing"), ("d", "hot", "resolved")]
        eventually(lambda: said() == wanted)
        assert "is not in the settings any more" in receiver.got[-1][1].decode()

        publish(*(row(1, value, f"d{value:.0f}") for value in (1.0, 2.0, 3.0, 60.0)))
        wanted += [("d60", "odd", "firing"), ("d60", "warm", "firing")]
        eventually(lambda: said() == sorted(wanted))

        # The file has no routes any more, but those that were applied count.
        toml.write_text(head + ODD)

        def warm():
            return [a for a in listed(command) if a["rule"] == "warm"]

        (one,) = eventually(warm)
        assert "muted" not in one
        command("alerts", "ack", one["id"])
        command("alerts", "silence", "--rule", "warm")

        def seen():
            (one,) = warm()
            return "acknowledged_by" in one and one.get("muted", "").startswith("silence")

        eventually(seen, what="acknowledged and silenced")

        process.kill()
        process.wait()
        apply(ODD)
        processes("alerts", env=env)
        wanted.append(("d60", "warm", "resolved"))
        eventually(lambda: said() == sorted(wanted))
        publish(*(row(2, value, f"d{value:.0f}") for value in (1.0, 2.0, 3.0)), row(2, 4.0, "d60"))
        wanted.append(("d60", "odd", "resolved"))
        eventually(lambda: said() == sorted(wanted))


def listed(command):
    return orjson.loads(command("alerts", "list", "--json"))


def _output(command):
    try:
        return command("config", "diff")
    except subprocess.CalledProcessError as error:
        return error.stdout + error.stderr


async def _publish(kafka, rows):
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await producer.send_and_wait("aggregates", results_frame(*rows), partition=1)
