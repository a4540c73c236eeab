"""What a rebuild remembers of its way, should it be ended."""

from __future__ import annotations

from streams.recovery.rebuild_run import Job, Note
from streams.settings import Settings, Window
from streams.settings.applied import document_of


def job_of(*names):
    windows = [Window(name=name, size_ms=100) for name in names]
    return Job(document_of(Settings(windows=windows, rollups=[])), windows)


def test_a_run_goes_on_behind_the_partitions_that_are_done(tmp_path):
    settings, job = Settings(state=tmp_path), job_of("w")
    note = Note.of(settings, job, 0)
    assert note.told == []
    note.add(0)
    note.add(2)
    assert Note.of(settings, job, 0).told == [0, 2]
    assert Note.of(settings, job, 5).told == []
    assert Note.of(settings, Job(job.document, job_of("other").windows), 0).told == []
    note.remove()
    assert Note.of(settings, job, 0).told == []


def test_a_note_that_cannot_be_read_is_none(tmp_path):
    settings, job = Settings(state=tmp_path), job_of("w")
    Note.of(settings, job, 0).add(1)
    (written,) = (tmp_path / "rebuilds").iterdir()
    for content in (b"", b"[1]", b'{"windows": ["w"]}', b'{"windows": ["w"], "told": 3}'):
        written.write_bytes(content)
        assert Note.of(settings, job, 0).told == []
