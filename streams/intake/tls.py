"""TLS of the HTTP intake: who a client certificate names, and a log line for each one refused."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from streams.errors import SettingsError
from streams.intake import meters
from streams.log import get_logger
from streams.settings import Intake

_log = get_logger(__name__)
PEER = "headwater.certificate"
"""Key of an ASGI scope: the common name of the verified client certificate."""


class PeerProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which also tells the application who the certificate names."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        """Begin a connection; its handshake is over."""
        super().connection_made(transport)
        name = common_name(transport.get_extra_info("peercert") or {})
        if name is not None:
            app: Any = self.app

            async def named(scope: Any, receive: Any, send: Any) -> None:
                await app({**scope, PEER: name}, receive, send)

            self.app = named


class _LoggingObject(ssl.SSLObject):
    """An SSL object that says why it refuses a certificate; asyncio says nothing."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLCertVerificationError as error:
            meters.UNIDENTIFIED.inc()
            _log.warning("sender refused", protocol="https", why=error.verify_message)
            raise


def common_name(certificate: dict[str, Any]) -> str | None:
    """Return the common name of the subject, in the form of ``SSLSocket.getpeercert``."""
    for relative in certificate.get("subject", ()):
        for name, value in relative:
            if name == "commonName":
                return str(value)
    return None


def server_context(limits: Intake) -> ssl.SSLContext | None:
    """Return the TLS settings of the server; ``None`` for plain http.

    :raises SettingsError: if a file cannot be used.
    """
    if limits.cert_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslobject_class = _LoggingObject
    try:
        context.load_cert_chain(limits.cert_file, limits.key_file)
        if limits.client_ca_file is not None:
            context.load_verify_locations(limits.client_ca_file)
            # With tokens beside, a device may have either.
            wanted = ssl.CERT_REQUIRED if limits.tokens is None else ssl.CERT_OPTIONAL
            context.verify_mode = wanted
        if limits.crl_file is not None:
            context.load_verify_locations(limits.crl_file)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(
            f"intake.cert_file = {limits.cert_file}, key_file = {limits.key_file}, "
            f"client_ca_file = {limits.client_ca_file}, crl_file = {limits.crl_file}: "
            f"cannot be used: {error}"
        ) from error
    return context
