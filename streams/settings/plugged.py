"""Names in the settings that other packages may bring."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from streams.errors import SettingsError
from streams.extensions import AGGREGATES, names, require

OWN_AGGREGATE = re.compile(
    r"first|last|delta|rate|trend|trend_last|time_weighted_mean|distinct|p(100|[0-9]{1,2}(\.[0-9]{1,3})?)"
)
"""What the engine computes itself."""


def check_installed(group: str, name: str) -> str:
    """Return the name of an extension that is installed.

    :raises ValueError: if it is not, naming what is.
    """
    try:
        require(group, name)
    except SettingsError as error:
        raise ValueError(str(error)) from error
    return name


def _is_aggregate(name: str) -> str:
    if OWN_AGGREGATE.fullmatch(name) or name in names(AGGREGATES):
        return name
    raise ValueError(
        "expected first, last, delta, rate, trend, trend_last, time_weighted_mean, distinct, a "
        f"quantile such as p50 or p99.9, or what a package adds under {AGGREGATES}: "
        f"{', '.join(names(AGGREGATES)) or 'none is installed'}"
    )


Aggregate = Annotated[str, AfterValidator(_is_aggregate)]
Option = str | int | float | bool
