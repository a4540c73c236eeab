"""Settings: one file and the environment; every error names its line."""

from __future__ import annotations

import pytest

from streams.errors import SettingsError
from streams.settings import load
from streams.toml_lines import locate


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text):
        path = tmp_path / "headwater.toml"
        path.write_text(text)
        return path

    return write


def test_a_missing_file_means_defaults(written):
    assert load().topics.partitions == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[gateway]\nlinger_ms = -1\n", "headwater.toml:2: gateway.linger_ms: "),
        ("[gateway]\nlinger = 1\n", "headwater.toml:2: gateway.linger: unknown setting"),
        (
            '[[windows]]\nname = "a"\n\n[[windows]]\nname = "b"\nsize_ms = "x"\n',
            "toml:6: windows.1.size_ms",
        ),
        ('[[windows]]\nname = "a"\n', "toml:1: windows.0: a tumbling window needs size_ms"),
        (
            '[[windows]]\nname = "a"\nkind = "session"\nsize_ms = 5\n',
            "a session window has no size_ms; it takes gap_ms",
        ),
        (
            '[[windows]]\nname = "a"\nkind = "hopping"\nsize_ms = 86400000\nstep_ms = 7001\n',
            "cut a window into 86400000 slices",
        ),
        (
            '[[twins.paths]]\npath = "tags.*"\n\n[[twins.paths]]\npath = "reported.n"\n'
            'kind = "counter"\npolicy = "max"\n',
            "toml:7: twins.paths.1.policy: a counter has no policy",
        ),
        ('[[twins.paths]]\npath = "tags.*"\nkind = "list"\n', "toml:3: twins.paths.0.kind: "),
        ('[[twins.paths]]\npath = "speed"\n', "toml:2: twins.paths.0.path: no field has such"),
        ('[[twins.paths]]\npath = "desired"\n', "toml:2: twins.paths.0.path: no field has such"),
        (
            '[[windows]]\nname = "a"\nsize_ms = 5\naggregates = ["p50",\n"median"]\n',
            "toml:4: windows.0.aggregates",
        ),
        (
            '[[windows]]\nname = "a"\nkind = "calendar"\nperiod = "day"\nzone = "Mars"\n',
            "toml:5: windows.0.zone: 'Mars' is no time zone",
        ),
        (
            '[[windows]]\nname = "a"\nkind = "sliding"\nlast = 10001\n',
            "toml:4: windows.0.last: Input should be less than or equal to 10000 (found 10001)",
        ),
        (
            '[[windows]]\nname = "a"\nkind = "sliding"\n\nsize_ms = 604800001\n',
            "toml:5: windows.0.size_ms: a sliding window is at most 604800000 ms long (7 days)",
        ),
        (
            '[[windows]]\nname = "a"\nkind = "sliding"\nlast = 2\nsize_ms = 5\n',
            "toml:1: windows.0: a sliding window needs size_ms or last, not both",
        ),
        (
            '[[windows]]\nname = "a"\nsize_ms = 5\nlast = 2\n',
            "a tumbling window has no last; it takes size_ms",
        ),
        (
            '[[windows]]\nname = "a"\nkind = "sliding"\nlast = 20\nmax_points = 20\n',
            "max_points = 20 must be more than last = 20",
        ),
        (
            '[[webhooks]]\nname="h"\nurl = "ftp://x"\nsecret_file="s"\n',
            "toml:3: webhooks.0.url: expected",
        ),
        ('[[webhooks]]\nname="h"\nurl = "http://x"\nsecret_file="s"\n', "allow_private = true"),
        (
            '[[webhooks]]\nname="h"\nurl = "https://x:port/"\nsecret_file="s"\n',
            "toml:3: webhooks.0.url: not an address: Invalid port",
        ),
        (
            '[[webhooks]]\nname="h"\nurl = "https:///path"\nsecret_file="s"\n',
            "toml:3: webhooks.0.url: the address names no host",
        ),
        (
            '[[rules]]\nname = "r"\n[[rules]]\nname = "r"\n',
            "toml:4: rules.1.name: the name 'r' is used twice",
        ),
        (
            '[[rollups]]\nname = "s"\ngroup = "site"\nwindows = ["5m"]\n',
            "toml:4: rollups.0.windows: 's' names the window '5m', expected one of 1m",
        ),
        ('[[windows]]\nname = "m@2"\nsize_ms = 5\n', "toml:2: windows.0.name: "),
        ('[[types]]\nname = "pump"\n', "toml:1: types.0: it needs devices, sites or tenants"),
        ('[[types]]\nname = "pump"\ndevices = []\n', "toml:3: types.0.devices: "),
        (
            '[[types]]\nname = "p"\nsites = ["a"]\n[[types]]\nsites = ["b"]\nname = "p"\n',
            "toml:6: types.1.name: the name 'p' is used twice",
        ),
        (
            '[[filters]]\nmode = "windows"\nbound = 1.0\n',
            "toml:1: filters.0: mode 'windows' takes no bound",
        ),
        (
            '[[filters]]\nmode = "windows"\naround_ms = 5\n',
            "around_ms is of mode 'windows-and-anomalies', and this is 'windows'",
        ),
        (
            '[[filters]]\nmode = "windows-and-anomalies"\n\nscore_over = 2.0\n',
            "toml:4: filters.0.score_over: 2 is below detection.emit_score, 4",
        ),
        (
            'windows = []\nrollups = []\n[[filters]]\nmode = "windows"\n',
            "toml:4: filters.0.mode: mode 'windows' needs at least one of [[windows]]",
        ),
        ("gateway = [", "not TOML"),
    ],
)
def test_an_offence_is_named_with_its_line(written, text, says):
    path = written(text)
    with pytest.raises(SettingsError) as error:
        load(path)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('mqtt = "mqtts://me:h1dden@broker"\n', "mqtt: an address holds no user and password: set"),
        ('influx = "http://me:h1dden@db"\n', "influx: an address holds no user and password: set"),
        ('[gateway]\nbrokers = ["me:h1dden@b"]\n', "set username and password_file of [broker]"),
        ('[edge]\nbrokers = ["me:h1dden@b"]\n', "set username and password_file of [broker]"),
        ('[edge]\nlocal_mqtt = "me:h1dden@b"\n', "password_file of [edge.local_broker]"),
        (
            '[[webhooks]]\nname = "h"\nurl = "hooks.example.org/h1dden"\nsecret_file = "s"\n',
            "webhooks.0.url: expected an address that starts with https://",
        ),
        (
            '[[webhooks]]\nname = "h"\nurl = "https://x:h1dden/"\nsecret_file = "s"\n',
            "webhooks.0.url: not an address",
        ),
    ],
)
def test_an_address_that_is_refused_is_not_shown(written, text, says):
    with pytest.raises(SettingsError) as error:
        load(written(text))
    assert says in str(error.value)
    assert "h1dden" not in str(error.value)


