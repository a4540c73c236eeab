from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from streams.errors import SettingsError
from streams.gateway.link import Link, Session
from streams.settings import Mqtt
from streams.settings.broker import LocalMqtt


class FakePackets:
    def __init__(self) -> None:
        self.sent = b""

    def send(self, data: bytes) -> int:
        self.sent += data
        return len(data)


def session(address: str = "mqtt://127.0.0.1:1") -> Session:
    return Session(address, Mqtt(), "client", "group", [("a/+", 7)], 100, 60)


async def test_messages_of_an_old_connection_are_never_acknowledged_on_a_new_one() -> None:
    link = Link(session(), lambda _: None, lambda _topic, _ids: False)
    packets = FakePackets()
    link._client.packets = packets  # type: ignore[assignment]  # all that ack needs
    link.epoch = 2
    link.ack([(1, 5), (2, 6), (2, 0), (1, 6), (2, 7)])
    assert packets.sent == b"\x40\x02\x00\x06\x40\x02\x00\x07"


@pytest.mark.parametrize("address", ["http://host:1", "mqtt://", "mqtt://host:port"])
async def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="mqtt://host:port"):
        Link(session(address), lambda _: None, lambda _topic, _ids: False)


@pytest.mark.parametrize(
    ("login", "named"),
    [
        (Mqtt(username="me", password_file=Path("absent")), "broker.password_file"),
        (LocalMqtt(username="me", password_file=Path("absent")), "edge.local_broker.password_file"),
        (LocalMqtt(ca_file=Path("absent")), "edge.local_broker.ca_file = absent"),
    ],
)
async def test_a_file_that_cannot_be_used_is_named_with_its_section(
    login: Mqtt, named: str
) -> None:
    asked = replace(session("mqtts://host"), login=login)
    with pytest.raises(SettingsError, match=f"^{named}"):
        Link(asked, lambda _: None, lambda _topic, _ids: False)
