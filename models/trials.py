"""A challenger in the shadow of a champion: what both said of the same rows, and who should win."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trial:
    """Counts of the rows that both have scored, and of those that each alarmed on."""

    model: str
    champion: int
    challenger: int
    rows: int = 0
    champion_over: int = 0
    challenger_over: int = 0
    both_over: int = 0

    def plus(self, champion_over: int, challenger_over: int, both_over: int, rows: int) -> Trial:
        """Return the trial with more rows."""
        return Trial(
            self.model,
            self.champion,
            self.challenger,
            self.rows + rows,
            self.champion_over + champion_over,
            self.challenger_over + challenger_over,
            self.both_over + both_over,
        )


@dataclass(frozen=True, slots=True)
class PromotionRule:
    """When a challenger may replace the champion without anybody looking: it has scored ``rows``
    rows beside it, alarms on at most ``alarms`` times as many, and on at least the share ``agrees``
    of the champion's."""

    rows: int
    alarms: float
    agrees: float


def total(trials: Iterable[Trial], model: str, champion: int, challenger: int) -> Trial:
    """Return the sum of the trials of one pair, as several partitions have counted it."""
    found = Trial(model, champion, challenger)
    for one in trials:
        if (one.model, one.champion, one.challenger) == (model, champion, challenger):
            found = found.plus(one.champion_over, one.challenger_over, one.both_over, one.rows)
    return found


def objection(trial: Trial, rule: PromotionRule) -> str:
    """Return why the challenger may not be promoted by the rule; empty if it may."""
    if trial.rows < rule.rows:
        return f"it has scored {trial.rows:,} rows beside the champion; the rule: {rule.rows:,}"
    most = rule.alarms * trial.champion_over
    if trial.challenger_over > most:
        return (
            f"it alarmed on {trial.challenger_over:,} rows, the champion on "
            f"{trial.champion_over:,}: the rule allows {rule.alarms:g} times as many"
        )
    if trial.both_over < rule.agrees * trial.champion_over:
        return (
            f"it alarmed on {trial.both_over:,} of the champion's {trial.champion_over:,}: "
            f"the rule asks for a share of {rule.agrees:g}"
        )
    return ""
