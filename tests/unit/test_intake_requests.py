"""From one request to readings, and who may send which."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from streams.adapters import frames, zstd
from streams.core.readings import Readings
from streams.errors import DecodeError, SettingsError
from streams.intake.identities import (
    ForeignReadingsError,
    Identity,
    RefusedIdentityError,
    Token,
    hash_of,
    identity_of,
)
from streams.intake.mapping import TopicMap
from streams.intake.requests import Asked, RequestDecoder, UnsupportedTypeError
from streams.intake.token_file import TokenFile, read_tokens, write_tokens
from streams.settings import Intake, Mapping

NOW_MS = 1_764_000_000_000
PUMP = Identity("acme", "north", "pump-1")
NORTH = Identity("acme", "north")
OBJECT = b'{"temperature": 21.5, "t_ms": 5, "seq": 3}'
MAPPING = Mapping(topic="f/{site}/{device}", tenant="acme", site="{site}")
JSON = "application/json; charset=utf-8"


def decode(payload: bytes, identity: Identity | None = None, **asked: str) -> Readings:
    decoder = RequestDecoder(TopicMap([MAPPING]), {}, 100, 10_000)
    return decoder.decode(payload, Asked(**asked), NOW_MS, identity)


def places(readings: Readings) -> list[tuple[str, str, str, str, float]]:
    labels = (readings.tenant, readings.site, readings.device, readings.metric)
    return list(zip(*(one.to_list() for one in labels), readings.value.tolist(), strict=True))


@pytest.mark.parametrize(
    ("payload", "asked"),
    [
        (OBJECT, {"content_type": JSON, "tenant": "acme", "site": "north", "device": "pump-1"}),
        (OBJECT, {"topic": "f/north/pump-1"}),
        (
            b'[{"bn": "pump-1/", "n": "temperature", "v": 21.5, "t": 1764000000}]',
            {"content_type": "application/senml+json", "tenant": "acme", "site": "north"},
        ),
        (
            b"21.5",
            {
                "content_type": "text/plain",
                "tenant": "acme",
                "site": "north",
                "device": "pump-1",
                "metric": "temperature",
            },
        ),
        (
            zstd.compress(b'{"device": "pump-1", "temperature": 21.5}'),
            {"content_type": JSON, "encoding": "zstd", "tenant": "acme", "site": "north"},
        ),
    ],
    ids=["json", "topic", "senml", "number", "zstd"],
)
def test_each_form_gives_the_same_reading(payload: bytes, asked: dict[str, str]) -> None:
    assert places(decode(payload, **asked)) == [("acme", "north", "pump-1", "temperature", 21.5)]


def test_who_sends_names_what_the_request_does_not() -> None:
    assert places(decode(OBJECT, PUMP, content_type=JSON))[0][:3] == ("acme", "north", "pump-1")


def test_a_batch_may_name_many_devices_of_the_site_of_its_sender() -> None:
    batch = b'[{"device": "a", "m": 1}, {"device": "b", "m": 2, "n": 3}]'
    readings = decode(batch, NORTH, content_type=JSON)
    assert [place[2:] for place in places(readings)] == [
        ("a", "m", 1),
        ("b", "m", 2),
        ("b", "n", 3),
    ]


def test_a_frame_is_taken_as_it_is() -> None:
    sent = decode(OBJECT, PUMP)
    arrow = frames.CONTENT_TYPE.decode()
    assert places(decode(frames.encode(sent), PUMP, content_type=arrow)) == places(sent)


@pytest.mark.parametrize(
    ("payload", "asked", "reason"),
    [
        (OBJECT, {"device": "pump-2"}, "wrong-device"),
        (OBJECT, {"site": "south"}, "wrong-site"),
        (OBJECT, {"tenant": "other"}, "wrong-tenant"),
        (OBJECT, {"topic": "f/south/pump-1"}, "wrong-site"),
        (b'[{"device": "pump-1", "m": 1}, {"device": "pump-2", "m": 2}]', {}, "wrong-device"),
    ],
)
def test_a_device_sends_only_as_itself(payload: bytes, asked: dict[str, str], reason: str) -> None:
    with pytest.raises(ForeignReadingsError) as raised:
        decode(payload, PUMP, **asked)
    assert raised.value.reason == reason


def test_a_frame_of_another_device_is_foreign() -> None:
    frame = frames.encode(decode(OBJECT, Identity("acme", "north", "pump-2")))
    with pytest.raises(ForeignReadingsError, match="wrong-device"):
        decode(frame, PUMP)


@pytest.mark.parametrize(
    ("payload", "asked", "reason"),
    [
        (OBJECT, {"content_type": JSON}, "bad-name"),
        (b'{"device": "b", "m": 1}', {"device": "a"}, "wrong-device"),
        (b"1", {"content_type": "text/plain", "device": "a"}, "no-metric"),
        (OBJECT, {"device": "a/b"}, "bad-name"),
        (OBJECT, {"topic": "nowhere"}, "unknown-topic"),
        (OBJECT, {"topic": "hw/v1/acme/north/ack"}, "unknown-topic"),
        (b"{", {"device": "a"}, "malformed-json"),
        (zstd.compress(bytes(10_001)), {"device": "a", "encoding": "zstd"}, "payload-too-large"),
        (b"[" + b",".join([b'{"m":1}'] * 101) + b"]", {"device": "a"}, "too-many-fields"),
    ],
)
def test_what_is_no_reading_says_why(payload: bytes, asked: dict[str, str], reason: str) -> None:
    with pytest.raises(DecodeError) as raised:
        decode(payload, None, **asked)
    assert raised.value.reason == reason
    assert not isinstance(raised.value, ForeignReadingsError)


@pytest.mark.parametrize("asked", [{"content_type": "image/png"}, {"encoding": "br"}])
def test_an_unknown_type_is_told_apart(asked: dict[str, str]) -> None:
    with pytest.raises(UnsupportedTypeError, match="expected"):
        decode(OBJECT, PUMP, **asked)


@pytest.mark.parametrize("name", ["", "a", "a/b/c/d", "a//c", "a/b/\n", "a/" + "b" * 200])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(RefusedIdentityError):
        identity_of(name)


def test_tokens_count_until_they_expire_or_are_revoked_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    old = Token(hash_of("old"), PUMP, NOW_MS)
    good = Token(hash_of("good"), PUMP, NOW_MS + 1)
    write_tokens(path, [old, good])
    assert path.stat().st_mode & 0o077 == 0
    assert "good" not in path.read_text()
    file = TokenFile(path)
    assert file.identity("good", NOW_MS) == PUMP
    for token, why in (("old", "acme/north/pump-1 has expired"), ("bad", "unknown")):
        with pytest.raises(RefusedIdentityError, match=why):
            file.identity(token, NOW_MS)
    write_tokens(path, [Token(good.sha256, PUMP, good.expires_ms, NOW_MS)])
    with pytest.raises(RefusedIdentityError, match="was revoked"):
        file.identity("good", NOW_MS)
    path.write_text("half")
    with pytest.raises(RefusedIdentityError, match="was revoked"):
        file.identity("good", NOW_MS)
    with pytest.raises(SettingsError, match="no file of tokens"):
        read_tokens(path)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"host": "0.0.0.0"}, "anyone who"),
        ({"host": "0.0.0.0", "tokens": "t"}, "read on the way"),
        ({"cert_file": "c"}, "belong together"),
        ({"client_ca_file": "c"}, "need TLS"),
    ],
)
def test_settings_that_would_let_anyone_in_are_refused(given: dict[str, str], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Intake(http_port=8110, **given)
    Intake(http_port=8110, host="0.0.0.0", tokens="t", cert_file="c", key_file="k")
    Intake(http_port=8110, host="0.0.0.0", tokens="t", plain=True)
