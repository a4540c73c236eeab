"""What former versions stored is read, and gone on with, to the same results."""

import pytest

from streams.errors import StateError
from streams.testing import Driver
from tests.golden import END_MS, HERE, STAGES, append, play, read, rows_of

FOLDERS = sorted(path for path in HERE.iterdir() if (path / "readings.json.gz").exists())


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_worker_goes_on_from_stored_state_with_stored_records(folder, stage):
    golden = read(folder, stage)
    driver = resumed(stage, golden)
    play(driver, golden["input"][golden["half"] :])
    driver.tick(at_ms=END_MS)
    assert golden["told"]
    assert rows_of(driver) == golden["told"]


def test_there_is_one():
    assert FOLDERS


def test_state_of_an_unknown_version_is_refused_with_what_to_do():
    golden = read(FOLDERS[-1], STAGES[0])
    logic = STAGES[0].factory(0, 1)
    key, (stamp, state) = next(iter(golden["states"].items()))
    with pytest.raises(StateError, match="another version of Headwater"):
        logic.restore(key, stamp, b"HWS9" + bytes.fromhex(state)[4:])


def resumed(stage, golden):
    driver = Driver(stage.factory)
    append(driver, golden["input"][: golden["half"]])
    driver.stored = {
        key: (at, bytes.fromhex(state)) for key, (at, state) in golden["states"].items()
    }
    driver.committed = golden["half"]
    driver.crash()
    return driver