def test_a_rollup_of_a_sliding_window_is_refused(written):
    written(
        '[[windows]]\nname = "s"\nkind = "sliding"\nlast = 5\n'
        '[[rollups]]\nname = "r"\ngroup = "site"\nwindows = ["s"]\n'
    )
    with pytest.raises(SettingsError, match="names the sliding window 's'"):
        load()


def test_every_offence_is_listed_at_once(written):
    path = written("[gateway]\nlinger_ms = -1\nmax_rows = 0\n")
    with pytest.raises(SettingsError) as error:
        load(path)
    assert len(str(error.value).splitlines()) == 2


def test_the_environment_wins_over_the_file(written, monkeypatch):
    path = written('kafka = "file:1"\n[gateway]\nlinger_ms = 7\n')
    monkeypatch.setenv("HEADWATER_KAFKA", "env:2")
    monkeypatch.setenv("HEADWATER_GATEWAY__LINGER_MS", "9")
    settings = load(path)
    assert (settings.kafka, settings.gateway.linger_ms) == ("env:2", 9)


def test_the_error_of_a_variable_names_the_variable(written, monkeypatch):
    monkeypatch.setenv("HEADWATER_GATEWAY__LINGER_MS", "soon")
    with pytest.raises(SettingsError, match="HEADWATER_GATEWAY__LINGER_MS"):
        load()


def test_servers_that_run_here_are_found(written, tmp_path, monkeypatch):
    for name in ("KAFKA", "MQTT", "INFLUX"):
        monkeypatch.delenv(f"HEADWATER_{name}", raising=False)
    (tmp_path / ".headwater").mkdir()
    (tmp_path / ".headwater" / "services.json").write_text('{"kafka": "127.0.0.1:5"}')
    assert load().kafka == "127.0.0.1:5"
    written('kafka = "mine:9"\n')
    assert load().kafka == "mine:9"


def test_a_bare_address_gets_its_scheme(written, monkeypatch):
    monkeypatch.setenv("HEADWATER_MQTT", "broker:1883")
    assert load().mqtt == "mqtt://broker:1883"


def test_a_missing_named_file_is_an_error(tmp_path):
    with pytest.raises(SettingsError, match="no such file"):
        load(tmp_path / "none.toml")


def test_keys_are_located_through_arrays_of_tables():
    lines = locate('a = 1\n[b]\nc = 2\n[[d]]\ne = 3\n[[d]]\ne = 4\n"f g" = 5\n')
    assert lines["a",] == 1
    assert lines["b", "c"] == 3
    assert lines["d", 1, "e"] == 7
    assert lines["d", 1, "f g"] == 8


def test_the_fingerprint_follows_what_decides_results(written):
    plain = load().fingerprint()
    written("[gateway]\nlinger_ms = 3\n")
    assert load().fingerprint() == plain
    written("[devices]\nskew_ms = 3\n")
    assert load().fingerprint() != plain
