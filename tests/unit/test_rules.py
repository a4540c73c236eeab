"""Rules in the settings: what cannot be is named with its line; expressions are bounded."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from streams.adapters.expressions import MAX_SIGNS, check, condition
from streams.agents.rule_definitions import anomaly_rules, window_rules
from streams.cli.main import app
from streams.errors import SettingsError
from streams.settings import load
from streams.settings.doubts import doubts
from tests.documents import titled

WINDOW = '[[windows]]\nname = "1m"\nsize_ms = 60000\nmetrics = ["t*"]\n'
"""Four lines; a rule begins in the fifth."""


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text):
        path = tmp_path / "headwater.toml"
        path.write_text(text)
        return load(path)

    return write


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ('kind = "threshold"\nover = 1.0', "toml:5: rules.0: a threshold rule needs window"),
        (
            'kind = "threshold"\nover = 1.0\nwindow = "5m"',
            "toml:9: rules.0.window: there is no window '5m', expected one of 1m",
        ),
        ('kind = "threshold"\nwindow = "1m"', "needs over or under, not both"),
        (
            'kind = "threshold"\nwindow = "1m"\nover = 5.0\nunder = 1.0',
            "needs over or under, not both",
        ),
        (
            'kind = "threshold"\nwindow = "1m"\nover = 5.0\nclear = 6.0',
            "toml:10: rules.0.clear: clear = 6 is over the bound 5",
        ),
        (
            'kind = "threshold"\nwindow = "1m"\nover = 5.0\naggregate = "p50"',
            "toml:10: rules.0.aggregate: the window '1m' has no 'p50', expected one of count, sum",
        ),
        (
            'kind = "threshold"\nwindow = "1m"\nover = 5.0\nmetrics = ["t1", "humidity"]',
            "toml:10: rules.0.metrics: the window '1m' has no metric 'humidity'; it takes t*",
        ),
        (
            'kind = "threshold"\nwindow = "1m"\nover = 5.0\nsilent_ms = 5',
            "toml:10: rules.0.silent_ms: a threshold rule has no silent_ms; it takes window, agg",
        ),
        (
            'kind = "rate"\nwindow = "1m"\nover = 5.0',
            "toml:8: rules.0.window: a rate rule needs the aggregate rate",
        ),
        (
            'kind = "compare"\nwindow = "1m"\nover = 5.0',
            "toml:5: rules.0: a compare rule needs with_metric or among, not both",
        ),
        (
            'kind = "compare"\nwindow = "1m"\nover = 5.0\nwith_metric = "humidity"',
            "toml:10: rules.0.with_metric: the window '1m' has no metric 'humidity'",
        ),
        (
            'kind = "compare"\nwindow = "1m"\nover = 5.0\nwith_metric = "t1"\nleast = 4',
            "toml:11: rules.0.least: least goes with among",
        ),
        (
            'kind = "forecast"\nwindow = "1m"\nover = 5.0',
            "toml:5: rules.0: a forecast rule needs within_ms",
        ),
        (
            'kind = "forecast"\nwindow = "1m"\nover = 5.0\nwithin_ms = 3600000',
            "toml:8: rules.0.window: a forecast rule needs the aggregates trend and trend_last",
        ),
        (
            'kind = "absence"\nwindow = "1m"\nsilent_ms = 60000',
            "toml:9: rules.0.silent_ms: expected 120000 or more: a series in the window '1m'",
        ),
        (
            'kind = "absence"\nwindow = "1m"\nsilent_ms = 600000\nhold_ms = 1',
            "toml:10: rules.0.hold_ms: an absence rule has no hold_ms",
        ),
        (
            'kind = "expression"\nwindow = "1m"\nexpression = "mean >"',
            "toml:9: rules.0.expression: not an expression: ",
        ),
        (
            'kind = "expression"\nwindow = "1m"\nexpression = "median > 5.0"',
            "toml:9: rules.0.expression: 'median' is not known; there are tenant, site",
        ),
        (
            'kind = "expression"\nexpression = "mean > 5.0"',
            "toml:8: rules.0.expression: 'mean' is not known on scores; there are tenant",
        ),
        (
            'kind = "expression"\nwindow = "1m"\nexpression = "[1, 2].exists(x, x > mean)"',
            "exists(...) is not allowed in an expression; there are size",
        ),
        ('kind = "all"\nof = ["a", "b"]', "toml:8: rules.0.of: there is no rule 'a'"),
        (
            'kind = "all"\nof = ["o", "o"]\n[[rules]]\nname = "o"\nkind = "compare"\n'
            'window = "1m"\namong = "site"\nover = 1.0',
            "toml:8: rules.0.of: 'o' compares devices with each other; expected rules on one",
        ),
        ('kind = "any"\nof = ["r", "r"]', "toml:8: rules.0.of: 'r' is an any rule; expected"),
        ('kind = "all"\nof = ["anomaly"]', "toml:8: rules.0.of: List should have at least 2"),
        ('types = ["pump*"]', "toml:7: rules.0.types: 'pump*' matches none of [[types]]: none"),
        ('tags = ["hot"]', "toml:7: rules.0.tags: 'hot' matches none of [[tags]]: none"),
        ('kind = "sum"', "toml:7: rules.0.kind: Input should be 'anomaly', 'threshold'"),
        ("score_over = 0", "toml:7: rules.0.score_over: "),
    ],
)
def test_an_offence_is_named_with_its_line(loaded, rule, says):
    with pytest.raises(SettingsError) as error:
        loaded(f'{WINDOW}[[rules]]\nname = "r"\n{rule}\n')
    assert says in str(error.value)


def test_a_metric_that_does_not_exist_is_doubted(loaded):
    rule = '[[rules]]\nname = "r"\nwindow = "1m"\nmetrics = ["tempo", "t*"]\nover = 1.0\n'
    leak = 'kind = "compare"\nwith_metric = "twist"\n'
    assert doubts(loaded(WINDOW + rule + leak)) == []
    declared = loaded('[metrics.tempi]\nunit = "bar"\n' + WINDOW + rule + leak)
    assert doubts(declared) == [
        "rule 'r' looks at 'tempo', which is not in [metrics]; did you mean 'tempi'?",
        "rule 'r' looks at 'twist', which is not in [metrics]",
    ]
    assert "did you mean" in CliRunner().invoke(app, ["config", "check"]).output


def test_a_rule_on_scores_is_no_part_of_a_composition(loaded):
    with pytest.raises(SettingsError, match=r"'s' is an expression rule on scores"):
        loaded(
            '[[rules]]\nname = "s"\nkind = "expression"\nexpression = "score > 5.0"\n'
            '[[rules]]\nname = "r"\nkind = "all"\nof = ["s", "s"]\n'
        )


def test_the_rules_of_the_documentation_can_be_used(loaded):
    settings = loaded(titled("rules.md", "rules.toml"))
    assert [rule.name for rule in anomaly_rules(settings)] == ["strange"]
    assert len(window_rules(settings)) == 8


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 " * 300, "600 characters, at most 500"),
        ("+".join(["1"] * 60), f"119 names, numbers and operators, at most {MAX_SIGNS}"),
        ("(" * 17 + "1" + ")" * 17, "brackets 17 deep, at most 16"),
        ("device.matches('(a+)+$')", r"matches\(...\) is not allowed"),
        ("[1].map (x, x)", r"map\(...\) is not allowed"),
        ("{'a': 1}.size() > 1", "'{' at character 1 is not allowed"),
        (r"device == r'\d'", r"is not allowed in an expression"),
        ("device == r'd'", "a text may not begin with r"),
        ("mean # 1", "'#' at character 6 is not allowed"),
    ],
)
def test_an_expression_that_may_cost_too_much_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        check(text, max_characters=500)


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        ("mean > 80 && sd < 3.0", {"mean": 81.0, "sd": 1.0}, True),
        ("mean > 80 && sd < 3.0", {"mean": 81.0, "sd": 4.0}, False),
        ("mean + 1 > 2", {"mean": 1.5}, None),
        ("mean", {"mean": 1.5}, None),
        ("int(device) > 1", {"device": "x"}, None),
        ('site in ["a", "b"]', {"site": "b"}, True),
    ],
)
def test_an_expression_without_an_answer_says_nothing(text, given, said):
    check(text, max_characters=500)
    assert condition(text).holds(given) is said
