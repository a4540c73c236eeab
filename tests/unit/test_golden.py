"""What former versions stored is read, and gone on with, to the same results."""

import sqlite3
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition

from crdt.core.errors import WireError
from crdt.core.messages import decode_batch, decode_message
from crdt.log import Log
from crdt.sqlite_file import LogError
from streams.agents.twins import make_twins
from streams.alerts.courier import Courier
from streams.alerts.disabled import Disabled
from streams.alerts.secrets import write_secret
from streams.errors import StateError
from streams.testing import Driver
from streams.topics import DELIVERIES
from tests.golden import END_MS, HERE, STAGES, append, play, read, rows_of
from tests.golden import alerts as alerting
from tests.golden import rules as ruling
from tests.golden import segments as leaving
from tests.golden import twins as twinning

FOLDERS = sorted(path for path in HERE.iterdir() if (path / "readings.json.gz").exists())
RULES = sorted(path for path in HERE.iterdir() if (path / "rules.json.gz").exists())
SEGMENTS = sorted(path for path in HERE.iterdir() if (path / leaving.FILE).exists())
TWINS = sorted(path for path in HERE.iterdir() if (path / "twins.json.gz").exists())


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_worker_goes_on_from_stored_state_with_stored_records(folder, stage):
    golden = read(folder, stage)
    driver = resumed(stage, golden)
    play(driver, golden["input"][golden["half"] :])
    driver.tick(at_ms=END_MS)
    assert golden["told"]
    assert rows_of(driver) == golden["told"]


@pytest.mark.parametrize("folder", SEGMENTS, ids=lambda folder: folder.name)
def test_what_left_memory_comes_back(folder):
    golden = leaving.read_segments(folder)
    assert {bytes.fromhex(state)[:4] for state in golden["segments"].values()} == {b"HWC1", b"HWW1"}
    driver = leaving.resumed(golden)
    leaving.go_on(driver)
    assert golden["told"]
    assert rows_of(driver) == golden["told"]


def test_there_is_one():
    assert FOLDERS
    assert SEGMENTS


def test_state_of_an_unknown_version_is_refused_with_what_to_do():
    golden = read(FOLDERS[-1], STAGES[0])
    logic = STAGES[0].factory(0, 1)
    key, (stamp, state) = next(iter(golden["states"].items()))
    with pytest.raises(StateError, match="another version of Headwater"):
        logic.restore(key, stamp, b"HWS9" + bytes.fromhex(state)[4:])


@pytest.mark.parametrize("folder", TWINS, ids=lambda folder: folder.name)
class TestTwins:
    def test_a_worker_goes_on_from_stored_twins(self, folder):
        golden = twinning.read_twins(folder)
        driver = resume(Driver(make_twins(twinning.settings_of(golden))), golden, golden["updates"])
        play(driver, golden["updates"][golden["half"] :])
        found = twinning.states(driver)
        told = golden["told"][-len(found) :]
        assert found
        assert twinning.as_told(found, told) == told

    def test_stored_records_give_the_same_twins_from_the_start(self, folder):
        golden = twinning.read_twins(folder)
        driver = Driver(make_twins(twinning.settings_of(golden)))
        play(driver, golden["updates"])
        assert twinning.as_told(twinning.states(driver), golden["told"]) == golden["told"]

    def test_an_edge_goes_on_from_its_stored_log(self, folder, tmp_path):
        golden = twinning.read_twins(folder)
        path = tmp_path / "twins.db"
        path.write_bytes(bytes.fromhex(golden["log"]))
        edge = twinning.node(path, golden)
        assert edge.status()["life"].startswith("edge:north:2-")
        ahead = golden["edge_ahead"]
        assert twinning.as_told(twinning.shown(edge), ahead) == ahead
        edge.edit("fan-2", {"reported.state": "off"}, ())
        edge.close()
        edge = twinning.node(path, golden)
        assert twinning.as_told(twinning.shown(edge), ahead) != ahead
        assert "'off'" in str(edge.view("fan-2"))
        edge.close()

    def test_an_edge_reads_what_a_former_cloud_said(self, folder, tmp_path):
        golden = twinning.read_twins(folder)
        assert golden["edge"] != golden["edge_ahead"]
        edge = twinning.node(tmp_path / "new.db", golden)
        path = tmp_path / "twins.db"
        path.write_bytes(bytes.fromhex(golden["log"]))
        edge.close()
        edge = twinning.node(path, golden)
        for envelope in golden["down"]:
            edge.hear(bytes.fromhex(envelope))
        assert twinning.as_told(twinning.shown(edge), golden["shown"]) == golden["shown"]
        edge.close()

    def test_twins_of_an_unknown_version_are_refused_with_what_to_do(self, folder, tmp_path):
        golden = twinning.read_twins(folder)
        key, (stamp, state) = next(iter(golden["states"].items()))
        newer = bytearray.fromhex(state)
        newer[1] += 1
        with pytest.raises(StateError, match=r"version 2, expected 1: .* new worker\.id"):
            make_twins(twinning.settings_of(golden))(0, 1).restore(key, stamp, bytes(newer))
        path = tmp_path / "twins.db"
        path.write_bytes(bytes.fromhex(golden["log"]))
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA user_version=2")
        database.close()
        with pytest.raises(LogError, match=r"version 2, this code reads 1: .* run that one here"):
            Log(path)

    def test_messages_of_an_unknown_version_are_refused(self, folder):
        envelope = bytes.fromhex(twinning.read_twins(folder)["down"][0])
        (_, message), *_ = decode_batch(envelope)
        for read_it, data in ((decode_batch, envelope), (decode_message, message)):
            newer = bytearray(data)
            newer[1] += 8
            with pytest.raises(WireError, match=r"version 1 or 2|expected \[1"):
                read_it(bytes(newer))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
