"""No secret gets into a log, whichever process has it, at the most talkative level."""

from __future__ import annotations

import asyncio
import base64
import time
from datetime import UTC, datetime
from urllib.parse import quote

import aiocoap
import httpx
import pytest
from aiokafka import AIOKafkaProducer
from typer.testing import CliRunner

from streams.alerts.secrets import new_secret
from streams.cli.main import app
from streams.pki import Pki
from streams.services.ports import HOST, free_port
from tests import web
from tests.integration.test_alerts import Receiver
from tests.property.test_alert_states import frame
from tests.waiting import PATIENCE_S, eventually

PROCESSES = ("gateway", "worker", "sink", "alerts", "api", "edge")
DEVICE = "pump-1"
TOML = """
[log]
level = "debug"

[broker]
username = "headwater"
password_file = "{home}/mqtt.password"

[influxdb]
token_file = "{home}/influx.token"

[intake]
http_port = {gateway_http}
coap_port = {gateway_coap}
tokens = "{home}/tokens.json"
timeout_ms = 180_000

[edge]
site = "north"
data = "{home}/edge"
key = "{key}"
[edge.intake]
http_port = {edge_http}
coap_port = {edge_coap}
tokens = "{home}/tokens.json"
timeout_ms = 180_000

[twins]
registry = "{registry}"

[[rules]]
name = "strange"
score_over = 5.0

[[webhooks]]
name = "takes"
url = "http://user:{webhook_password}@127.0.0.1:{receiver}/?token={webhook_token}"
secret_file = "{home}/webhook.secret"
allow_private = true

[[webhooks]]
name = "away"
url = "http://127.0.0.1:1/{webhook_token}"
secret_file = "{home}/webhook.secret"
allow_private = true

[[channels]]
name = "people"
kind = "apprise"
options = {{ url_file = "{home}/people.urls" }}

[alerts]
retry_min_ms = 50
retry_max_ms = 200
"""


@pytest.fixture
def secrets(tmp_path):
    """What nobody may read in a log: name -> secret. Those that are in files are there."""
    held = {
        "MQTT password": "mqtt-passw0rd",
        "token of InfluxDB": "headwater:influx-passw0rd",
        "signing secret": new_secret(),
        "webhook password": "h00k-password",
        "webhook token": "h00k-token",
        "password of a channel": "apprise-passw0rd",
        "path of a channel": "apprise-t0ken",
        "token that nobody knows": "hwt_guessed-by-somebody",
    }
    (tmp_path / "mqtt.password").write_text(held["MQTT password"] + "\n")
    (tmp_path / "influx.token").write_text(held["token of InfluxDB"])
    (tmp_path / "webhook.secret").write_text(held["signing secret"])
    return held


def spellings(secret):
    """As it is, and as headers and addresses have it."""
    plain = secret.removeprefix("whsec_")
    return {plain, quote(plain, safe=""), base64.b64encode(plain.encode()).decode().rstrip("=")}


def issue_token(folder):
    command = ["tokens", "issue", f"default/north/{DEVICE}", "--file", str(folder / "tokens.json")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0
    return done.stdout.strip()


def answers(url):
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def show_tokens(known, guessed, ports, env):
    """Send readings over HTTP and CoAP, and ask the API, with a token that counts and one not."""
    for token, status in ((known, 202), (guessed, 401)):
        for port in (ports["gateway_http"], ports["edge_http"]):
            answer = web.post(
                f"http://{HOST}:{port}/v1/readings",
                json={"m": 1},
                headers={"authorization": f"Bearer {token}"},
            )
            assert answer.status_code == status
        for port in (ports["gateway_coap"], ports["edge_coap"]):
            code = asyncio.run(post_over_coap(port, token))
            assert code is (aiocoap.Code.CHANGED if status == 202 else aiocoap.Code.UNAUTHORIZED)
        api = f"http://{HOST}:{env['HEADWATER_OPS__API_PORT']}/v1/devices"
        headers = {"authorization": f"Bearer {token}"}
        assert web.get(api, params={"token": token}, headers=headers).is_success


async def post_over_coap(port, token):
    client = await aiocoap.Context.create_client_context(transports=["udp6"])
    uri = f"coap://{HOST}:{port}/v1/readings?device={DEVICE}&token={token}"
    message = aiocoap.Message(
        code=aiocoap.Code.POST, uri=uri, payload=b'{"m": 1}', content_format=50
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            return (await client.request(message).response).code
    finally:
        await client.shutdown()


async def publish(kafka, value):
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await producer.send_and_wait("anomalies", value, partition=0)


def test_no_secret_is_in_the_log_of_any_process(own_servers, processes, secrets, tmp_path):
    keys = Pki(tmp_path / "pki")
    keys.init(["localhost"], datetime.now(UTC))
    issued = keys.issue("default", "north", datetime.now(UTC)).folder
    signing = (issued / "replica.key").read_text().splitlines()
    secrets |= {f"line {i} of a key": one for i, one in enumerate(signing) if "-----" not in one}
    ports = {n: free_port() for n in ("gateway_http", "gateway_coap", "edge_http", "edge_coap")}
    with Receiver() as receiver:
        address = f"json://user:{secrets['password of a channel']}@{HOST}:{receiver.port}"
        (tmp_path / "people.urls").write_text(f"{address}/{secrets['path of a channel']}/")
        toml = TOML.format(
            home=tmp_path,
            key=issued / "replica.key",
            registry=keys.registry,
            receiver=receiver.port,
            webhook_password=secrets["webhook password"],
            webhook_token=secrets["webhook token"],
            **ports,
        )
        (tmp_path / "headwater.toml").write_text(toml)
        env = own_servers.env(tmp_path, HEADWATER_CONFIG=str(tmp_path / "headwater.toml"))
        env["HEADWATER_GATEWAY__TWIN_KEY"] = str(keys.folder / "hub.key")
        secrets["token of a device"] = issue_token(tmp_path)
        for name in PROCESSES:
            # An edge knows the key of the cloud alone.
            own = {"HEADWATER_TWINS__REGISTRY": str(issued / "registry.json")}
            processes(name, env=env | (own if name == "edge" else {}))
        for name in PROCESSES:
            url = f"http://{HOST}:{env[f'HEADWATER_OPS__{name.upper()}_PORT']}/readyz"
            eventually(lambda url=url: answers(url), every_s=0.2, what=f"{name} ready")
        show_tokens(secrets["token of a device"], secrets["token that nobody knows"], ports, env)
        now_ms = int(time.time() * 1000)
        asyncio.run(publish(own_servers.addresses["kafka"], frame([(DEVICE, now_ms, 9.0)])))
        eventually(lambda: len(receiver.got) >= 1, what="the alert")
        logs = {log.name: log for log in tmp_path.glob("*.log")}
        for name in ("away", "people"):
            eventually(
                lambda name=name: f'"endpoint": "{name}"' in logs["alerts-3.log"].read_text(),
                what=f"a delivery that failed at {name}",
            )
    said = {name: log.read_text(errors="replace") for name, log in logs.items()}
    assert len(said) == len(PROCESSES)
    assert all('"level":"debug"' in text.replace(" ", "") for text in said.values())
    leaks = {
        (name, kind)
        for name, text in said.items()
        for kind, secret in secrets.items()
        if any(one in text for one in spellings(secret))
    }
    assert leaks == set()
