"""A worker of its own kind: its logic notes what it is given, so that a test can judge it."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import orjson
from faust.types import TP

from streams.adapters import record_batches
from streams.agents.host import HostOptions
from streams.app import AgentSpec, AppSpec, build, run
from streams.log import configure
from streams.ports import Produce
from streams.settings import Settings


class Notes:
    """Lines of JSON in a file, one per happening."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def add(self, **what: object) -> None:
        self._file.write(orjson.dumps(what) + b"\n")


class Keeper:
    """Counts records; the count is its state."""

    def __init__(self, partition, notes, options, hurry):
        self.partition, self.notes, self.options, self.hurry = partition, notes, options, hurry
        self.count, self.stamp, self.since = 0, -1, None

    def fold(self, records):
        if not self.hurry.exists():
            time.sleep(self.options.get("slow_s", 0))
        fresh = [r for r in records if r.offset > self.stamp]
        data = [r for r in fresh if not r.headers]
        self.count += len(data)
        if fresh and self.since is None:
            self.since = fresh[0].offset
        self.notes.add(
            partition=self.partition,
            offsets=[r.offset for r in records],
            values=[r.value.decode() for r in data],
            kinds=sorted({type(r).__name__ for r in records}),
            count=self.count,
        )
        return [Produce(self.options["results"], b"", b"")] if "results" in self.options else []

    def dirty(self):
        held = self.since is None or self.options.get("hold", False)
        return {} if held else {"count": self.since}

    def snapshot(self, key):
        self.since = None
        return b"%d" % self.count

    def restore(self, key, stamp, state):
        self.count, self.stamp = int(state), stamp

    def wants_time(self):
        return self.options.get("wants_time", False)


def main(kafka: str, topic: str, group: str, home: Path, options: dict) -> None:
    notes = Notes(home / "notes.jsonl")
    settings = Settings(
        kafka=kafka,
        state=home,
        topics={"partitions": 2},
        worker={"max_poll_records": options.get("max_poll_records", 2000), "buffer_batches": 2},
    )
    configure(settings.log, "transport")

    class Consumer(record_batches.Consumer):
        def on_buffer_full(self, tp):
            notes.add(full=tp.partition)
            super().on_buffer_full(tp)

    class Producer(record_batches.Producer):
        async def send(self, topic, *args, **kwargs):
            while topic == options.get("results") and not (home / "hurry").exists():  # noqa: ASYNC110 a file tells nobody
                await asyncio.sleep(0.05)
            return await super().send(topic, *args, **kwargs)

    record_batches.Transport.Consumer = Consumer
    record_batches.Transport.Producer = Producer
    spec = AppSpec(
        name="transport",
        id=group,
        instance_id=options.get("instance_id"),
        agents=[
            AgentSpec(topic, lambda partition, _: Keeper(partition, notes, options, home / "hurry"))
        ],
        ops_port=options["port"],
        store=options.get("store", "memory"),
        standbys=options.get("standbys", 0),
        options=HostOptions(checkpoint_ms=100, silent_ms=300, stalled_ms=1_000),
    )
    app = build(spec, settings)
    if "plain" in options:

        @app.agent(app.topic(options["plain"], value_type=bytes, value_serializer="raw"))
        async def on_plain(stream):
            async for event in stream.events():
                notes.add(plain=event.value.decode(), offset=event.message.offset)

    @app.task
    async def seek_when_told():
        while not (home / "seek").exists():  # noqa: ASYNC110 a file tells nobody
            await asyncio.sleep(0.05)
        await app.consumer.seek_wait({TP(topic, 0): 0})
        notes.add(sought=0)

    run(app)


if __name__ == "__main__":
    kafka, topic, group, home, options = sys.argv[1:]
    sys.argv[1:] = []
    main(kafka, topic, group, Path(home), orjson.loads(options))
