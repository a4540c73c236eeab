"""What is installed is found by name; what is not, or is there twice, is refused in words."""

from __future__ import annotations

import numpy as np
import pytest

from streams.adapters.codecs import Codecs
from streams.adapters.rows import RowBuilder, Source
from streams.agents.detectors import detector_of
from streams.errors import DecodeError, SettingsError
from streams.extensions import CODECS, load, require
from streams.settings import Channel, Detection, Mapping, Window
from streams.testing import check_detector

SOURCE = Source("t", "s", "pump", None)


class Codec:
    """A codec that does what a test says."""

    content_type = "application/x-test"

    def __init__(self, decode):
        self._decode = decode

    def recognises(self, payload):
        return payload.startswith(b"!")

    def decode(self, payload, source, received_ms, rows):
        self._decode(rows, source)


def package(folder, name, group, entries):
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "".join(f"{key} = {value}\n" for key, value in entries.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}")


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_name_that_is_not_installed_is_refused_with_those_that_are():
    with pytest.raises(SettingsError, match=r"no codec named x .* there are json, number, senml"):
        load(CODECS, "x")


def test_no_package_may_take_a_name_that_is_taken(path):
    package(path, "thief", CODECS, {"json": "os:path"})
    with pytest.raises(SettingsError, match="several packages: headwater, thief"):
        require(CODECS, "json")


def test_what_cannot_be_imported_is_named_with_its_package(path):
    package(path, "broken", CODECS, {"b": "no_such_module"})
    with pytest.raises(SettingsError, match=r"b of broken 1\.0 \(no_such_module\) cannot be load"):
        load(CODECS, "b")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Mapping(topic="a", device="d", format="xml"), "no codec named xml is installed"),
        (lambda: Detection(detector="oracle"), "no detector named oracle"),
        (lambda: Channel(name="c", kind="pigeon"), "no channel named pigeon"),
        (lambda: Channel(name="c", kind="webhook"), r"\[\[webhooks\]\]"),
        (lambda: Window(name="w", size_ms=1, aggregates=["mode"]), "expected first, last"),
    ],
)
def test_settings_refuse_what_is_not_installed(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def refused(codec, monkeypatch):
    monkeypatch.setattr("streams.adapters.codecs.load", lambda group, name: codec)
    rows = RowBuilder({}, 100)
    rows.mark()
    rows.begin(SOURCE, "pump", 1, 1)
    rows.add("before", 1.0)
    mark = rows.mark()
    with pytest.raises(DecodeError) as error:
        Codecs(["x"]).decode("x", b"!", SOURCE, 5, rows)
    rows.rollback(mark)
    assert rows.finish().metric.values == ("before",)
    return error.value.reason


def begun(*metrics, **given):
    def decode(rows, source):
        rows.begin(**{"source": source, "device": "pump", "t_ms": 1, "received_ms": 5, **given})
        for metric in metrics:
            rows.add(metric, 1.0)

    return Codec(decode)


@pytest.mark.parametrize(
    ("codec", "reason"),
    [
        (Codec(lambda rows, source: 1 / 0), "codec-failed"),
        (Codec(lambda rows, source: None), "no-readings"),
        (Codec(lambda rows, source: rows.add("m", 1.0)), "codec-failed"),
        (begun("m", device="other"), "wrong-device"),
        (begun("m", t_ms=-1), "bad-time"),
        (begun("m", t_ms="now"), "bad-time"),
        (begun("m", seq=2**63), "bad-seq"),
        (begun("m", source=Source("other", "s", "pump", None)), "codec-failed"),
        (begun(b"m"), "bad-name"),
    ],
)
def test_a_codec_that_fails_or_gives_nonsense_costs_its_payload_alone(codec, reason, monkeypatch):
    assert refused(codec, monkeypatch) == reason


def test_a_codec_may_not_take_a_media_type_of_ours(monkeypatch):
    codec = begun("m")
    codec.content_type = "Application/JSON"
    monkeypatch.setattr("streams.adapters.codecs.load", lambda group, name: codec)
    with pytest.raises(SettingsError, match="another codec's"):
        Codecs(["x"])


def test_our_detector_keeps_the_promises_of_a_detector():
    check_detector(lambda: detector_of(Detection()))


class Peeking:
    """Scores by the mean of the batch."""

    def grow(self, series):
        pass

    def state(self):
        return {}

    def score(self, series, t_ms, value):
        return value - value.mean(), value, np.ones(len(value))


def test_a_detector_that_depends_on_its_batch_is_found_out():
    with pytest.raises(AssertionError, match="depends on batches"):
        check_detector(Peeking)


def test_our_detector_takes_no_options():
    with pytest.raises(SettingsError, match="robust-level has none"):
        detector_of(Detection(options={"x": 1}))
