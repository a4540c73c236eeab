"""Rebuilds windows: the log of each partition from the lake, and from Kafka where that lags.

What was told is noted in ``rebuilds/`` under ``state``, partition by partition: a run that ended
early is gone on with. Where the note is lost, or a run ends between telling and noting, results are
told again, with the same bits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.adapters import frames, results
from streams.adapters.config_log import Documents, marked_at
from streams.adapters.lake import LakeTable, dataset_of, log_rows, opened, readings_of
from streams.adapters.log_reader import begins_of, ends_of, read_from
from streams.adapters.reading_records import RecordDecoder
from streams.agents.changing import ALWAYS
from streams.core.results import WindowResults
from streams.errors import ServiceError, SettingsError
from streams.ports import is_time_marker
from streams.recovery.rebuilding import ROWS_OF_A_FRAME, Rebuild, Unfinished
from streams.settings import Settings, Window
from streams.settings.applied import Document, in_force, introduced, newest
from streams.settings.generations import base_name, generation_of
from streams.topics import AGGREGATES, READINGS
from streams.version import VERSION

_ROWS_AT_ONCE = 20_000
_RECORDS_AT_ONCE = 5_000
_MAX_REQUEST_BYTES = 2_097_152
_LAKE_MEMORY = "1GB"
"""Beyond it DuckDB sorts on disk."""
_BEHIND = """
SELECT tenant, site, device, metric, t_ms, received_ms, kafka_ms, value, text, quality, boot, seq,
    kafka_offset, row