class TestAlerts:
    def test_alerts_go_on_from_stored_state(self, folder):
        golden = alerting.read_alerts(folder)
        driver = resume(alerting.driver(), golden, golden["input"])
        play(driver, golden["input"][golden["half"] :])
        assert golden["told"]
        assert rows_of(driver) == golden["told"]

    def test_alerts_of_an_unknown_version_are_refused_with_what_to_do(self, folder):
        golden = alerting.read_alerts(folder)
        key, (stamp, state) = next(iter(golden["states"].items()))
        with pytest.raises(StateError, match=r"another version of Headwater.*alerts\.id"):
            alerting.driver().logic.restore(key, stamp, b"HWS9" + bytes.fromhex(state)[4:])

    def test_the_courier_reads_a_stored_outbox(self, folder, tmp_path):
        golden = alerting.read_alerts(folder)
        write_secret(tmp_path / "secret")
        courier = Courier(alerting.settings(tmp_path / "secret"))
        courier._catching_up = {TopicPartition(DELIVERIES, 0): 1}
        for key, value in golden["outbox"]:
            courier._take(
                SimpleNamespace(
                    key=bytes.fromhex(key), value=bytes.fromhex(value), partition=0, timestamp=5
                )
            )
        assert len(courier._waiting) == len(golden["outbox"]) > 0
        assert {message.endpoint for message in courier._waiting.values()} == {"hook"}


@pytest.mark.parametrize("folder", RULES, ids=lambda folder: folder.name)
class TestRules:
    @pytest.mark.parametrize("stage", ruling.STAGES)
    def test_rules_comparisons_and_groups_go_on_from_stored_state(self, folder, stage):
        golden = ruling.read_rules(folder)
        of = golden["stages"][stage]
        driver = ruling.resumed(stage, golden)
        play(driver, of["input"][of["half"] :])
        assert of["told"]
        assert rows_of(driver) == of["told"]

    def test_an_endpoint_stays_disabled_by_a_stored_note(self, folder):
        golden = ruling.read_rules(folder)
        disabled = Disabled.of(ruling.settings(first=True))
        disabled.take(*(bytes.fromhex(part) for part in golden["note"]))
        assert disabled.names == {"hook"}

    def test_state_whose_document_is_gone_is_refused_with_what_to_do(self, folder):
        golden = ruling.read_rules(folder)
        golden["documents"].pop()
        for stage in ruling.STAGES:
            with pytest.raises(StateError, match=r"not there any more; .*new alerts\.id"):
                ruling.resumed(stage, golden)


def resumed(stage, golden):
    return resume(Driver(stage.factory), golden, golden["input"])


def resume(driver, golden, records):
    append(driver, records[: golden["half"]])
    driver.stored = {
        key: (at, bytes.fromhex(state)) for key, (at, state) in golden["states"].items()
    }
    driver.committed = golden["half"]
    driver.crash()
    return driver
