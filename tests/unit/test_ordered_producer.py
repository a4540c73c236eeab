"""The ordered producer over a fake Kafka whose confirmations a test gives by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaError

from streams.gateway import producer as module
from streams.gateway.producer import Batch, OrderedProducer
from streams.ports import Produce
from tests.waiting import PATIENCE_S, eventually_async


class FakeKafka:
    """What OrderedProducer uses of an AIOKafkaProducer."""

    def __init__(self, log: list[tuple[bytes, asyncio.Future[object]]]) -> None:
        self.log = log
        self.client = self

    async def send(self, _topic: str, value: bytes, **_rest: Any) -> asyncio.Future[object]:
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.log.append((value, future))
        return future

    async def stop(self) -> None: ...

    async def close(self) -> None: ...


class UnderTest(OrderedProducer):
    def __init__(self, window: int = 3) -> None:
        super().__init__("nowhere:1", "test", window, 4)
        self.sent: list[tuple[bytes, asyncio.Future[object]]] = []
        self.connections = 0

    async def _connect(self) -> Any:
        self.connections += 1
        return FakeKafka(self.sent)

    async def _check_topics(self) -> None: ...

    def values(self) -> list[bytes]:
        return [value for value, _ in self.sent]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_MIN_S", 0.01)
    monkeypatch.setattr(module, "_STALLED_S", 0.05)


async def running(producer: UnderTest) -> asyncio.Task[None]:
    await producer.start()
    return asyncio.create_task(producer.run())


def batch(done: list[int], number: int, values: list[bytes]) -> Batch:
    return Batch([Produce("readings", value) for value in values], lambda: done.append(number))


async def wait_for(condition: Any) -> None:
    async def probe() -> bool:
        return bool(condition())

    await eventually_async(probe, every_s=0.005)


async def test_a_batch_is_confirmed_when_its_last_record_is() -> None:
    producer, done = UnderTest(), list[int]()
    task = await running(producer)
    await producer.submit(batch(done, 1, [b"a", b"b"]))
    producer.sent[1][1].set_result(None)
    await asyncio.sleep(0)
    assert done == []
    producer.sent[0][1].set_result(None)
    await wait_for(lambda: done == [1])
    await producer.flush()
    task.cancel()


async def test_batches_are_confirmed_in_order_whatever_order_kafka_answers_in() -> None:
    producer, done = UnderTest(), list[int]()
    task = await running(producer)
    for number in (1, 2, 3):
        await producer.submit(batch(done, number, [b"%d" % number]))
    producer.sent[2][1].set_result(None)
    producer.sent[1][1].set_result(None)
    await asyncio.sleep(0)
    assert done == []
    producer.sent[0][1].set_result(None)
    await wait_for(lambda: done == [1, 2, 3])
    task.cancel()


async def test_a_failure_sends_everything_unconfirmed_again_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_STALLED_S", PATIENCE_S)  # What it says is the failure.
    producer, done = UnderTest(), list[int]()
    task = await running(producer)
    for number in (1, 2, 3):
        await producer.submit(batch(done, number, [b"%d" % number]))
    producer.sent[0][1].set_result(None)
    producer.sent[1][1].set_exception(KafkaError("lost"))
    producer.sent[2][1].set_exception(KafkaError("lost too"))
    await wait_for(lambda: len(producer.sent) == 5)
    assert producer.values() == [b"1", b"2", b"3", b"2", b"3"]
    assert producer.connections == 2
    assert done == [1]
    assert "refused" in producer.why_not_ready
    for _, future in producer.sent[3:]:
        future.set_result(None)
    await wait_for(lambda: done == [1, 2, 3])
    assert producer.why_not_ready == ""
    task.cancel()


async def test_a_full_window_holds_the_next_batch_back() -> None:
    producer, done = UnderTest(window=1), list[int]()
    task = await running(producer)
    await producer.submit(batch(done, 1, [b"1"]))
    second = asyncio.create_task(producer.submit(batch(done, 2, [b"2"])))
    for _ in range(10):  # Nothing but the loop is between it and this Kafka.
        await asyncio.sleep(0)
    assert producer.values() == [b"1"]
    producer.sent[0][1].set_result(None)
    await second
    assert producer.values() == [b"1", b"2"]
    task.cancel()


async def test_silence_of_kafka_shows_as_not_ready_and_confirms_nothing() -> None:
    producer, done = UnderTest(), list[int]()
    task = await running(producer)
    await producer.submit(batch(done, 1, [b"1"]))
    await wait_for(lambda: "not confirmed" in producer.why_not_ready)
    assert done == []
    producer.sent[0][1].set_result(None)
    await wait_for(lambda: done == [1])
    assert producer.why_not_ready == ""
    task.cancel()


async def test_a_batch_whose_records_are_still_being_handed_over_is_not_confirmed() -> None:
    producer, done = UnderTest(), list[int]()
    task = await running(producer)
    release = asyncio.Event()
    kafka: Any = producer._producer
    immediate = kafka.send

    async def slow(topic: str, value: bytes, **rest: Any) -> asyncio.Future[object]:
        if value == b"slow":
            await release.wait()
        future: asyncio.Future[object] = await immediate(topic, value, **rest)
        return future

    kafka.send = slow
    await producer.submit(batch(done, 1, [b"1"]))
    second = asyncio.create_task(producer.submit(batch(done, 2, [b"slow"])))
    producer.sent[0][1].set_result(None)
    await wait_for(lambda: done == [1])
    await wait_for(lambda: "not confirmed" in producer.why_not_ready)
    assert done == [1]
    release.set()
    await second
    producer.sent[1][1].set_result(None)
    await wait_for(lambda: done == [1, 2])
    task.cancel()
