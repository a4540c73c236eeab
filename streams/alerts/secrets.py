"""Signing secrets after Standard Webhooks: ``whsec_`` and base64 of 32 random bytes."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

from streams.errors import SettingsError

_BYTES = 32


def new_secret() -> str:
    """Return a new secret."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(_BYTES)).decode()


def write_secret(path: Path) -> None:
    """Write a new secret to a new file that only its owner can read.

    :raises SettingsError: if the file exists.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise SettingsError(f"{path} exists; a secret in use is not overwritten") from error
    with os.fdopen(handle, "w") as file:
        file.write(new_secret() + "\n")
