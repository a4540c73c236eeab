"""Who may publish what: the name in a certificate or behind a token, and what it allows. Pure.

A name is ``TENANT/SITE/DEVICE``, or ``TENANT/SITE`` for all devices of a site. It is the common
name of a certificate, where the MQTT broker finds it too (``use_identity_as_username``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from streams.adapters.rows import check_name
from streams.core.readings import Labels, Readings
from streams.errors import DecodeError, HeadwaterError


class RefusedIdentityError(HeadwaterError):
    """A token or certificate that does not count; the message says why."""


class ForeignReadingsError(DecodeError):
    """Readings that are not the sender's own."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose readings somebody may publish; ``device`` is ``None`` for all of the site."""

    tenant: str
    site: str
    device: str | None = None

    def __str__(self) -> str:
        return "/".join(part for part in (self.tenant, self.site, self.device) if part)


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token: the hash, never the token itself. Times: ms since the epoch."""

    sha256: str
    identity: Identity
    expires_ms: int
    revoked_ms: int = 0


def identity_of(name: str) -> Identity:
    """Read ``TENANT/SITE`` or ``TENANT/SITE/DEVICE``.

    :raises RefusedIdentityError: if it is neither.
    """
    parts = name.split("/")
    try:
        if len(parts) in (2, 3):
            for kind, part in zip(("tenant", "site", "device"), parts, strict=False):
                check_name(kind, part)
            return Identity(*parts)
    except DecodeError as error:
        raise RefusedIdentityError(f"{name[:120]!r}: {error.detail}") from error
    raise RefusedIdentityError(f"{name[:120]!r}: expected TENANT/SITE or TENANT/SITE/DEVICE")


def hash_of(token: str) -> str:
    """Return what is kept of a token. It has 256 random bits, so a plain hash hides it."""
    return hashlib.sha256(token.encode()).hexdigest()


def by_hash(tokens: Iterable[Token]) -> dict[str, Token]:
    """Return tokens by their hash, for :func:`identity_of_token`."""
    return {token.sha256: token for token in tokens}


def identity_of_token(tokens: Mapping[str, Token], token: str, now_ms: int) -> Identity:
    """Return whom a token stands for.

    :raises RefusedIdentityError: if it is unknown, expired or revoked.
    """
    found = tokens.get(hash_of(token))
    if found is None:
        raise RefusedIdentityError("the token is unknown")
    if found.revoked_ms:
        raise RefusedIdentityError(f"the token of {found.identity} was revoked")
    if found.expires_ms <= now_ms:
        raise RefusedIdentityError(f"the token of {found.identity} has expired")
    return found.identity


def check_own(identity: Identity, readings: Readings) -> None:
    """Let only an identity's own readings pass.

    :raises ForeignReadingsError: ``wrong-tenant``, ``wrong-site`` or ``wrong-device`` if one is
        another's.
    """
    for kind in ("tenant", "site", "device"):
        mine = getattr(identity, kind)
        if mine is not None:
            other = _other(getattr(readings, kind), mine)
            if other is not None:
                raise ForeignReadingsError(
                    f"wrong-{kind}", f"{identity} sends as itself, not for {kind} {other[:60]!r}"
                )


def _other(labels: Labels, mine: str) -> str | None:
    if len(labels.values) == 1:
        return None if labels.values[0] == mine else labels.values[0]
    found = (labels.values[code] for code in np.unique(labels.codes).tolist())
    return next((value for value in found if value != mine), None)
