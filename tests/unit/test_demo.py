"""The demo's verdict and its reading of the Procfile."""

from __future__ import annotations

from collections import Counter

import pytest

from streams.audit import AuditReport
from streams.demo.processes import read_procfile
from streams.demo.receiver import Delivery
from streams.demo.summary import checks, detection, latency
from streams.errors import ServiceError
from streams.sim.sensors import Fault

SENT = Counter(
    {
        Fault.NONE: 100,
        Fault.SPIKE: 2,
        Fault.DUPLICATE: 6,
        Fault.OUT_OF_ORDER: 3,
        Fault.LATE: 4,
        Fault.WRONG_CLOCK: 5,
        Fault.MALFORMED: 7,
    }
)
CLASSES = {"accepted": 108, "duplicate": 3, "late": 4, "quarantined": 5, "rejected": 0}
TWIN = {"edge": "abc", "cloud": "abc"}


def report(received=120, refused=7, problems=(), still_open=0, **classes):
    return AuditReport(
        received, CLASSES | classes, [], 10, 108, still_open, refused, {}, list(problems)
    )


def failing(audit, twin=TWIN):
    return [check.what for check in checks(SENT, audit, twin) if not check.holds]


def test_an_honest_run_holds():
    assert failing(report()) == []


def test_what_the_broker_delivers_again_counts_as_duplicates_only():
    assert failing(report(received=122, duplicate=5)) == []
    assert failing(report(received=122)) == ["readings in Kafka = those judged"]


def test_one_duplicate_too_few_is_seen():
    assert "duplicates = sent twice + delivered again" in failing(report(duplicate=2))


def test_one_that_is_lost_is_seen():
    assert failing(report(received=119, accepted=107))[0] == (
        "sent (+ delivered again) = accepted + duplicate + late + quarantined + rejected"
    )


@pytest.mark.parametrize(
    ("audit", "broken"),
    [
        (report(accepted=107), "accepted = all others"),
        (report(late=5), "late = sent too late"),
        (report(quarantined=4), "quarantined = a year ahead"),
        (report(refused=6), "rejected = malformed"),
        (report(problems=["d: one is missing"]), "every window counts its readings"),
        (report(still_open=1), "no window is left open"),
    ],
)
def test_a_number_that_is_off_by_one_is_seen(audit, broken):
    assert broken in failing(audit)


def test_twins_that_differ_are_seen():
    twins = {"edge": "abc", "cloud": "abd"}
    assert failing(report(), twins) == ["twin at edge = in the cloud"]


def delivery(device, began_ms, state="firing", received_ms=0, waited_ms=50):
    data = {
        "device": device, "metric": "m", "began_ms": began_ms, "state": state,
        "hops": {"received_ms": received_ms},
    }  # fmt: skip
    return Delivery("msg", (received_ms + waited_ms) * 1_000_000, {"data": data})


def test_alerts_are_compared_with_labels_and_spikes():
    found = detection(
        [
            delivery("a", 150),
            delivery("a", 160),
            delivery("a", 500),
            delivery("s", 7),
            delivery("s", 8, state="resolved"),
        ],
        {("a", "m"): [(100, 200), (300, 400)]},
        {("s", 7), ("s", 8)},
    )
    assert (found.labelled, found.labelled_hit, found.outside) == (2, 1, 1)
    assert (found.spikes, found.spikes_found) == (2, 1)


def test_latency_tells_the_time_of_the_kill_apart():
    calm = [delivery("a", 1, received_ms=t, waited_ms=40) for t in range(0, 9000, 100)]
    waiting = [delivery("a", 1, received_ms=20_500, waited_ms=5000)] * 5
    found = latency(calm + waiting, (20_000_000_000, 25_000_000_000))
    assert found.p50_ms == 40
    assert found.p99_ms == 5000
    assert found.p99_undisturbed_ms == 40


def test_the_procfile_names_every_process():
    names = ["gateway", "worker", "rollup", "sink", "alerts", "api", "edge"]
    assert list(read_procfile()) == names


def test_a_line_that_is_no_process_is_named(tmp_path):
    path = tmp_path / "Procfile"
    path.write_text("a: run a\nnonsense\n")
    with pytest.raises(ServiceError, match=":2: expected name: command"):
        read_procfile(path)
