"""Where a webhook may go: protection against server-side request forgery."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from concurrent.futures import Executor

import httpx

from streams.errors import DeliveryError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are an address of IPv4."""


async def pinned_address(
    url: httpx.URL, *, allow_private: bool, executor: Executor | None = None
) -> str:
    """Resolve the host of *url* and return the one address that the request must go to.

    The request is sent to this very address, so that a name cannot be public while it is
    checked and private when it is used.

    :param executor: whose threads wait for the name server; default: those of the event loop.
    :raises DeliveryError: if the name has no address, or any of them is not public and that
        is not allowed.
    """
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = await asyncio.get_running_loop().run_in_executor(
            executor, lambda: socket.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        )
    except (socket.gaierror, UnicodeError) as error:
        raise DeliveryError(f"{url.host} cannot be resolved: {error}") from error
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not allow_private and not _is_public(ipaddress.ip_address(address)):
            raise DeliveryError(
                f"{url.host} resolves to {address}, which is not a public address; set "
                "allow_private = true on the webhook if the receiver is in your own network"
            )
    return addresses[0]


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of the Internet; one that stands for another, if that is."""
    if isinstance(address, ipaddress.IPv6Address):
        stands_for = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            stands_for.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if not all(_is_public(one) for one in stands_for if one is not None):
            return False
        if address.ipv4_mapped is not None:
            return True
    return address.is_global and not address.is_multicast
