"""The apprise channel, at an address of its kind ``json://`` that a test listens at."""

from __future__ import annotations

import orjson
import pytest

from streams.alerts.channel import channels_of
from streams.errors import SettingsError
from streams.extensions import CHANNELS, load
from streams.services.ports import HOST
from streams.settings import Channel, Settings
from tests.integration.test_sender import receiver, says
from tests.waiting import PATIENCE_S

# A module of the library's mail plugin imports imghdr, which Python 3.13 has no more.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

_PATIENT_MS = int(1_000 * PATIENCE_S)
ALERT = {
    "id": "alt_1",
    "rule": "hot",
    "severity": "critical",
    "state": "firing",
    "site": "north",
    "device": "pump-1",
    "why": "mean of m of pump-1 in 1m was 95, over 90",
}


def channel(tmp_path, *lines):
    (tmp_path / "urls").write_text("\n".join(lines))
    options = {"url_file": str(tmp_path / "urls")}
    return Channel(name="people", kind="apprise", options=options, timeout_ms=_PATIENT_MS)


def address(port):
    """Of a receiver, which may take its time: four seconds are all that the library waits."""
    return f"json://{HOST}:{port}/?cto={PATIENCE_S}&rto={PATIENCE_S}"


async def test_people_get_words_and_a_failure_is_one(tmp_path):
    async with receiver(says("200 OK")) as (port, requests):
        settings = Settings(channels=[channel(tmp_path, address(port))])
        way = channels_of(settings)["people"]
        await way.open()
        assert (await way.send("msg_1", {"data": ALERT})).delivered
        group = {"count": 7, "reason": "changed", "why": "7 alerts", "alerts": [ALERT] * 6}
        assert (await way.send("msg_2", {"data": group})).delivered
        await way.close()
    one, many = (orjson.loads(body) for _, body in requests)
    assert (one["title"], one["type"]) == ("firing: hot on pump-1", "failure")
    assert one["message"].startswith(ALERT["why"])
    assert many["title"] == "7 alerts changed"
    assert many["message"].endswith("and 2 more")
    outcome = await way.send("msg_3", {"data": {**ALERT, "state": "resolved"}})
    assert not outcome.delivered


async def test_an_address_that_took_a_message_does_not_get_it_again_while_another_fails(tmp_path):
    async with (
        receiver(says("200 OK")) as (good, took),
        receiver(says("500 Oops")) as (bad, refused),
    ):
        urls = [address(port) for port in (good, bad)]
        way = channels_of(Settings(channels=[channel(tmp_path, *urls)]))["people"]
        await way.open()
        outcomes = [await way.send("msg_1", {"data": ALERT}) for _ in range(3)]
        await way.close()
    assert {one.reason for one in outcomes} == {"address 2 did not take it"}
    assert (len(took), len(refused)) == (1, 3)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["carrier-pigeon://secret-token"], "address 1 is none that apprise knows"),
        ([], "holds no address"),
    ],
)
def test_what_is_no_address_is_refused_without_showing_it(tmp_path, lines, says):
    with pytest.raises(SettingsError, match=says) as error:
        load(CHANNELS, "apprise")(channel(tmp_path, *lines))
    assert "secret-token" not in str(error.value)


def test_the_option_is_named_where_it_lacks():
    with pytest.raises(SettingsError, match="needs the option url_file"):
        load(CHANNELS, "apprise")(Channel(name="people", kind="apprise"))
