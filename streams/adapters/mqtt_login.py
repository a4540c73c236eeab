"""From settings to what an MQTT client connects with: address, password, TLS."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from streams.errors import SettingsError
from streams.settings import Mqtt


def parse_address(address: str) -> tuple[str, int, bool]:
    """Return host, port, and whether it speaks TLS, of ``mqtt://host:port`` or ``mqtts://host``.

    :raises SettingsError: if it is neither.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme not in ("mqtt", "mqtts"):
        raise SettingsError(
            f"mqtt = {address!r}: expected mqtt://host:port, or mqtts://host:port for TLS"
        )
    secure = parts.scheme == "mqtts"
    return host, port or (8883 if secure else 1883), secure


def password_of(login: Mqtt) -> str | None:
    """Return what is in the password file, ``None`` without one.

    :raises SettingsError: if it cannot be read.
    """
    if login.password_file is None:
        return None
    try:
        return login.password_file.read_text().rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"{login.section}.password_file: {error}") from error


def tls_context(login: Mqtt) -> ssl.SSLContext:
    """Return a context that verifies the broker, with our certificate if there is one.

    :raises SettingsError: if a file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=login.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(
            f"{login.section}.ca_file = {login.ca_file}: cannot be used: {error}"
        ) from error
    if login.cert_file is not None:
        try:
            context.load_cert_chain(login.cert_file, login.key_file)
        except OSError as error:
            raise SettingsError(
                f"{login.section}.cert_file = {login.cert_file}, key_file = {login.key_file}: "
                f"cannot be used: {error}"
            ) from error
    return context
