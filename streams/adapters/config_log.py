"""The topic ``config`` and its markers: settings that change while running.

A document is written to ``config`` under its id. What decides results changes at a *marker* in
every partition of ``readings``, and of the topics that roll-ups and alerts read: a time marker
whose header ``hw-config`` has the id. So a worker, its successor and a replay all change at the
same record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from operator import attrgetter

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from streams.adapters.log_reader import offsets_at, read_all, read_from
from streams.errors import ServiceError, SettingsError
from streams.log import get_logger
from streams.ports import TIME_MARKER_HEADER, LogRecord, header
from streams.settings import Settings
from streams.settings.applied import Document, changes, document_of, in_force, newest, parse
from streams.settings.generations import base_name, generation_name, generation_of
from streams.topics import (
    AGGREGATES,
    ALERT_GROUPS,
    ALERT_PEERS,
    ANOMALIES,
    CONFIG,
    EDGE_ALERTS,
    READINGS,
    ROLLUPS_PARTIAL,
)

_log = get_logger(__name__)
MARKER = "hw-config"
MARKED = (
    *(ALERT_GROUPS, ALERT_PEERS, EDGE_ALERTS, ROLLUPS_PARTIAL),
    *(AGGREGATES, ANOMALIES, READINGS),
)
"""In this order, so that roll-ups know of a window before its first result, and groups of a route
before its first alert."""
_RETRY_S = 1.0
_CLOCKS_APART_MS = 60_000
_PARTITION = 0
"""All documents lie in one partition, so that they have one order."""


class Documents(dict[str, Document]):
    """Documents by id, in the order of their topic."""

    async def refresh(self, kafka: str) -> Document | None:
        """Read what the topic holds by now; return what counts.

        :raises TopicMismatchError: if there is no such topic.
        :raises ServiceError: if Kafka cannot be reached.
        :raises SettingsError: if a document cannot be read.
        """
        async for record in read_all(kafka, [CONFIG]):
            if record.value:
                self.add(record.value)
        return newest(self.values())

    def add(self, value: bytes) -> None:
        """Take a record's value."""
        document = parse(value)
        if document.revision == 0:
            self.pop(document.id, None)  # the last one counts
        self.setdefault(document.id, document)

    async def learn(self, kafka: str, records: Sequence[LogRecord]) -> None:
        """Read the topic if records have a marker whose document is not known yet.

        A document is there before its markers. A marker without one is none of ours, and is let be.
        """
        if all(map(attrgetter("value"), records)):
            return  # Markers have none.
        wanted = {marker_of(record) for record in records if not record.value} - {None}
        if wanted - self.keys():
            await self.refresh(kafka)


def marker_of(record: LogRecord) -> str | None:
    """Return the id that a marker names."""
    found = header(record, MARKER)
    return None if found is None else found.decode(errors="replace")


async def publish(kafka: str, document: Document) -> None:
    """Write a document.

    :raises SettingsError: if another one of this revision was written first.
    """
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all") as producer:
        await producer.send_and_wait(
            CONFIG, document.encode(), key=document.id.encode(), partition=_PARTITION
        )
    now = await Documents().refresh(kafka)
    if document.revision and (now is None or now.id != document.id):
        raise SettingsError(
            "somebody else has applied settings at the same time; look again: headwater config diff"
        )


async def mark(kafka: str, document: Document, partitions: int) -> None:
    """Append the marker of a document to every partition of the topics of :data:`MARKED`."""
    headers = [(TIME_MARKER_HEADER, b"1"), (MARKER, document.id.encode())]
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all") as producer:
        for topic in MARKED:
            for partition in range(partitions):
                await producer.send_and_wait(topic, b"", headers=headers, partition=partition)


async def marked_at(kafka: str, document: Document, partitions: int) -> dict[int, int]:
    """Return the offset of a document's first marker in each partition of ``readings``.

    A partition is left out whose log does not hold it any more.

    :raises ServiceError: if Kafka cannot be reached.
    """
    written_ms = [
        record.timestamp
        async for record in read_all(kafka, [CONFIG])
        if record.key == document.id.encode()
    ]
    if not written_ms:
        return {}
    # The document has the time of who applied it, the marker the broker's.
    places = [(READINGS, partition) for partition in range(partitions)]
    starts = await offsets_at(kafka, places, min(written_ms) - _CLOCKS_APART_MS)
    found: dict[int, int] = {}
    async for record in read_from(kafka, starts):
        if record.partition not in found and marker_of(record) == document.id:
            found[record.partition] = record.offset
            if len(found) == partitions:
                break
    return found


async def begin(settings: Settings, documents: Documents, *, note: bool = False) -> Settings:
    """Read what was applied, as soon as Kafka can be reached; return the settings in force.

    :param note: write down what these settings are, where nothing was applied yet.
    :raises TopicMismatchError: if there is no topic for it.
    """
    mine = document_of(settings)
    while True:
        try:
            document = await documents.refresh(settings.kafka)
            if note and (document is None or (document.revision == 0 and document != mine)):
                await publish(settings.kafka, mine)
                documents.add(mine.encode())
            break
        except (ServiceError, KafkaError) as error:
            _log.warning("Kafka cannot be reached yet", error=str(error))
            await asyncio.sleep(_RETRY_S)
    if document is not None and document.revision:
        _log.info("settings were applied", document=document.id)
        differing = changes(document.sections, mine.sections)
        if differing:
            _log.warning(
                "the file differs from what was applied, which counts; see: headwater config diff",
                differing=[f"{one.section}: {one.name}" for one in differing],
            )
    return in_force(settings, document)


async def now_in_force(settings: Settings, *, only_windows_of_always: bool = False) -> Settings:
    """Return the settings with what was applied in place of what the file says.

    :param only_windows_of_always: leave out windows of which the log has readings from before.
    :raises TopicMismatchError: if there is no topic for it.
    :raises ServiceError: if Kafka cannot be reached.
    """
    documents = Documents()
    found = in_force(settings, await documents.refresh(settings.kafka))
    if not only_windows_of_always:
        return found
    # Those that no longer count are among the documents too.
    names = [{window.name for window in one.windows()} for one in documents.values()]
    windows = [window for window in found.windows if all(window.name in known for known in names)]
    return found.model_copy(update={"windows": windows})


async def look_up(settings: Settings, name: str) -> tuple[Settings, str]:
    """Return the settings with one window alone, and its name in results.

    :param name: in force, or as results have it: ``minute`` is the newest generation, ``minute@1``
        the first, also once it is retired. If there is no such window, all are left in.
    """
    documents = Documents()
    found = in_force(settings, await documents.refresh(settings.kafka))
    newest_of = {base_name(window.name): window for window in found.windows}
    held = {window.name: window for one in documents.values() for window in one.windows()}
    wanted = generation_name(base_name(name), generation_of(name))
    window = (newest_of.get(name) if name == base_name(name) else None) or held.get(wanted)
    if window is None:
        return found, name
    return found.model_copy(update={"windows": [window]}), window.name


async def follow(kafka: str, known: Documents) -> Document:
    """Wait for the next document that counts.

    :raises aiokafka.errors.KafkaError: if Kafka cannot be reached.
    """
    before = newest(known.values())
    tp = TopicPartition(CONFIG, _PARTITION)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        consumer.assign([tp])
        await consumer.seek_to_beginning(tp)
        while True:
            for record in (await consumer.getmany(timeout_ms=1_000)).get(tp, []):
                if record.value:
                    known.add(record.value)
            now = newest(known.values())
            if now is not None and now != before:
                return now
    finally:
        await consumer.stop()
