"""A small CA for development and for sites without one: certificates for MQTT, keys for twins.

Everything lies in one folder. What a site needs is in ``sites/TENANT/SITE``; ``ca.key`` and
``hub.key`` never leave the folder. Private keys are readable by their owner alone.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from streams.adapters.replica_keys import (
    KeyEntry,
    kid_of,
    make_key,
    read_entries,
    write_entries,
)
from streams.errors import SettingsError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CA_DAYS = 3_650
_LEVELS = frozenset(("twin", "cmd"))
"""Below ``hw/v1/TENANT/SITE``: a rule for ``hw/v1/NAME/up`` must not let a device in there."""
_MAX_COMMON_NAME = 64
"""Characters (RFC 5280, ub-common-name)."""
_CRL_DAYS = 30
_BACKDATED = timedelta(minutes=5)
"""Clocks of devices run behind."""


@dataclass(frozen=True, slots=True)
class Issued:
    """What a site was given."""

    folder: Path
    kid: str


@dataclass(frozen=True, slots=True)
class _Whose:
    """A site and what it may write."""

    tenant: str
    site: str
    devices: tuple[str, ...]
    paths: tuple[str, ...]
    releases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pki:
    """The folder. Times are arguments."""

    folder: Path

    def init(self, names: Sequence[str], now: datetime) -> None:
        """Make the CA, a certificate for the broker, the hub's key, an empty revocation list.

        :param names: host names and addresses of the broker.
        :raises SettingsError: if there is a CA already.
        """
        if self._ca_key.exists():
            raise SettingsError(f"{self._ca_key} exists: this folder has a CA already")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Headwater development CA")])
        certificate = (
            _builder(name, name, key.public_key(), now, _CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, SHA256())
        )
        _write_key(self._ca_key, key)
        (self.folder / "ca.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        self._certify(self.folder / "broker", "broker", now, _CA_DAYS, server_names=names)
        public = make_key(self.folder / "hub.key")
        write_entries(self.registry, [KeyEntry(kid=kid_of(public), role="hub", public=public)])
        self._write_certificates([])
        self._write_crl(now)

    def certify_device(self, tenant: str, site: str, device: str, now: datetime, days: int) -> Path:
        """Make a certificate for one device: its name is what it may publish as.

        :returns: the folder with ``client.pem`` and ``client.key``.
        :raises SettingsError: if there is no CA, a name is bad, or the device has one already.
        """
        name = f"{tenant}/{site}/{device}"
        self._site(tenant, site)  # checks names and CA
        folder = self.folder / "devices" / tenant / site / _checked(device)
        if device in _LEVELS:
            raise SettingsError(f"{device!r} is a level of topics, so no device of that name")
        if len(name) > _MAX_COMMON_NAME:
            raise SettingsError(f"{name!r}: a certificate names at most {_MAX_COMMON_NAME} signs")
        if folder.exists():
            raise SettingsError(f"{folder} exists: revoke the device, and remove the folder")
        folder.mkdir(parents=True)
        serial = self._certify(folder / "client", name, now, days)
        (folder / "ca.pem").write_bytes((self.folder / "ca.pem").read_bytes())
        known = {"serial": f"{serial:x}", "kid": "", "site": name, "revoked_ms": 0}
        self._write_certificates([*self._certificates(), known])
        return folder

    def certify_gateway(self, now: datetime, days: int) -> Path:
        """Make a certificate for the gateways, which the broker lets see everything.

        :returns: the folder, where ``gateway.pem`` and ``gateway.key`` are.
        :raises SettingsError: if there is no CA, or there is one already.
        """
        if not self._ca_key.exists():
            raise SettingsError(f"{self.folder} has no CA: headwater pki init")
        if (self.folder / "gateway.pem").exists():
            raise SettingsError(f"{self.folder / 'gateway.pem'} exists")
        serial = self._certify(self.folder / "gateway", "gateway", now, days)
        known = {"serial": f"{serial:x}", "kid": "", "site": "gateway", "revoked_ms": 0}
        self._write_certificates([*self._certificates(), known])
        return self.folder

    def issue(
        self,
        tenant: str,
        site: str,
        now: datetime,
        *,
        days: int = 365,
        devices: Sequence[str] = ("*",),
        paths: Sequence[str] = ("*",),
        releases: Sequence[str] = ("*",),
    ) -> Issued:
        """Make what a site needs: a certificate, a replica key and the hub's public key.

        :raises SettingsError: if there is no CA, a name is bad, or the site has these already.
        """
        folder = self._site(tenant, site)
        if folder.exists():
            raise SettingsError(f"{folder} exists: headwater pki rotate {tenant}/{site}")
        folder.mkdir(parents=True)
        whose = _Whose(tenant, site, tuple(devices), tuple(paths), tuple(releases))
        return self._equip(folder, whose, now, days)

    def rotate(self, tenant: str, site: str, now: datetime, *, days: int = 365) -> Issued:
        """Make new keys and a new certificate; the old ones count until they are revoked.

        :raises SettingsError: if the site has none yet.
        """
        folder = self._site(tenant, site)
        mine = [e for e in self.entries() if (e.tenant, e.site) == (tenant, site)]
        if not mine or not folder.exists():
            raise SettingsError(f"{tenant}/{site} has no keys: headwater pki issue {tenant}/{site}")
        old = folder / f"until-{now:%Y%m%dT%H%M%S%f}"
        old.mkdir()
        for path in [path for path in folder.iterdir() if path.is_file()]:
            path.rename(old / path.name)
        last = mine[-1]
        whose = _Whose(tenant, site, last.devices, last.paths, last.releases)
        return self._equip(folder, whose, now, days)

    def revoke(self, what: str, now: datetime) -> int:
        """Revoke a key by its id, or all keys and certificates of ``tenant/site``; return how many.

        :raises SettingsError: if nothing that counts is called so.
        """
        entries, certificates = self.entries(), self._certificates()
        count = 0
        for place, entry in enumerate(entries):
            if what in (entry.kid, f"{entry.tenant}/{entry.site}") and not entry.revoked:
                entries[place] = entry.model_copy(update={"revoked": True})
                count += 1
        for certificate in certificates:
            if what in (certificate["kid"], certificate["site"]) and not certificate["revoked_ms"]:
                certificate["revoked_ms"] = int(now.timestamp() * 1000)
                count += 1
        if not count:
            raise SettingsError(f"{what!r}: no key or site that counts has that name")
        write_entries(self.registry, entries)
        self._write_certificates(certificates)
        self._write_crl(now)
        return count

    def entries(self) -> list[KeyEntry]:
        """Return the registry.

        :raises SettingsError: if there is none.
        """
        return list(read_entries(self.registry))

    @property
    def registry(self) -> Path:
        """The file for ``twins.registry`` of gateways and workers."""
        return self.folder / "registry.json"

    @property
    def _ca_key(self) -> Path:
        return self.folder / "ca.key"

    def _site(self, tenant: str, site: str) -> Path:
        for name in (tenant, site):
            _checked(name)
        if not self._ca_key.exists():
            raise SettingsError(f"{self.folder} has no CA: headwater pki init")
        return self.folder / "sites" / tenant / site

    def _equip(self, folder: Path, whose: _Whose, now: datetime, days: int) -> Issued:
        public = make_key(folder / "replica.key")
        kid = kid_of(public)
        name = f"{whose.tenant}/{whose.site}"
        serial = self._certify(folder / "client", name, now, days)
        entry = KeyEntry(kid=kid, role="spoke", public=public, **asdict(whose))
        entries = [*self.entries(), entry]
        write_entries(self.registry, entries)
        write_entries(folder / "registry.json", [e for e in entries if e.role == "hub"])
        (folder / "ca.pem").write_bytes((self.folder / "ca.pem").read_bytes())
        site = f"{whose.tenant}/{whose.site}"
        known = {"serial": f"{serial:x}", "kid": kid, "site": site, "revoked_ms": 0}
        self._write_certificates([*self._certificates(), known])
        return Issued(folder, kid)

    def _certify(
        self, path: Path, name: str, now: datetime, days: int, server_names: Sequence[str] = ()
    ) -> int:
        ca = x509.load_pem_x509_certificate((self.folder / "ca.pem").read_bytes())
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server_names else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _builder(subject, ca.subject, key.public_key(), now, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key()),  # type: ignore[arg-type] # ours is EC
                critical=False,
            )
        )
        if server_names:
            alternatives = x509.SubjectAlternativeName(list(map(_general_name, server_names)))
            builder = builder.add_extension(alternatives, critical=False)
        certificate = builder.sign(self._load_ca(), SHA256())
        _write_key(path.with_suffix(".key"), key)
        path.with_suffix(".pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        return certificate.serial_number

    def _load_ca(self) -> ec.EllipticCurvePrivateKey:
        key = load_pem_private_key(self._ca_key.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key

    def _certificates(self) -> list[dict[str, Any]]:
        return list(orjson.loads((self.folder / "certificates.json").read_bytes()))

    def _write_certificates(self, certificates: Sequence[dict[str, Any]]) -> None:
        fresh = self.folder / "certificates.new"
        fresh.write_bytes(orjson.dumps(certificates, option=orjson.OPT_INDENT_2))
        fresh.replace(self.folder / "certificates.json")

    def _write_crl(self, now: datetime) -> None:
        ca = x509.load_pem_x509_certificate((self.folder / "ca.pem").read_bytes())
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(ca.subject)
            .last_update(now - _BACKDATED)
            .next_update(now + timedelta(days=_CRL_DAYS))
        )
        for certificate in self._certificates():
            if certificate["revoked_ms"]:
                revoked = (
                    x509.RevokedCertificateBuilder()
                    .serial_number(int(certificate["serial"], 16))
                    .revocation_date(datetime.fromtimestamp(certificate["revoked_ms"] / 1000, UTC))
                )
                builder = builder.add_revoked_certificate(revoked.build())
        crl = builder.sign(self._load_ca(), SHA256())
        (self.folder / "revoked.pem").write_bytes(crl.public_bytes(Encoding.PEM))


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{name!r}: a name has letters, digits, dots, - and _")
    return name


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
