"""Keys of replicas, and the registry that says whose they are: files of ``headwater pki``."""

from __future__ import annotations

import hashlib
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from crdt.core.errors import WireError
from crdt.core.permissions import Grant
from streams.errors import SettingsError

_KID_DIGITS = 16
_RAW_BYTES = 32


class KeyEntry(BaseModel):
    """One public key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kid: str
    """The first 16 hex digits of the key's SHA-256."""
    role: Literal["hub", "spoke"]
    public: Annotated[str, Field(max_length=64)]
    """The raw key, base64."""
    tenant: str = ""
    site: str = ""
    devices: tuple[str, ...] = ("*",)
    paths: tuple[str, ...] = ("*",)
    releases: tuple[str, ...] = ("*",)
    revoked: bool = False
    """What it signed is refused from now on; cells that it wrote stay."""

    def grant(self) -> Grant:
        """Return what its holder may write."""
        return Grant(f"edge:{self.site}:", self.devices, self.paths, self.releases)

    def key(self) -> Ed25519PublicKey:
        """Return the key to verify with."""
        return Ed25519PublicKey.from_public_bytes(b64decode(self.public))

    @field_validator("public")
    @classmethod
    def _is_a_key(cls, public: str) -> str:
        if len(b64decode(public, validate=True)) != _RAW_BYTES:
            raise ValueError("expected an Ed25519 public key, 32 bytes in base64")
        return public


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    keys: tuple[KeyEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key, ready to sign."""

    kid: str
    key: Ed25519PrivateKey


class Registry:
    """All public keys, read again whenever the file changes: a revocation counts at once."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        :raises SettingsError: if it is no registry.
        """
        self._path = path
        self._stamp = (0, 0)
        self._entries: dict[str, KeyEntry] = {}
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._read()

    def refresh(self) -> None:
        """Read the file again if it was changed.

        :raises WireError: if it cannot be read: nothing that somebody signed is believed then.
        """
        try:
            self._read()
        except SettingsError as error:
            raise WireError("bad-registry", str(error)) from error

    def _read(self) -> None:
        try:
            found = self._path.stat()
        except OSError as error:
            raise SettingsError(f"{self._path}: {error.strerror}; headwater pki init") from error
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp != self._stamp:
            self._entries = {entry.kid: entry for entry in read_entries(self._path)}
            self._keys = {kid: entry.key() for kid, entry in self._entries.items()}
            self._stamp = stamp

    def entry(self, kid: str) -> KeyEntry | None:
        """Return what is known of a key."""
        return self._entries.get(kid)

    def key(self, kid: str) -> Ed25519PublicKey:
        """Return the key to verify with.

        :raises KeyError: if it is not known.
        """
        return self._keys[kid]

    def grant(self, tenant: str, site: str) -> Grant | None:
        """Return what a site may write, by its keys that count; None if it has none."""
        entries = [e for e in self._entries.values() if not e.revoked and e.role == "spoke"]
        mine = [e for e in entries if (e.tenant, e.site) == (tenant, site)]
        if not mine:
            return None
        return Grant(
            f"edge:{site}:",
            tuple(glob for e in mine for glob in e.devices),
            tuple(glob for e in mine for glob in e.paths),
            tuple(glob for e in mine for glob in e.releases),
        )


def read_entries(path: Path) -> tuple[KeyEntry, ...]:
    """Read a registry.

    :raises SettingsError: if the file is none.
    """
    try:
        return _File.model_validate_json(path.read_bytes()).keys
    except (OSError, ValidationError) as error:
        raise SettingsError(f"{path}: no registry of keys: {error}") from error


def write_entries(path: Path, entries: Iterable[KeyEntry]) -> None:
    """Write a registry, whole or not at all."""
    fresh = path.with_suffix(".new")
    fresh.write_text(_File(keys=tuple(entries)).model_dump_json(indent=2) + "\n")
    fresh.replace(path)


def make_key(path: Path) -> str:
    """Make a private key in a file that only its owner can read; return the public key, base64.

    :raises FileExistsError: if the file exists.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return b64encode(raw).decode()


def kid_of(public: str) -> str:
    """Return the id of a public key."""
    return hashlib.sha256(b64decode(public)).hexdigest()[:_KID_DIGITS]


def load_signer(path: Path) -> Signer:
    """Load a private key.

    :raises SettingsError: if the file is none, or others may read it.
    """
    try:
        mode, pem = path.stat().st_mode, path.read_bytes()
        key = load_pem_private_key(pem, None)
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"{path}: no private key: {error}") from error
    if mode & 0o077:
        raise SettingsError(f"{path}: others may read this key; chmod 600 {path}")
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(f"{path}: expected an Ed25519 key, as headwater pki makes it")
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return Signer(kid_of(b64encode(raw).decode()), key)
