"""Where a webhook may go: protection against server-side request forgery."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import httpx

from streams.errors import DeliveryError


async def pinned_address(url: httpx.URL, *, allow_private: bool) -> str:
    """Resolve the host of *url* and return the one address that the request must go to.

    The request is sent to this very address, so that a name cannot be public while it is
    checked and private when it is used.

    :raises DeliveryError: if the name has no address, or any of them is not public and that
        is not allowed.
    """
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            url.host, port, type=socket.SOCK_STREAM
        )
    except socket.gaierror as error:
        raise DeliveryError(f"{url.host} cannot be resolved: {error}") from error
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not allow_private and not ipaddress.ip_address(address).is_global:
            raise DeliveryError(
                f"{url.host} resolves to {address}, which is not a public address; set "
                "allow_private = true on the webhook if the receiver is in your own network"
            )
    return addresses[0]
