"""The section ``[[rules]]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from streams.core.window_rules import PLAIN
from streams.settings.rule_commands import RuleCommand
from streams.settings.sections import LocatedError, Ms, Name, Positive, Section
from streams.settings.windows import Window

MAX_EXPRESSION = 500
"""Characters of an expression."""
NAMES = ("tenant", "site", "device", "metric")
ON_WINDOWS = (*NAMES, "window", "start_ms", "end_ms", *PLAIN)
"""What an expression on windows may use, beside the further aggregates of the window."""
ON_SCORES = (*NAMES, "value", "score", "expected", "spread")
"""What an expression on scores may use."""
_OF_KIND: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "anomaly": ((), ("score_over", "resolve_ms")),
    "threshold": (("window",), ("aggregate", "over", "under", "clear", "resolve_ms")),
    "rate": (("window",), ("per_ms", "over", "under", "clear", "resolve_ms")),
    "forecast": (("window", "within_ms"), ("over", "under", "clear", "resolve_ms")),
    "compare": (
        ("window",),
        (
            "aggregate",
            "by",
            "with_metric",
            "among",
            "least",
            "over",
            "under",
            "clear",
            "resolve_ms",
        ),
    ),
    "absence": (("window", "silent_ms"), ()),
    "expression": (("expression",), ("window", "resolve_ms")),
    "all": (("of",), ("within_ms",)),
    "any": (("of",), ("within_ms",)),
}
"""Of each kind: the fields that it needs, and those that it may have; others are refused."""
_SPECIFIC = {field for needs, may in _OF_KIND.values() for field in (*needs, *may)}
_BOUNDED = ("threshold", "rate", "forecast", "compare")
_MEMBERS = (*_BOUNDED, "expression")


class Rule(Section):
    """An alert rule."""

    name: Name
    """Names the rule in alerts and in their ids."""
    kind: Literal[
        "anomaly",
        "threshold",
        "rate",
        "forecast",
        "compare",
        "absence",
        "expression",
        "all",
        "any",
    ] = "anomaly"
    """``anomaly`` looks at scores; ``threshold`` and ``rate`` at an aggregate of closed windows,
    which needs ``over`` or ``under``; ``forecast`` at the line through a window's readings, and
    fires where it reaches ``over`` or ``under`` within ``within_ms``; ``compare`` at a window less
    that of ``with_metric``, or less the median ``among`` devices; ``absence`` at series without
    readings; ``expression`` at whatever it says; ``all`` and ``any`` at other rules, per device."""
    score_over: Annotated[float, Field(gt=0)] = 5.0
    """``anomaly``: in robust standard deviations."""
    window: Name | None = None
    """The window definition whose results are looked at. An ``expression`` without one looks at
    scores."""
    aggregate: Name = "mean"
    """``threshold``, ``compare``: ``count``, ``sum``, ``min``, ``max``, ``mean``, ``sd``, or a
    further aggregate of the window."""
    by: Literal["difference", "ratio"] = "difference"
    """``compare``: the one less the other, or divided by it."""
    with_metric: Name | None = None
    """``compare``: with this metric of the same device, in the same window."""
    among: Literal["site", "type", "tenant"] | None = None
    """``compare``: with the median over the devices of the same site, type or tenant that the rule
    looks at, in the same window."""
    least: Annotated[int, Field(ge=2)] = 3
    """``among``: of fewer devices no median is taken."""
    per_ms: Positive = 1_000
    """``rate``: over which time a change is meant; the window needs the aggregate ``rate``."""
    over: float | None = None
    """Fires at this value or more."""
    under: float | None = None
    """Fires at this value or less."""
    clear: float | None = None
    """Hysteresis: resolves on the good side of this value only; default: of the bound."""
    silent_ms: Positive | None = None
    """``absence``: log time without a reading. At least the window, its grace, ``disorder_ms`` and
    ``idle_ms``, since a series is heard of when its window closes."""
    expression: str | None = None
    """``expression``: in CEL, true where it fires. It may use tenant, site, device and metric; on
    windows also window, start_ms, end_ms and the aggregates, on scores value, score, expected and
    spread. At most 500 characters and 100 signs, without macros."""
    of: Annotated[list[Name], Field(min_length=2, max_length=16)] | None = None
    """``all``, ``any``: names of rules on windows (threshold, rate, forecast, expression)."""
    within_ms: Ms | None = None
    """``all``, ``any``: a rule counts as firing for so long beyond its end, in event time.
    ``forecast``: how far ahead; the window needs the aggregates ``trend`` and ``trend_last``."""
    hold_ms: Ms = 0
    """It must stay over the bound this long, in event time, before the alert fires."""
    resolve_ms: Ms = 60_000
    """It must stay below the bound this long before the alert resolves."""
    alerts: bool = True
    """``false``: only a part of ``all`` or ``any``, and not an alert by itself."""
    where: Literal["cloud", "edge", "both"] = "cloud"
    """Who judges it (docs/edge.md#local-work). ``edge``: the edges, each for its site, which
    tell the cloud; ``both``: the edge acts and shows the alert at the site, and the cloud tells."""
    commands: Annotated[list[RuleCommand], Field(max_length=16)] = Field(default=[])
    """What an edge has done when an alert fires or ends; needs ``where`` ``edge`` or ``both``."""
    commands_every_ms: Ms = 10_000
    """At least so long between two times that the rule gives commands about a device; what changes
    sooner waits, and only the last state counts."""
    severity: Literal["info", "warning", "critical"] = "warning"
    """Goes into the alert as it is."""
    tenants: list[str] = Field(default=["*"])
    """Globs; the rule looks only at what all six match."""
    sites: list[str] = Field(default=["*"])
    """Globs."""
    devices: list[str] = Field(default=["*"])
    """Globs."""
    metrics: list[str] = Field(default=["*"])
    """Globs."""
    types: list[str] = Field(default=["*"])
    """Globs over the device's type (``[[types]]``)."""
    tags: list[str] = Field(default=["*"])
    """Globs; any of the device's tags (``[[tags]]``) has to match."""

    @field_validator("expression")
    @classmethod
    def _can_be_evaluated(cls, text: str | None) -> str | None:
        if text is not None:
            from streams.adapters.expressions import check

            check(text, max_characters=MAX_EXPRESSION)
        return text

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Rule:
        needs, may = _OF_KIND[self.kind]
        a_rule = f"{'an' if self.kind[0] in 'ae' else 'a'} {self.kind} rule"
        for field in needs:
            if getattr(self, field) is None:
                raise ValueError(f"{a_rule} needs {field}")
        # What is applied to running processes names every field, with its default.
        given = {f for f in _SPECIFIC if getattr(self, f) != type(self).model_fields[f].default}
        for field in sorted(given - {*needs, *may}):
            takes = ", ".join((*needs, *may))
            raise LocatedError((field,), f"{a_rule} has no {field}; it takes {takes}")
        if self.kind == "absence" and self.hold_ms:
            raise LocatedError(
                ("hold_ms",), "an absence rule has no hold_ms; silent_ms says how long"
            )
        if self.kind == "compare" and (self.with_metric is None) == (self.among is None):
            raise ValueError("a compare rule needs with_metric or among, not both")
        if self.with_metric is not None and self.least != type(self).model_fields["least"].default:
            raise LocatedError(("least",), "least goes with among: with_metric compares two")
        if self.kind == "forecast" and self.within_ms == 0:
            raise LocatedError(("within_ms",), "expected how far ahead a forecast looks, above 0")
        if self.kind in _BOUNDED:
            self._has_bounds()
        self._can_be_judged_there()
        if self.kind == "expression":
            self._uses_what_there_is()
        return self

    def _has_bounds(self) -> None:
        if (self.over is None) == (self.under is None):
            raise ValueError(f"a {self.kind} rule needs over or under, not both")
        if self.clear is None:
            return
        if self.over is not None and self.clear > self.over:
            raise LocatedError(
                ("clear",), f"clear = {self.clear:g} is over the bound {self.over:g}"
            )
        if self.under is not None and self.clear < self.under:
            raise LocatedError(
                ("clear",), f"clear = {self.clear:g} is under the bound {self.under:g}"
            )

    def _can_be_judged_there(self) -> None:
        if self.commands and not self.at_edge:
            raise LocatedError(
                ("commands",), 'commands are given by edges; expected where = "edge" or "both"'
            )
        if self.commands and not self.alerts:
            raise LocatedError(("commands",), "a rule with alerts = false gives no commands")
        if self.among is not None and self.at_edge:
            raise LocatedError(
                ("where",), 'a rule that compares among devices is judged in the cloud: "cloud"'
            )

    def _uses_what_there_is(self) -> None:
        from streams.adapters.expressions import variables

        assert self.expression is not None
        if self.window is None:
            unknown = [name for name in variables(self.expression) if name not in ON_SCORES]
            if unknown:
                raise LocatedError(
                    ("expression",),
                    f"{unknown[0]!r} is not known on scores; there are {', '.join(ON_SCORES)} "
                    "(and with a window, its aggregates)",
                )

    @property
    def at_edge(self) -> bool:
        """Whether edges judge it."""
        return self.where != "cloud"

    @property
    def in_cloud(self) -> bool:
        """Whether the cloud judges it."""
        return self.where != "edge"

    @property
    def on_scores(self) -> bool:
        """Whether it looks at ``anomalies``, not at ``aggregates``."""
        return self.kind == "anomaly" or (self.kind == "expression" and self.window is None)


def check_rules(
    rules: Sequence[Rule],
    windows: Sequence[Window],
    late_ms: int,
    named: Mapping[str, Sequence[str]],
) -> None:
    """Check rules against what they name.

    :param late_ms: how long beyond a window and its grace the last reading may have been.
    :param named: the names of ``types`` and of ``tags``.
    :raises LocatedError: for the first offence.
    """
    by_name = {window.name: window for window in windows}
    for i, rule in enumerate(rules):
        if rule.window is not None:
            window = by_name.get(rule.window)
            if window is None:
                there = ", ".join(by_name) or "none"
                raise LocatedError(
                    ("rules", i, "window"),
                    f"there is no window {rule.window!r}, expected one of {there}",
                )
            _check_window(rule, i, window, late_ms)
        if rule.of is not None:
            _check_members(rule, i, rules)
        for field, names in named.items():
            for glob in getattr(rule, field):
                if glob != "*" and not any(fnmatchcase(name, glob) for name in names):
                    there = ", ".join(names) or "none"
                    raise LocatedError(
                        ("rules", i, field), f"{glob!r} matches none of [[{field}]]: {there}"
                    )


def _check_window(rule: Rule, i: int, window: Window, late_ms: int) -> None:
    compared = () if rule.with_metric is None else (rule.with_metric,)
    wrong = [
        metric for metric in (*rule.metrics, *compared) if not _may_be_in(metric, window.metrics)
    ]
    if wrong:
        raise LocatedError(
            ("rules", i, "with_metric" if wrong[0] in compared else "metrics"),
            f"the window {window.name!r} has no metric {wrong[0]!r}; it takes "
            f"{', '.join(window.metrics)}",
        )
    there = (*PLAIN, *window.aggregates)
    if rule.kind in ("threshold", "compare") and rule.aggregate not in there:
        raise LocatedError(
            ("rules", i, "aggregate"),
            f"the window {window.name!r} has no {rule.aggregate!r}, expected one of "
            f"{', '.join(there)}; add it to the window's aggregates",
        )
    if rule.kind == "rate" and "rate" not in window.aggregates:
        raise LocatedError(
            ("rules", i, "window"),
            f"a rate rule needs the aggregate rate: add it to the window {window.name!r}",
        )
    if rule.kind == "forecast" and not {"trend", "trend_last"} <= set(window.aggregates):
        raise LocatedError(
            ("rules", i, "window"),
            "a forecast rule needs the aggregates trend and trend_last: add them to the window "
            f"{window.name!r}",
        )
    if rule.kind == "expression" and rule.expression is not None:
        from streams.adapters.expressions import variables

        known = (*ON_WINDOWS, *window.aggregates)
        unknown = [name for name in variables(rule.expression) if name not in known]
        if unknown:
            raise LocatedError(
                ("rules", i, "expression"),
                f"{unknown[0]!r} is not known; there are {', '.join(known)}",
            )
    if rule.kind == "absence" and rule.silent_ms is not None:
        span_ms = _span_ms(window)
        if span_ms is None:
            raise LocatedError(
                ("rules", i, "window"),
                f"an absence rule cannot go by {window.name!r}, a {window.kind} window; expected a "
                "tumbling, hopping, calendar or sliding one",
            )
        least_ms = span_ms + window.grace_ms + late_ms
        if rule.silent_ms < least_ms:
            raise LocatedError(
                ("rules", i, "silent_ms"),
                f"expected {least_ms} or more: a series in the window {window.name!r} is heard of "
                "when that closes (its size and grace, disorder_ms and idle_ms)",
            )


_DAYS_MS = {"day": 25 * 3_600_000, "week": 169 * 3_600_000, "month": 745 * 3_600_000}
"""The longest, where the clocks change."""


def _span_ms(window: Window) -> int | None:
    if window.kind == "sliding":
        return 0
    if window.kind in ("tumbling", "hopping"):
        return window.step_ms if window.kind == "hopping" else window.size_ms
    return _DAYS_MS[window.period] if window.period is not None else None


def _may_be_in(metric: str, globs: Sequence[str]) -> bool:
    """Whether a name is among globs; a glob may always be."""
    return any(sign in metric for sign in "*?[") or any(fnmatchcase(metric, g) for g in globs)


def _check_members(rule: Rule, i: int, rules: Sequence[Rule]) -> None:
    by_name = {other.name: other for other in rules}
    for name in rule.of or ():
        other = by_name.get(name)
        if other is None:
            raise LocatedError(("rules", i, "of"), f"there is no rule {name!r}")
        if other.among is not None:
            raise LocatedError(
                ("rules", i, "of"),
                f"{name!r} compares devices with each other; expected rules on one device",
            )
        if (rule.at_edge and not other.at_edge) or (rule.in_cloud and not other.in_cloud):
            raise LocatedError(
                ("rules", i, "of"),
                f"{name!r} is judged at {other.where!r}, {rule.name!r} at {rule.where!r}; expected "
                'the same, or "both" for the member',
            )
        if other.kind not in _MEMBERS or other.window is None:
            raise LocatedError(
                ("rules", i, "of"),
                f"{name!r} is {'an' if other.kind[0] in 'ae' else 'a'} {other.kind} rule"
                f"{' on scores' if other.on_scores else ''}; expected rules on windows: "
                f"{', '.join(_MEMBERS)}",
            )
