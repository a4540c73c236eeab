"""What the demo runs in: a state folder of its own, settings, free ports, a signing secret."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from streams.alerts.secrets import write_secret
from streams.errors import ServiceError
from streams.services import supervisor
from streams.services.ports import HOST, free_port

TENANT = "default"
MACHINES_SITE = "harbour"
FLEET_SITE = "quarry"
FLEET_METRIC = "vibration"
FLEET_WINDOW_MS = 10_000
FLEET_HORIZON_MS = 60_000
ENV_FILE = "env"
"""In the demo's folder: what a shell sources so that commands look at the demo."""
PIDS_FILE = "pids"
"""The processes of a demo that was left running."""
_NAMES = ("gateway", "worker", "rollup", "sink", "alerts", "api", "edge")

_SETTINGS = """# Written by the demo; a copy is a good start for settings of your own.
[[mappings]]
topic = "demo/{{site}}/{{device}}"
site = "{{site}}"

[[windows]]
name = "1h"
metrics = ["temperature", "ambient", "cpu", "latency", "passengers", "key_hold", "key_updown"]
size_ms = 3600000
grace_ms = 600000
horizon_ms = 86400000

[[windows]]
name = "10s"
metrics = ["{metric}"]
size_ms = {size}
grace_ms = 1000
horizon_ms = {horizon}

[devices]
idle_ms = 4000
idle_final_ms = 10000

[[rules]]
name = "strange"
score_over = 5.0
resolve_ms = 2000

[[webhooks]]
name = "demo"
url = "http://{host}:{receiver}/"
secret_file = "{secret}"
allow_private = true

[[twins.paths]]
path = "desired.limits.*"
policy = "edge-wins"

[edge]
site = "{site}"
data = "{edge}"

[worker]
instance_id = "demo-worker"

[rollup]
instance_id = "demo-rollup"

[sink]
lake_flush_ms = 3000
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """Folders, ports and environment of one demo."""

    state: Path
    config: Path
    secret: Path
    receiver_port: int
    ports: dict[str, int]

    def env(self) -> dict[str, str]:
        """Return the environment of the processes, but for the addresses of the servers."""
        return {
            "HEADWATER_CONFIG": str(self.config),
            "HEADWATER_STATE": str(self.state),
            "HEADWATER_LAKE": str(self.state / "lake"),
            **{f"HEADWATER_OPS__{n.upper()}_PORT": str(p) for n, p in self.ports.items()},
        }

    def write_env(self) -> None:
        """Write the environment for a shell; the servers are found through the state folder."""
        programs = shlex.quote(str(Path(sys.executable).parent))
        lines = [f"export {name}={shlex.quote(value)}" for name, value in self.env().items()]
        lines.append(f'export PATH={programs}:"$PATH"')
        (self.state / ENV_FILE).write_text("\n".join(lines) + "\n")


def prepare(state: Path) -> Scene:
    """Make a fresh scene; what an earlier demo left in its folder is removed.

    :raises ServiceError: if an earlier demo still runs in it.
    """
    if any(server.alive() for server in supervisor.running(state).values()):
        raise ServiceError(
            "a demo that was kept still runs; end it with: "
            f"kill $(cat {state / PIDS_FILE}); HEADWATER_STATE={state} headwater services down"
        )
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    secret, config = state / "webhook.secret", state / "headwater.toml"
    write_secret(secret)
    receiver = free_port()
    config.write_text(
        _SETTINGS.format(
            metric=FLEET_METRIC,
            size=FLEET_WINDOW_MS,
            horizon=FLEET_HORIZON_MS,
            host=HOST,
            receiver=receiver,
            secret=secret,
            site=FLEET_SITE,
            edge=state / "edge",
        )
    )
    scene = Scene(state, config, secret, receiver, {name: free_port() for name in _NAMES})
    scene.write_env()
    return scene
