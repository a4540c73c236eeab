"""An edge on a small file system of its own that fills up: nothing acknowledged is lost."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from streams.sim.proxy import Proxy
from tests import web
from tests.integration.edge_child import EdgeChild, edge_node
from tests.integration.gateway_child import gateway, reader, unique
from tests.waiting import eventually, eventually_async

_SMALL, _LARGE = "2m", "32m"


@contextmanager
def small_disk(folder: Path, size: str = _SMALL) -> Iterator[Path]:
    """A tmpfs; skips the test where none may be mounted."""
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mounting, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no small file system here: {error}")
    if done.returncode:
        pytest.skip(f"no small file system here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def grow(disk: Path) -> None:
    subprocess.run(["mount", "-o", f"remount,size={_LARGE}", str(disk)], check=True)


def value(number: int) -> float:
    """Of a reading; the values compress badly."""
    return number + (number * 2_654_435_761 % 4_294_967_291) / 2**32


class Numbered:
    """A device that posts numbered readings in order, each until it is taken."""

    def __init__(self, device: str) -> None:
        self.device, self.accepted = device, 0

    def post(self, edge: EdgeChild, count: int = 1_000) -> httpx.Response:
        first = self.accepted
        rows = [
            {
                "device": self.device,
                "t_ms": 1_750_000_000_000 + n,
                "boot": 1,
                "seq": n,
                "m": value(n),
            }
            for n in range(first, first + count)
        ]
        answer = edge.post(rows)
        if answer.status_code == 202:
            self.accepted += count
        return answer

    def until_refused(self, edge: EdgeChild) -> httpx.Response:
        """Post until the edge takes no more; return what it says."""
        for _ in range(1_000):
            answer = self.post(edge)
            if answer.status_code != 202:
                return answer
        raise AssertionError(f"{self.accepted} readings, and the disk is not full")


def edit_twin(edge: EdgeChild, device: str) -> int:
    """Change a twin at the edge; return the status of the answer."""
    url = f"http://127.0.0.1:{edge.port}/v1/devices/{device}/twin"
    answer = web.patch(url, json={"tags.note": "x" * 500})
    assert answer.status_code in (200, 503), answer.text
    return answer.status_code


async def test_a_full_disk_holds_readings_back_loses_none_and_recovers_with_room(
    kafka: str, mqtt: str, tmp_path: Path
) -> None:
    parts = urlsplit(mqtt)
    assert parts.hostname and parts.port
    arrived = await reader(kafka)
    device = Numbered(unique("dev"))
    with (
        small_disk(tmp_path / "disk") as disk,
        Proxy(parts.hostname, parts.port) as link,
        gateway(kafka, mqtt, tmp_path, ""),
        edge_node(
            f"mqtt://127.0.0.1:{link.port}",
            tmp_path,
            unique("site"),
            HEADWATER_EDGE__DATA=str(disk / "edge"),
            HEADWATER_EDGE__UPLINK__ANSWER_MIN_MS="500",
        ) as edge,
    ):
        link.cut()
        full = device.until_refused(edge)
        assert full.status_code == 503
        assert "the disk is full" in full.json()["detail"]["detail"]
        assert full.headers["retry-after"]
        assert edge.metric("disk_full_total") > 0
        waiting = edge.waiting()
        # What the disk holds is all that was accepted, and it is there after a kill on a full disk.
        assert waiting == device.accepted
        for _ in range(2):
            edge.kill()
            edge.start()
            assert edge.waiting() == waiting
        while device.post(edge, 50).status_code == 202:  # a start leaves less than a step
            pass
        waiting = edge.waiting()
        # A twin is not changed in memory only: its edit is refused, too.
        edits = (edit_twin(edge, f"{device.device}-{n}") for n in range(500))
        assert next(code for code in edits if code != 200) == 503
        # The uplink empties a full disk, and needs no room of its own for it.
        link.heal()
        eventually(lambda: edge.waiting() < waiting, what="the backlog goes up")
        eventually(lambda: device.post(edge).status_code == 202, every_s=0.2, what="room again")
        link.cut()
        assert device.until_refused(edge).status_code == 503
        grow(disk)
        assert device.post(edge).status_code == 202
        link.heal()
        eventually(lambda: edge.waiting() == 0)
        assert edge.status()["given_up"] == {}
        assert edge.waiting("losses") == 0
        sent = {value(n) for n in range(device.accepted)}

        async def complete() -> bool:
            await arrived.read()
            return set(arrived.of(device.device)) == sent

        await eventually_async(complete, what=f"{device.accepted} readings")
    await arrived.consumer.stop()
