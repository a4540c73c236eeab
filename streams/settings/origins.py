"""Where each setting comes from: environment, a line of the file, a running server, default."""

from __future__ import annotations

import os
from typing import Any

from streams.settings.loader import Settings, config_path
from streams.toml_lines import KeyPath, read_toml

Origin = tuple[str, Any, str]
"""Path, value, and where it is from."""


def origins(settings: Settings) -> list[Origin]:
    """Return every value of the settings with its origin, in the order of the sections."""
    path = config_path()
    toml = read_toml(path) if path.exists() else None
    variables = {name.upper(): name for name in os.environ}

    def origin(key: KeyPath) -> str:
        named = [str(part).upper() for part in key]
        for length in range(len(named), 0, -1):
            variable = "HEADWATER_" + "__".join(named[:length])
            if variable in variables:
                return f"${variables[variable]}"
        if toml is not None and _has(toml.values, key):
            return toml.where(key)
        if len(key) == 1 and key[0] in ("kafka", "mqtt", "influx"):
            default = Settings.model_fields[str(key[0])].default
            return "default" if getattr(settings, str(key[0])) == default else "services up"
        return "default"

    return [
        (".".join(map(str, key)), value, origin(key))
        for key, value in _leaves((), settings.model_dump(mode="json"))
    ]


def _leaves(key: KeyPath, value: Any) -> list[tuple[KeyPath, Any]]:
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        inner = list(enumerate(value))
    if not inner:
        return [(key, value)]
    return [leaf for name, item in inner for leaf in _leaves((*key, name), item)]


def _has(values: Any, key: KeyPath) -> bool:
    for part in key:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True
