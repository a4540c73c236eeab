"""Units of payloads, converted to the canonical unit of the metric catalogue."""

from __future__ import annotations

from streams.errors import DecodeError

# (from, to) -> (scale, offset). Names after the SenML units registry (RFC 8428, RFC 8798).
_CONVERSIONS: dict[tuple[str, str], tuple[float, float]] = {
    ("K", "Cel"): (1.0, -273.15),
    ("Cel", "K"): (1.0, 273.15),
    ("degF", "Cel"): (5 / 9, -160 / 9),
    ("Cel", "degF"): (1.8, 32.0),
    ("hPa", "Pa"): (100.0, 0.0),
    ("Pa", "hPa"): (0.01, 0.0),
    ("kW", "W"): (1000.0, 0.0),
    ("W", "kW"): (0.001, 0.0),
    ("kWh", "Wh"): (1000.0, 0.0),
    ("Wh", "kWh"): (0.001, 0.0),
    ("J", "Wh"): (1 / 3600, 0.0),
    ("Wh", "J"): (3600.0, 0.0),
    ("mm", "m"): (0.001, 0.0),
    ("m", "mm"): (1000.0, 0.0),
    ("km/h", "m/s"): (1 / 3.6, 0.0),
    ("m/s", "km/h"): (3.6, 0.0),
    ("/", "%"): (100.0, 0.0),
    ("%", "/"): (0.01, 0.0),
    ("%RH", "/"): (0.01, 0.0),
    ("mV", "V"): (0.001, 0.0),
    ("mA", "A"): (0.001, 0.0),
}


def convert(value: int | float, given: object, canonical: str | None, metric: str) -> int | float:
    """Return *value* in the canonical unit of its metric.

    Where the payload or the catalogue names no unit, or both the same, it stays as it is.

    :raises DecodeError: ``unknown-unit`` if no conversion from one to the other is known.
    """
    if given is None or canonical is None or given == canonical:
        return value
    if not isinstance(given, str) or (given, canonical) not in _CONVERSIONS:
        raise DecodeError(
            "unknown-unit",
            f"{metric} is in {str(given)[:40]!r}; the metric catalogue says {canonical!r} "
            "and no conversion is known",
        )
    scale, offset = _CONVERSIONS[given, canonical]
    return value * scale + offset
