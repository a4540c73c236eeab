"""Roll calls: a link that is back costs what was changed, not what there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.crdt.site import SITE, TENANT, Site
from crdt.core.errors import WireError
from crdt.core.messages import decode_batch, encode_batch
from crdt.core.rolls import NAME, Roll
from crdt.log import Log
from edge.node import EdgeNode
from streams.adapters.twin_records import reading_of
from streams.gateway.link import Delivery
from streams.gateway.twin_bridge import up_records
from streams.settings import Settings

DEVICES = [f"pump-{number}" for number in range(300)]


def test_those_that_differ_are_told_and_few_others() -> None:
    one, other = Roll(), Roll()
    for device in DEVICES:
        one.put(device, b"same")
        other.put(device, b"same")
    assert one.differing(other.answer(one.call())) == (set(), set(DEVICES))
    one.put("pump-7", b"changed here")
    other.put("pump-8", b"changed there")
    other.put("pump-new", b"only there")
    apart, equal = one.differing(other.answer(one.call()))
    assert {"pump-7", "pump-8"} <= apart
    assert len(apart) < 20
    assert apart | equal == set(DEVICES)
    one.put("pump-7", b"same")
    one.put("pump-8", b"changed there")
    one.put("pump-new", b"only there")
    assert one.differing(other.answer(one.call())) == (set(), {*DEVICES, "pump-new"})


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x82\x01\x41a", b"\x82\x02\x80"])
def test_what_is_no_call_and_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        Roll().answer(data)
    with pytest.raises(WireError):
        Roll().differing(data)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path, DEVICES, Settings())
    for device in DEVICES:
        found.edge.edit(device, {"desired.mode": 1}, ())
    found.talk()
    found.edge.call()
    found.talk()
    assert found.edge.status()["in_sync"] == len(DEVICES)
    yield found
    found.edge.close()


def test_after_a_cut_only_those_that_were_changed_are_talked_about(site: Site) -> None:
    for number in range(5):
        site.edge.edit(DEVICES[number], {"desired.edge": number}, ())
        site.edit_in_cloud(DEVICES[-1 - number], {"desired.cloud": number})
    site.fold()
    site.forget_sent()
    site.sent_bytes = 0
    site.edge.call()
    assert site.edge.greet(all_devices=False) == 0
    site.talk()
    assert site.edge.status()["in_sync"] == len(DEVICES)
    assert site.sent_bytes < 12_000
    for number in range(5):
        there = site.edge.view(DEVICES[-1 - number])
        assert there is not None
        assert there["fields"]["desired.cloud"]["value"] == number


def test_an_edge_in_a_new_life_is_equal_without_a_hello_and_goes_on(
    site: Site, tmp_path: Path
) -> None:
    old = site.edge
    old.close()
    reading = reading_of(site.settings.twins)
    site.edge = EdgeNode(Log(tmp_path / "twins.db"), SITE, reading, lambda: 1_000)
    site.edge.send, site.edge.seal, site.edge.open = site.up.append, old.seal, old.open
    site.edge.keep_rolls(lambda device: 0)
    site.up.clear()
    site.edge.call()
    assert len(site.up) == 1
    site.talk()
    assert site.edge.status()["in_sync"] == len(DEVICES)
    site.edge.edit(DEVICES[0], {"desired.mode": 2}, ())
    assert site.edge.status()["in_sync"] == len(DEVICES) - 1
    site.talk()
    assert site.edge.status()["in_sync"] == len(DEVICES)


def test_a_worker_that_restarts_knows_the_roll_again(site: Site) -> None:
    site.cloud.checkpoint()
    site.cloud.crash()
    site.edge.call()
    before = site.sent_bytes
    site.talk()
    assert site.edge.status()["in_sync"] == len(DEVICES)
    assert site.sent_bytes - before < 2_000


def test_a_call_without_an_answer_ends_in_a_hello_for_each(tmp_path: Path) -> None:
    now_ms = [1_000]
    node = EdgeNode(Log(tmp_path / "t.db"), SITE, reading_of(Settings().twins), lambda: now_ms[0])
    node.keep_rolls(lambda device: 0)
    node.edit("pump-1", {"desired.a": 1}, ())
    node.call()
    assert node.greet(all_devices=False) == 0
    now_ms[0] += 10_001
    assert node.greet(all_devices=False) == 1
    for junk in (f"{NAME}0", f"{NAME}7", f"{NAME}x"):
        node.hear(encode_batch([(junk, b"junk")]))
    assert node.greet(all_devices=False) == 1
    node.close()


def test_a_gateway_puts_a_call_into_its_partition_and_refuses_others() -> None:
    def up(name: str) -> list:
        payload = encode_batch([(name, b"call"), ("pump-1", b"m")])
        return up_records(Delivery(f"hw/v1/{TENANT}/{SITE}/twin/up", payload, 1, 1, 5), Settings())

    call, sync = up(f"{NAME}3")
    assert (call.partition, call.key, call.headers["hw-kind"]) == (3, b"bench/north", b"roll")
    assert sync.headers["hw-kind"] == b"sync"
    for name in (f"{NAME}4", f"{NAME}-1", f"{NAME}", f"{NAME}x"):
        (refused,) = up(name)
        assert refused.headers["hw-reason"] == b"bad-roll"
    assert decode_batch(refused.value)
