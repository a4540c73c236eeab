"""The file of tokens: JSON, hashes only, replaced as a whole and read again when it changes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from streams.errors import SettingsError
from streams.intake.identities import (
    Identity,
    RefusedIdentityError,
    Token,
    by_hash,
    identity_of,
    identity_of_token,
)
from streams.log import get_logger

_log = get_logger(__name__)


def read_tokens(path: Path) -> list[Token]:
    """Return the tokens of a file.

    :raises SettingsError: if it cannot be read or is not one.
    """
    try:
        entries = orjson.loads(path.read_bytes())
        return [
            Token(
                str(entry["sha256"]),
                identity_of(entry["identity"]),
                int(entry["expires_ms"]),
                int(entry["revoked_ms"]),
            )
            for entry in entries
        ]
    except OSError as error:
        raise SettingsError(f"intake.tokens = {path}: {error}") from error
    except (ValueError, KeyError, TypeError, RefusedIdentityError) as error:
        raise SettingsError(f"intake.tokens = {path} is no file of tokens: {error!r}") from error


def write_tokens(path: Path, tokens: Sequence[Token]) -> None:
    """Replace the file; it is readable by its owner alone."""
    entries = [
        {
            "sha256": token.sha256,
            "identity": str(token.identity),
            "expires_ms": token.expires_ms,
            "revoked_ms": token.revoked_ms,
        }
        for token in tokens
    ]
    fresh = path.with_suffix(".new")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(orjson.dumps(entries, option=orjson.OPT_INDENT_2))
    fresh.replace(path)


class TokenFile:
    """The tokens of a file as they are now."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        :raises SettingsError: as :func:`read_tokens`.
        """
        self._path = path
        self._seen = self._state()
        self._tokens: Mapping[str, Token] = by_hash(read_tokens(path))

    def identity(self, token: str, now_ms: int) -> Identity:
        """Return whom a token stands for.

        :raises RefusedIdentityError: as :func:`identity_of_token`.
        """
        state = self._state()
        if state != self._seen:
            self._seen = state
            try:
                self._tokens = by_hash(read_tokens(self._path))
            except SettingsError as error:
                # Those that were known still count: a half-made edit must not lock all out.
                _log.error("tokens not read", error=str(error))
        return identity_of_token(self._tokens, token, now_ms)

    def _state(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return 0, 0, 0
        return found.st_mtime_ns, found.st_size, found.st_ino
