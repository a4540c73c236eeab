"""Addresses of servers. They are shown and logged, so none may hold a log-in."""

from __future__ import annotations

from functools import partial
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator


class AddressError(ValueError):
    """What is wrong with an address, to be told without it: it may hold a secret."""


def _address(scheme: str, instead: str, text: str) -> str:
    """Return an address with a scheme: *scheme* where it has none.

    :param instead: where a log-in belongs.
    :raises AddressError: if it holds a log-in, or is no address.
    """
    address = text if "://" in text else f"{scheme}://{text}"
    try:
        holds_login = "@" in urlsplit(address).netloc
    except ValueError as error:
        raise AddressError("not an address") from error
    if holds_login:
        raise AddressError(f"an address holds no user and password: set {instead}")
    return address


def check_url(url: str) -> str:
    """Return the address of a receiver, which may hold a secret.

    :raises AddressError: if it is none.
    """
    import httpx  # Late: only those who have receivers wait for it.

    if not url.startswith(("https://", "http://")):
        raise AddressError("expected an address that starts with https:// (or http://)")
    try:
        host = httpx.URL(url).host
    except httpx.InvalidURL as error:
        # What it quotes may be the secret.
        raise AddressError(f"not an address: {str(error).partition(':')[0]}") from error
    if not host:
        raise AddressError("the address names no host")
    return url


Broker = Annotated[
    str, AfterValidator(partial(_address, "mqtt", "username and password_file of [broker]"))
]
"""``mqtt://host:port`` or ``mqtts://host:port``."""
LocalBroker = Annotated[
    str,
    AfterValidator(partial(_address, "mqtt", "username and password_file of [edge.local_broker]")),
]
"""As :data:`Broker`, at a site."""
InfluxServer = Annotated[str, AfterValidator(partial(_address, "http", "token_file of [influxdb]"))]
"""``http://host:port`` or ``https://host:port``."""
