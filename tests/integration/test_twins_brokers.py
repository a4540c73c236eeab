"""Twins and commands of an edge that moves from broker to broker, because each dies."""

from __future__ import annotations

from pathlib import Path

from tests import web
from tests.conftest import Servers
from tests.integration.test_gateway_brokers import another_broker
from tests.integration.test_twins import World, running_world
from tests.waiting import eventually


def carried_out(world: World, number: int) -> None:
    """Change the twin on both sides, and send a command that the device carries out."""
    world.edit("edge", reported_load=number)
    world.edit("api", desired_limit=number)
    world.wait_equal(reported_load=number, desired_limit=number)
    cloud = ["--api", world.url("api"), "--tenant", world.tenant]
    world.headwater("send", world.device, "blink", "--id", f"c{number}", *cloud, group="command")
    base = f"{world.url('edge')}/v1/devices/{world.device}/commands"
    assert world.next_command()["id"] == f"c{number}"
    web.post(f"{base}/c{number}/report", json={"state": "done"}).raise_for_status()

    def done() -> bool:
        url = f"{world.url('api')}/v1/devices/{world.device}/commands"
        listed = web.get(url, params={"tenant": world.tenant}).json()
        return {one["id"]: one["state"] for one in listed}.get(f"c{number}") == "done"

    eventually(done, what=f"c{number} is done")


def test_a_broker_that_dies_moves_its_edges_with_twins_and_commands(
    servers: Servers, tmp_path: Path
) -> None:
    with (
        another_broker(tmp_path / "b") as other,
        running_world(servers, tmp_path, [other.address]) as world,
    ):
        # The edge sees the main broker through a link: cut, it is gone for the edge alone.
        carried_out(world, 1)
        world.proxy.cut()
        carried_out(world, 2)
        world.proxy.heal()
        other.process.kill()
        carried_out(world, 3)
        eventually(lambda: world.ready("gateway"), what="ready with one broker")
