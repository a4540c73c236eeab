"""What to say when TLS or the broker refuses a connection: what, where, what to do about it.

A broker tells a client what is wrong with its certificate by a TLS alert (RFC 8446, 6.2), which
OpenSSL names in its error. With TLS 1.3 it comes after the handshake, so it looks like a
connection that was lost.
"""

from __future__ import annotations

import ssl

from cryptography import x509
from cryptography.x509.oid import NameOID

from streams.settings import Mqtt

_ISSUE = "give this end a certificate that counts (headwater pki issue, or headwater pki rotate)"
_ALERTS = {
    "CERTIFICATE_EXPIRED": f"it has expired; {_ISSUE}",
    "CERTIFICATE_REVOKED": f"it was revoked; {_ISSUE}",
    "UNKNOWN_CA": f"the broker trusts another CA than the one that signed it; {_ISSUE}",
    "CERTIFICATE_REQUIRED": "there is none; set {section}.cert_file and {section}.key_file",
    "BAD_CERTIFICATE": f"the broker does not take it; {_ISSUE}",
    "CERTIFICATE_UNKNOWN": f"the broker does not take it; {_ISSUE}",
}


def told(error: BaseException | None, login: Mqtt) -> str:
    """Return an error of a connection in words; with what to do where it is of certificates."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"certificate verify failed: {error.verify_message}: the certificate that the broker "
            f"shows does not count; {login.section}.ca_file = {login.ca_file} has to hold the "
            "CA that signed it, and mqtt the name that it is for"
        )
    if isinstance(error, ssl.SSLError):
        for alert, what in _ALERTS.items():
            if (error.reason or "").endswith(f"ALERT_{alert}"):
                return (
                    "the broker refused our certificate: "
                    f"{what.format(section=login.section)}; {whose(login)}"
                )
    return str(error)


def whose(login: Mqtt) -> str:
    """Return as whom the settings make us log in."""
    if login.cert_file is not None:
        try:
            found = x509.load_pem_x509_certificate(login.cert_file.read_bytes())
        except (OSError, ValueError) as error:
            return f"{login.section}.cert_file = {login.cert_file} cannot be read: {error}"
        names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        name = names[0].value if names else "nobody"
        until = f"{found.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        return f"{login.section}.cert_file = {login.cert_file} names {name!r}, valid until {until}"
    if login.username:
        return f"{login.section}.username = {login.username!r}"
    return f"[{login.section}] names neither a certificate nor a user"
