"""Reads what lies aside, and carries decisions out: the protocol of :mod:`.ledger` on Kafka."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.adapters.log_reader import ends_of, read_all, read_from
from streams.adapters.reading_records import RecordDecoder
from streams.errors import HeadwaterError, ServiceError
from streams.history import read_history, read_ledger
from streams.intake.decode import BatchDecoder
from streams.intake.mapping import TopicMap
from streams.ports import Produce
from streams.recovery.counting import Revision, count_late, devices_of
from streams.recovery.held import Held, Selection
from streams.recovery.ledger import COUNTING, Action, Decision, Ledger, State, Status
from streams.recovery.plans import REDRIVEN_HEADER, Judge, Plan
from streams.settings import Settings
from streams.topics import REDRIVES

_AT_ONCE = 500
"""Records that are begun, written and done together: well within the time after which a
decision counts as abandoned."""
_MAX_REQUEST_BYTES = 2_097_152
Clock = Callable[[], int]
"""Milliseconds since the epoch."""
OPEN = (State.WAITING, State.UNFINISHED)
"""States in which a record can be acted on."""


@dataclass(frozen=True, slots=True)
class Case:
    """A held record and how it stands."""

    held: Held
    state: State


@dataclass(slots=True)
class Done:
    """What a run did: readings put back (or dropped, counted), and records left to others."""

    records: int = 0
    readings: int = 0
    left_to_others: int = 0
    written_before: int = 0
    """Records that a run which died had written already."""


def now_ms() -> int:
    """Return the wall clock in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def judge_of(settings: Settings) -> Judge:
    """Return the judge of today's settings."""
    topics = TopicMap(settings.mappings)
    return Judge(
        skew_ms=settings.devices.skew_ms,
        partitions=settings.topics.partitions,
        max_rows=settings.gateway.max_rows,
        now_ms=now_ms(),
        decoder=lambda: BatchDecoder(
            topics,
            settings.metrics,
            settings.gateway.max_rows,
            settings.gateway.max_payload_bytes,
            settings.codecs,
        ),
        reader=lambda: RecordDecoder(
            settings.metrics, settings.gateway.max_rows, codecs=settings.codecs
        ),
    )


async def find(
    settings: Settings,
    topic: str,
    selection: Selection,
    states: Sequence[State] | None = OPEN,
    clock: Clock = now_ms,
) -> list[Case]:
    """Return the selected records of a topic, oldest first, each once.

    :param states: only these; ``None`` for all.
    """
    ledger = await read_ledger(settings.kafka)
    at_ms = clock()
    found: dict[str, Case] = {}
    async for record in read_all(settings.kafka, [topic]):
        held = Held.of(record)
        if not selection.takes(held) or held.identity in found:
            continue
        state = ledger.state(held.identity, at_ms)
        if states is None or state in states:
            found[held.identity] = Case(held, state)
        if len(found) > 2 * selection.limit:
            found = _oldest(found, selection.limit)
    return list(_oldest(found, selection.limit).values())


def _oldest(found: Mapping[str, Case], limit: int) -> dict[str, Case]:
    ordered = sorted(found.items(), key=lambda item: (item[1].held.written_ms, item[1].held.offset))
    return dict(ordered[:limit])


