"""What is shipped for containers: valid, safe by default, and the same as the Procfile."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema import Draft7Validator
from paho.mqtt import client as mqtt

from streams.demo.processes import read_procfile
from streams.errors import ServiceError
from streams.services import influx, kafka, mosquitto
from streams.services.ports import free_port, is_open
from streams.settings import load
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_compose_follows_the_compose_specification(compose):
    schema = Draft7Validator(get_builtin_schema("vendor.compose-spec"))
    assert list(schema.iter_errors(compose)) == []
    assert list(schema.iter_errors({**compose, "servces": {}}))


def test_every_process_of_the_procfile_is_a_service_with_its_command(compose):
    for name, command in read_procfile().items():
        assert ["headwater", *compose["services"][name]["command"]] == command


def test_ports_are_published_on_loopback_only(compose):
    ports = [port for s in compose["services"].values() for port in s.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_password_has_a_value_or_a_default(compose):
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN", name):
                assert re.fullmatch(r"\$\{\w+:\?.+\}", value), name
    for secret in compose["secrets"].values():
        assert secret["file"].startswith("./secrets/")
    assert "deploy/secrets/" in (ROOT / ".gitignore").read_text()


def test_every_service_is_watched_and_has_no_privileges(compose):
    one_shot = {
        name
        for service in compose["services"].values()
        for name, on in service.get("depends_on", {}).items()
        if on["condition"] == "service_completed_successfully"
    }
    assert one_shot == {"topics"}
    for name, service in compose["services"].items():
        assert ("healthcheck" in service) != (name in one_shot), name
        assert service["restart"] == ("no" if name in one_shot else "unless-stopped"), name
        assert not re.match(r"(root|0+)(:|$)", service["user"]), name
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["mem_limit"], name
        assert not service.keys() & {"privileged", "cap_add", "network_mode", "pid", "ipc"}, name


def test_health_is_asked_where_each_process_answers(compose):
    ops = load(DEPLOY / "headwater.toml").ops
    for name in read_procfile():
        test = " ".join(compose["services"][name]["healthcheck"]["test"])
        assert f"//127.0.0.1:{getattr(ops, f'{name}_port')}/" in test, name
    assert ops.host == "0.0.0.0"  # or the published ports would lead nowhere


def test_no_two_gateways_share_a_session_and_none_loses_its_own(compose):
    gateways = [s for s in compose["services"].values() if s.get("command") == ["gateway"]]
    assert len(gateways) >= 2
    for key in ("hostname", "container_name"):
        assert len({gateway[key] for gateway in gateways}) == len(gateways)


def test_the_servers_are_set_as_those_of_the_tests(compose):
    def environment(name):
        return compose["services"][name]["environment"]

    ours = dict(line.split("=", 1) for line in kafka._SETTINGS.splitlines())
    for name in ("listeners", "advertised.listeners", "controller.quorum.voters", "log.dirs"):
        del ours[name]
    theirs = environment("kafka")
    assert {key: theirs["KAFKA_" + key.upper().replace(".", "_")] for key in ours} == ours

    ours = tomllib.loads(influx._SETTINGS)
    theirs = environment("influxdb")
    for section in ("data", "http", "monitor"):
        for key, value in ours[section].items():
            if not key.endswith(("dir", "bind-address")):
                variable = f"INFLUXDB_{section}_{key}".upper().replace("-", "_")
                assert theirs[variable] == (value if isinstance(value, str) else str(value).lower())

    own_ways = ("listener", "allow_anonymous", "persistence_location", "log", "connection")
    ours = {s for s in mosquitto._SETTINGS.splitlines() if not s.startswith(own_ways)}
    assert ours <= set((DEPLOY / "mosquitto.conf").read_text().splitlines())


def test_the_image_is_pinned_hashed_and_not_root():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert all(re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", base) for base in bases)
    (user,) = [line.split()[1] for line in lines if line.startswith("USER")]
    assert not user.startswith(("0", "root"))
    installs = [line for line in lines if "pip install" in line and "-r " in line]
    assert installs
    assert all("--require-hashes" in line for line in installs)
    for line in lines:
        if line.startswith("COPY") and "--from" not in line:
            assert (ROOT / line.split()[1]).exists() or "pyproject" in line, line


def test_the_image_installs_the_versions_that_are_tested():
    def versions(path):
        return set(re.findall(r"^([\w.\[\]-]+==[\w.+-]+)", path.read_text(), re.MULTILINE))

    assert versions(DEPLOY / "requirements.lock")
    assert versions(DEPLOY / "requirements.lock") <= versions(ROOT / "requirements.lock")


def test_the_settings_of_the_containers_load(compose):
    settings = load(DEPLOY / "headwater.toml")
    assert settings.kafka == "kafka:9092"
    secrets = {f"/run/secrets/{name}" for name in compose["secrets"]}
    assert str(settings.broker.password_file) in secrets
    assert str(settings.influxdb.token_file) in secrets


def test_what_a_process_writes_is_writable_and_what_must_last_is_in_a_volume(compose):
    settings = load(DEPLOY / "headwater.toml")

    def mounts(name):
        service = compose["services"][name]
        temporary = {Path(mount.split(":")[0]) for mount in service["tmpfs"]}
        volumes = [mount.split(":") for mount in service.get("volumes", [])]
        return temporary, {Path(v[1]) for v in volumes if v[0] in compose["volumes"]}

    for name in ("worker", "rollup", "alerts"):
        # The very mount: Faust makes a folder in it, but no parents.
        assert settings.state in mounts(name)[0]
    for name, folder in (("sink", settings.lake), ("edge", settings.edge.data)):
        assert set(folder.parents) & mounts(name)[1]
    for name in ("kafka", "mosquitto", "influxdb"):
        assert mounts(name)[1]


def test_the_broker_refuses_whoever_has_no_password(tmp_path):
    try:
        program = mosquitto.install()
    except ServiceError as error:
        pytest.skip(str(error))
    port = free_port()
    passwords = tmp_path / "passwords"
    subprocess.run(
        [shutil.which("mosquitto_passwd"), "-b", "-c", passwords, "headwater", "right"], check=True
    )
    text = (DEPLOY / "mosquitto.conf").read_text()
    text = text.replace("listener 1883", f"listener {port} 127.0.0.1")
    text = text.replace("/run/secrets/mqtt_passwords", str(passwords))
    text = text.replace("/mosquitto/data/", f"{tmp_path}/")
    (tmp_path / "mosquitto.conf").write_text(text + "user root\n")
    broker = subprocess.Popen([program, "-c", str(tmp_path / "mosquitto.conf")])
    try:
        eventually(lambda: is_open(f"127.0.0.1:{port}"), what="mosquitto listening")
        assert answer(port, None) == "Not authorized"
        assert answer(port, "wrong") == "Not authorized"
        assert answer(port, "right") == "Success"
    finally:
        broker.terminate()
        broker.wait()


def answer(port, password):
    """Return the broker's answer to CONNECT."""
    answers = []
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.on_connect = lambda *arguments: answers.append(str(arguments[3]))
    if password is not None:
        client.username_pw_set("headwater", password)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        return eventually(lambda: answers and answers[0])
    finally:
        client.loop_stop()
        client.disconnect()
