"""Which addresses a webhook may go to."""

from __future__ import annotations

import httpx
import pytest

from streams.alerts.guard import pinned_address
from streams.errors import DeliveryError


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "224.0.0.1",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fc00::1]",
        "[fe80::1]",
        "[ff02::1]",
        "localhost",
    ],
)
async def test_what_is_not_public_is_refused_however_it_is_spelt(host):
    with pytest.raises(DeliveryError, match="is not a public address"):
        await pinned_address(httpx.URL(f"https://{host}/"), allow_private=False)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("93.184.215.14", "93.184.215.14"),
        ("[2606:2800:21f:cb07::1]", "2606:2800:21f:cb07::1"),
        ("[::ffff:93.184.215.14]", "::ffff:93.184.215.14"),
        ("[64:ff9b::5db8:d70e]", "64:ff9b::5db8:d70e"),
    ],
)
async def test_what_is_public_is_pinned(host, address):
    url = httpx.URL(f"https://{host}/")
    assert await pinned_address(url, allow_private=False) == address