class Run:
    """One command that acts: its id, its producer, and the ledger as it reads it."""

    def __init__(self, settings: Settings, producer: Any, clock: Clock) -> None:
        self._settings = settings
        self._producer = producer
        self._now_ms = clock
        self.id = uuid.uuid4().hex[:16]

    async def carry_out(self, action: Action, plans: Sequence[Plan], shift_ms: int = 0) -> Done:
        """Carry out the plans that can go.

        :raises ServiceError: if Kafka does not take a record; what is unfinished can be gone on
            with by the same command later.
        """
        done = Done()
        waiting = iter([plan for plan in plans if plan.can_go])
        while chunk := list(islice(waiting, _AT_ONCE)):
            await self._carry_out(action, chunk, shift_ms, done)
        return done

    async def _carry_out(
        self, action: Action, plans: Sequence[Plan], shift_ms: int, done: Done
    ) -> None:
        mine = await self._begin(action, plans, shift_ms)
        done.left_to_others += len(plans) - len(mine)
        written = await self._written_before(mine)
        records = [record for plan, _ in mine for record in plan.records]
        fresh = [r for r in records if r.headers[REDRIVEN_HEADER] not in written]
        done.written_before += len(records) - len(fresh)
        await self.write(fresh)
        await self.finish(action, [plan.held.identity for plan, _ in mine], shift_ms)
        done.records += len(mine)
        done.readings += sum(plan.readings for plan, _ in mine)

    async def _begin(
        self, action: Action, plans: Sequence[Plan], shift_ms: int
    ) -> list[tuple[Plan, Decision | None]]:
        """Begin the plans; return those that are ours, with the decision that ours replaces."""
        places = {(r.topic, r.partition or 0) for plan in plans for r in plan.records}
        ends = await ends_of(self._settings.kafka, places) if places else {}
        before = await read_ledger(self._settings.kafka)
        entries = [
            self._entry(before, action, plan.held.identity, shift_ms, _noted(ends, plan.records))
            for plan in plans
        ]
        await self.write(entries)
        after = await read_ledger(self._settings.kafka)
        return [
            (plan, before.of(plan.held.identity))
            for plan in plans
            if after.owns(self.id, plan.held.identity)
        ]

    def _entry(
        self,
        ledger: Ledger,
        action: Action,
        identity: str,
        shift_ms: int,
        ends: Mapping[str, int],
    ) -> Produce:
        old = ledger.of(identity)
        abandoned = old if ledger.state(identity, self._now_ms()) is State.UNFINISHED else None
        entry = Decision(
            identity,
            self.id,
            action,
            Status.BEGUN,
            self._now_ms(),
            shift_ms,
            # What the first of several dead runs saw: all of them wrote behind it.
            {**ends, **(abandoned.ends if abandoned else {})},
            abandoned.run if abandoned else "",
        )
        return _record(entry)

    async def _written_before(self, mine: Sequence[tuple[Plan, Decision | None]]) -> set[bytes]:
        """Return the marks that runs which died have left behind the offsets they noted."""
        starts: dict[tuple[str, int], int] = {}
        for _, old in mine:
            for place, end in old.ends.items() if old else ():
                topic, _, partition = place.rpartition("/")
                key = topic, int(partition)
                starts[key] = min(end, starts.get(key, end))
        if not starts:
            return set()
        found: set[bytes] = set()
        async for record in read_from(self._settings.kafka, starts):
            found.update(value for name, value in record.headers if name == REDRIVEN_HEADER)
        return found

    async def finish(self, action: Action, identities: Iterable[str], shift_ms: int = 0) -> None:
        """Write that records are done."""
        at_ms = self._now_ms()
        await self.write(
            [
                _record(Decision(identity, self.id, action, Status.DONE, at_ms, shift_ms))
                for identity in identities
            ]
        )

    async def write(self, records: Iterable[Produce]) -> None:
        """Write records and wait for their confirmation.

        :raises ServiceError: if Kafka does not take one.
        """
        try:
            sent = [
                await self._producer.send(
                    r.topic,
                    r.value,
                    key=r.key,
                    partition=r.partition,
                    headers=list(r.headers.items()),
                )
                for r in records
            ]
            await asyncio.gather(*sent)
        except KafkaError as error:
            raise ServiceError(
                f"Kafka did not take a record: {error!r}; repeat the command to go on, nothing "
                "is put back twice"
            ) from error

    async def take_turn(self) -> None:
        """Become the only run that makes revisions.

        :raises HeadwaterError: if another one is at it.
        """
        before = await read_ledger(self._settings.kafka)
        await self.write([self._entry(before, Action.COUNT, COUNTING, 0, {})])
        if not (await read_ledger(self._settings.kafka)).owns(self.id, COUNTING):
            raise HeadwaterError(
                "another headwater redrive late is under way; repeat the command when it is done"
            )

    async def count(self, cases: Sequence[Held]) -> tuple[list[Plan], list[Revision], Done]:
        """Count late readings into their windows, as the one run whose turn it is.

        :raises HeadwaterError: if another run is at it.
        """
        await self.take_turn()
        try:
            plans, revisions = await plan_counting(self._settings, cases)
            going = [plan for plan in plans if plan.can_go]
            mine = await self._begin(Action.COUNT, going, 0)
            if len(mine) < len(going):
                raise HeadwaterError("readings were decided on meanwhile; repeat the command")
            await self.write([revision.record for revision in revisions])
            await self.finish(Action.COUNT, [plan.held.identity for plan in going])
        finally:
            await self.finish(Action.COUNT, [COUNTING])
        return plans, revisions, Done(records=len(going), readings=len(going))


@asynccontextmanager
async def run_on(settings: Settings, clock: Clock = now_ms) -> AsyncIterator[Run]:
    """Yield a run with a producer that neither loses nor repeats."""
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka,
        acks="all",
        enable_idempotence=True,
        max_request_size=_MAX_REQUEST_BYTES,
    )
    await producer.start()
    try:
        yield Run(settings, producer, clock)
    finally:
        await producer.stop()


async def plan_counting(
    settings: Settings, late: Sequence[Held]
) -> tuple[list[Plan], list[Revision]]:
    """Plan the revisions that count late readings, from the lake and Kafka."""
    with await read_history(settings, devices_of(late)) as history:
        counting = count_late(settings, history, late)
    return counting.plans, counting.revisions


def _noted(ends: Mapping[tuple[str, int], int], records: Sequence[Produce]) -> dict[str, int]:
    places = {(record.topic, record.partition or 0) for record in records}
    return {f"{topic}/{partition}": ends[topic, partition] for topic, partition in places}


def _record(entry: Decision) -> Produce:
    return Produce(REDRIVES, entry.encode(), entry.identity.encode(errors="replace"))