FROM lake WHERE kafka_partition = $partition AND kafka_offset < $behind AND kafka_ms >= $since_ms
ORDER BY kafka_offset, row
"""
_FIRST = "SELECT min(kafka_offset) FROM lake WHERE kafka_partition = $partition"


@dataclass(frozen=True, slots=True)
class Job:
    """Windows that one document brought, and where in ``readings`` it came into force."""

    document: Document
    windows: Sequence[Window]
    markers: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """How far a run is in a partition: the offset that it reached, and what it has told."""

    partition: int
    offset: int
    told: int


@dataclass(slots=True)
class Outcome:
    """What a run did, over all partitions."""

    windows: list[str]
    readings: int = 0
    told: int = 0
    left_out: int = 0
    """Results of windows whose readings are not all there any more."""
    open: int = 0
    """Devices, per window definition, with a window from before the change that is open."""
    correctable: int = 0
    """Those whose last such window is closed, but within its horizon."""
    noted_before: int = 0
    """Partitions that an earlier run, which ended early, had done."""


async def jobs_of(settings: Settings, names: Sequence[str]) -> tuple[Settings, list[Job]]:
    """Return the settings in force, and what is to be rebuilt under them.

    :param names: windows as the settings name them; none for all that are a further generation.
    :raises SettingsError: if a window is not in force, or has been there all along.
    """
    documents = Documents()
    now = in_force(settings, await documents.refresh(settings.kafka))
    newest_one = newest(documents.values())
    known = {base_name(window.name): window for window in now.windows}
    wanted = names or [name for name, w in known.items() if generation_of(w.name) > 1]
    by_document: dict[str, tuple[Document, list[Window]]] = {}
    for name in wanted:
        window = known.get(base_name(name))
        if window is None or newest_one is None:
            raise SettingsError(f"no window {name!r} is in force, expected one of {sorted(known)}")
        brought_by = introduced(documents.values(), window.name)
        if brought_by is None:
            raise SettingsError(
                f"the window {name!r} has been there all along: there is nothing to rebuild"
            )
        by_document.setdefault(brought_by.id, (brought_by, []))[1].append(window)
    jobs = []
    for document, windows in by_document.values():
        markers = await marked_at(settings.kafka, document, settings.topics.partitions)
        jobs.append(Job(document, windows, markers))
    return now, jobs


async def rebuild(
    settings: Settings,
    job: Job,
    *,
    since_ms: int = 0,
    on_step: Callable[[Step], None] = lambda step: None,
    goes_on: Callable[[], Awaitable[bool]] | None = None,
) -> Outcome:
    """Tell the windows of a job from before its marker.

    :param settings: those in force.
    :param since_ms: leave out readings whose log time is earlier, and windows that need them.
    :param goes_on: awaited while windows from before the marker are open; the log is followed for
        as long as it says so.
    :raises ServiceError: if Kafka cannot be reached.
    """
    note = Note.of(settings, job, since_ms)
    partitions = range(settings.topics.partitions)
    todo = [partition for partition in partitions if partition not in note.told]
    outcome = Outcome([w.name for w in job.windows], noted_before=len(partitions) - len(todo))
    followed: list[_Run] = []
    async with _teller(settings) as tell:
        for partition in todo:
            run = _Run(settings, job, partition, since_ms, tell, on_step)
            await run.fold_all()
            if goes_on is not None and run.unfinished().open:
                followed.append(run)
                continue
            _count(outcome, run)
            note.add(partition)
        while goes_on is not None and any(r.unfinished().open for r in followed):
            if not await goes_on():
                break
            for run in followed:
                await run.fold_tail()
    for run in followed:
        _count(outcome, run)
    note.remove()
    return outcome


def _count(outcome: Outcome, run: _Run) -> None:
    found = run.unfinished()
    outcome.readings += run.readings
    outcome.told += run.told
    outcome.left_out += run.rebuild.left_out if run.rebuild else 0
    outcome.open += found.open
    outcome.correctable += found.correctable


class Note:
    """Which partitions a run has told that has not come to its end."""

    def __init__(self, path: Path, windows: Sequence[str], told: list[int]) -> None:
        self._path = path
        self._windows = list(windows)
        self.told = told

    @staticmethod
    def of(settings: Settings, job: Job, since_ms: int) -> Note:
        """Return what the last run has left, if it had the same to do."""
        windows = sorted(window.name for window in job.windows)
        path = settings.state / "rebuilds" / f"{job.document.id}-{since_ms}.json"
        try:
            held = orjson.loads(path.read_bytes())
            told = list(held["told"]) if held["windows"] == windows else []
        except (OSError, ValueError, TypeError, KeyError):
            told = []
        return Note(path, windows, told)

    def add(self, partition: int) -> None:
        """Note that a partition is told."""
        self.told.append(partition)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_suffix(".new")
        aside.write_bytes(orjson.dumps({"windows": self._windows, "told": self.told}))
        aside.replace(self._path)

    def remove(self) -> None:
        """All is told: the next run begins anew."""
        self._path.unlink(missing_ok=True)


Tell = Callable[[int, WindowResults], Awaitable[None]]


@dataclass(slots=True)
class _Run:
    """One partition."""

    settings: Settings
    job: Job
    partition: int
    since_ms: int
    tell: Tell
    on_step: Callable[[Step], None]
    readings: int = 0
    told: int = 0
    rebuild: Rebuild | None = None
    clock_ms: int = 0
    next: int = 0

    def unfinished(self) -> Unfinished:
        """Return what is left of the windows from before the marker."""
        return self.rebuild.unfinished() if self.rebuild else Unfinished()

    async def fold_all(self) -> None:
        """Fold what the lake has, and what Kafka holds behind it."""
        place, root = (READINGS, self.partition), self.settings.lake.absolute()
        begin = (await begins_of(self.settings.kafka, [place]))[place]
        table = opened(root, READINGS)
        behind = LakeTable(root, READINGS).next_offset(self.partition)
        if table is None or behind is None or behind < begin:
            self.next = begin
            await self._fold_kafka(is_cut=begin > 0)
            return
        with duckdb.connect() as db:
            db.execute(f"SET memory_limit = '{_LAKE_MEMORY}'")
            db.execute(f"SET temp_directory = '{_quoted(self.settings.state / 'rebuilds')}'")
            db.register("lake", dataset_of(table))
            first = db.execute(_FIRST, {"partition": self.partition}).fetchall()[0][0]
            is_cut = begin > 0 and bool(first)
            where = {"partition": self.partition, "behind": behind, "since_ms": self.since_ms}
            batches: Any = db.execute(_BEHIND, where).to_arrow_reader(_ROWS_AT_ONCE)
            for batch in batches:
                await self._fold(pa.Table.from_batches([batch]), is_cut=is_cut)
        self.next = behind
        await self._fold_kafka(is_cut=is_cut)

    async def fold_tail(self) -> None:
        """Fold what has come since."""
        await self._fold_kafka(is_cut=False)

    async def _fold_kafka(self, *, is_cut: bool) -> None:
        """Fold what Kafka holds; its last record is read in any case, for the time of the log."""
        place, first = (READINGS, self.partition), self.next
        end = (await ends_of(self.settings.kafka, [place]))[place]
        decoder = RecordDecoder(
            self.settings.metrics, self.settings.gateway.max_rows, codecs=self.settings.codecs
        )
        waiting: list[Any] = []
        last = None
        async for record in read_from(self.settings.kafka, {place: min(first, max(end - 1, 0))}):
            last = record
            if record.offset >= first and not is_time_marker(record):
                waiting.append(record)
            if len(waiting) >= _RECORDS_AT_ONCE:
                await self._fold_records(waiting, decoder, is_cut=is_cut)
                waiting = []
        await self._fold_records(waiting, decoder, is_cut=is_cut)
        if last is not None:
            self.clock_ms = max(self.clock_ms, last.timestamp)
            self.next = max(self.next, last.offset + 1)
            self._begun(last.timestamp, is_cut=is_cut).advance(self.clock_ms, last.offset)
            await self._tell_all(self.next, least=1)

    async def _fold_records(
        self, records: Sequence[Any], decoder: RecordDecoder, *, is_cut: bool
    ) -> None:
        if records:
            rows, _ = readings_of(self.partition, records, decoder)
            recent = rows["kafka_ms"].to_numpy() >= self.since_ms
            await self._fold(rows.filter(pa.array(recent)), is_cut=is_cut)

    async def _fold(self, table: pa.Table, *, is_cut: bool) -> None:
        if not len(table):
            return
        rows = log_rows(table, self.clock_ms)
        self._begun(int(rows.kafka_ms[0]), is_cut=is_cut).fold(rows)
        self.clock_ms = int(rows.kafka_ms[-1])
        self.readings += len(rows)
        await self._tell_all(int(rows.offset[-1]), least=ROWS_OF_A_FRAME)

    def _begun(self, kafka_ms: int, *, is_cut: bool) -> Rebuild:
        """Return the engine; it is made when it is known from when on there are readings."""
        if self.rebuild is None:
            # What is missing was received by then, and was not further ahead than this.
            last_ms = kafka_ms + self.settings.devices.skew_ms
            self.rebuild = Rebuild(
                self.settings,
                self.job.windows,
                self.job.markers.get(self.partition),
                last_ms if is_cut or self.since_ms else ALWAYS,
            )
        return self.rebuild

    async def _tell_all(self, offset: int, least: int) -> None:
        told = 0
        for part in self.rebuild.take(least) if self.rebuild else ():
            await self.tell(self.partition, part)
            told += len(part)
        self.told += told
        self.on_step(Step(self.partition, offset, told))


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("'", "''")


@asynccontextmanager
async def _teller(settings: Settings) -> AsyncIterator[Tell]:
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka,
        acks="all",
        enable_idempotence=True,
        max_request_size=_MAX_REQUEST_BYTES,
    )
    headers = [
        ("content-type", frames.CONTENT_TYPE),
        ("hw-partitions", b"%d" % settings.topics.partitions),
    ]
    fingerprint = settings.fingerprint()

    async def tell(partition: int, part: WindowResults) -> None:
        value = results.encode(part, code=VERSION, settings=fingerprint)
        try:
            await producer.send_and_wait(AGGREGATES, value, partition=partition, headers=headers)
        except KafkaError as error:
            raise ServiceError(
                f"Kafka did not take a record: {error!r}; repeat the command to go on"
            ) from error

    try:
        await producer.start()
        yield tell
    except KafkaError as error:
        raise ServiceError(f"Kafka at {settings.kafka} cannot be reached: {error}") from error
    finally:
        await producer.stop()
