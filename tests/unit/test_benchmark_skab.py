"""The benchmark of trained detectors counts what it says, and needs no data of others."""

from __future__ import annotations

import numpy as np

from benchmarks import skab


def experiment(begin):
    anomalous = np.zeros(100, np.bool_)
    anomalous[begin : begin + 20] = True
    return skab.Experiment(np.zeros((500, 8)), anomalous)


def test_what_is_chosen_on_the_other_files_counts():
    files = [experiment(40), experiment(40), experiment(60)]
    at_40, at_60 = files[0].anomalous, files[2].anomalous
    alarms = {"at 40": [at_40] * 3, "at 60": [at_60] * 3}
    f1, far, mar = (m.value for m in skab._measures("x", files, alarms))
    # The third file is told by the first two to alarm at 40, where it has nothing.
    assert f1 == round(2 * 40 / (2 * 40 + 20 + 20), 3)
    assert far == round(100 * 20 / 240, 1)
    assert mar == round(100 * 20 / 60, 1)


def test_averages_do_not_look_ahead():
    score = np.random.default_rng(1).normal(size=50)
    whole = skab._averaged(score, 10)
    assert np.array_equal(skab._averaged(score[:20], 10), whole[:20])


def test_without_data_it_says_so(capsys):
    assert skab.run(data=None, seed=1) == []
    assert "--data DIR" in capsys.readouterr().out
