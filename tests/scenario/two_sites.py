"""Two sites that share a device, the cloud between them, and links that can be cut."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson

from streams.pki import Pki
from streams.sim.proxy import Proxy
from tests import wall_clock
from tests.conftest import Servers
from tests.waiting import PATIENCE_S, eventually
from tests.wall_clock import WallClock

CLOUD = ("worker", "gateway", "api")
PATHS = [
    {"path": "desired.limit", "policy": "edge-wins"},
    {"path": "reported.starts", "kind": "counter"},
    {"path": "tags.roles", "kind": "set"},
]
DEVICE = "pump-1"
Start = Callable[..., subprocess.Popen[bytes]]


class Site:
    """One edge, its link and its clock."""

    def __init__(self, name: str, proxy: Proxy, env: dict[str, str], home: Path) -> None:
        self.name, self.proxy, self.env = name, proxy, env
        home.joinpath(name).mkdir(exist_ok=True)
        self.clock = WallClock(home / name)
        env |= self.clock.env()
        self.url = f"http://127.0.0.1:{env['HEADWATER_OPS__EDGE_PORT']}"
        self.linked = True
        self.turns_s = 0.0
        """When its link is cut or healed next, on the monotonic clock."""

    def toggle(self, *, linked: bool) -> None:
        if linked != self.linked:
            (self.proxy.heal if linked else self.proxy.cut)()
        self.linked = linked


def _signing(keys: Pki, tenant: str, site: str) -> dict[str, str]:
    """Issue what a site signs with; return the settings that name it."""
    folder = keys.issue(tenant, site, datetime.now(UTC)).folder
    return {
        "HEADWATER_TWINS__REGISTRY": str(folder / "registry.json"),
        "HEADWATER_EDGE__KEY": str(folder / "replica.key"),
    }


class World:
    """What runs, what was acknowledged, and what devices did."""

    def __init__(
        self, servers: Servers, home: Path, start: Start, proxies: dict[str, Proxy], seed: int
    ) -> None:
        self.rnd = random.Random(seed)
        self._start = start
        self.tenant = f"t{uuid.uuid4().hex[:8]}"
        shared = {
            "HEADWATER_EDGE__TENANT": self.tenant,
            "HEADWATER_EDGE__RETRY_MAX_MS": "500",
            "HEADWATER_WORKER__ID": f"twins-{self.tenant}",
            "HEADWATER_WORKER__INSTANCE_ID": "one",
            "HEADWATER_GATEWAY__CLIENT_ID": f"gateway-{self.tenant}",
            "HEADWATER_GATEWAY__GROUP": f"gateway-{self.tenant}",
            "HEADWATER_TWINS__PATHS": orjson.dumps(PATHS).decode(),
            "HEADWATER_COMMANDS__RETENTION_MS": "3000",
        }
        # Every message between a site and the cloud is signed, and refused if it is not.
        keys = Pki(home / "pki")
        keys.init(["localhost"], datetime.now(UTC))
        self.env = servers.env(
            home,
            **shared,
            HEADWATER_TWINS__REGISTRY=str(keys.registry),
            HEADWATER_GATEWAY__TWIN_KEY=str(keys.folder / "hub.key"),
        )
        self.api = f"http://127.0.0.1:{self.env['HEADWATER_OPS__API_PORT']}"
        self.sites = {
            name: Site(
                name,
                proxy,
                servers.env(
                    home / name,
                    **shared,
                    **_signing(keys, self.tenant, name),
                    HEADWATER_EDGE__SITE=name,
                    HEADWATER_EDGE__DATA=str(home / name / "edge"),
                    HEADWATER_MQTT=f"mqtt://127.0.0.1:{proxy.port}",
                ),
                home,
            )
            for name, proxy in proxies.items()
        }
        self.edges: dict[str, subprocess.Popen[bytes]] = {}
        self.http = httpx.Client(timeout=PATIENCE_S)
        self.starts = 0
        self.roles: set[str] = set()
        self.last: dict[str, int] = {}
        """The last acknowledged value of the field that only one side writes."""
        self.limits: dict[int, str] = {}
        """Every value of the field that all write -> who wrote it."""
        self.issued: dict[str, str] = {}
        self.begun: Counter[str] = Counter()
        self.doing: dict[str, str] = {}
        self._number = 0

    # -- processes ----------------------------------------------------------------------------

    def start(self) -> None:
        for name in CLOUD:
            self._start(name, env=self.env)
        for name in self.sites:
            self.start_edge(name)
        for name in CLOUD:
            port = self.env[f"HEADWATER_OPS__{name.upper()}_PORT"]
            eventually(
                lambda port=port: self._answers(f"http://127.0.0.1:{port}/readyz"),
                what=f"{name} ready",
            )

    def start_edge(self, name: str) -> None:
        site = self.sites[name]
        self.edges[name] = self._start("edge", env=site.env, module=wall_clock.MODULE)
        eventually(lambda: self._answers(f"{site.url}/readyz"), what=f"{name} ready")

    def kill_edge(self, name: str) -> None:
        child = self.edges.pop(name)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        for id_ in [id_ for id_, place in self.doing.items() if place == name]:
            del self.doing[id_]

    def _answers(self, url: str) -> bool:
        try:
            return self.http.get(url).status_code == 200
        except httpx.TransportError:
            return False

    # -- what people and devices do -----------------------------------------------------------

    def step(self) -> None:
        now_s = time.monotonic()
        for site in self.sites.values():
            if now_s >= site.turns_s:
                site.toggle(linked=not site.linked)
                site.turns_s = now_s + self.rnd.uniform(0.2, 2.5)
        kinds = (self.edit, self.command, self.cancel, self.work, self.finish)
        (doing,) = self.rnd.choices(kinds, weights=(3, 1, 0.5, 2, 2))
        doing()

    def edit(self) -> None:
        side = self.rnd.choice(["cloud", *self.sites])
        self._number += 1
        number, role = self._number, f"{side}-{self._number}"
        kind = self.rnd.randrange(3)
        if kind == 0:
            self._patch(side, {f"desired.of_{side}": number, "desired.limit": number})
            self.last[side] = number
            self.limits[number] = side
        elif kind == 1:
            self._patch(side, [{"op": "increment", "path": "reported.starts"}])
            self.starts += 1
        else:
            self._patch(side, [{"op": "add", "path": "tags.roles", "elements": [role]}])
            self.roles.add(role)

    def limit(self, side: str, value: int) -> None:
        self._patch(side, {"desired.limit": value})
        self.limits[value] = side

    def _patch(self, side: str, body: object) -> None:
        url = f"{self._base(side)}/twin"
        answer = self.http.patch(url, json=body, params=self._query(side))
        # What is not acknowledged here would be counted as lost: so all must be.
        assert answer.status_code == (202 if side == "cloud" else 200), answer.text

    def command(self) -> None:
        side, site = self.rnd.choice(["cloud", *self.sites]), self.rnd.choice([*self.sites])
        self._number += 1
        body = {"id": f"c{self._number}", "name": "go", "args": {"n": self._number}}
        body |= {"ttl_ms": self.rnd.choice((300, 2_000, 6_000))}
        body |= {"site": site} if side == "cloud" else {}
        for _ in range(self.rnd.choice((1, 2))):  # some are sent twice
            url = f"{self._base(side)}/commands"
            answer = self.http.post(url, json=body, params=self._query(side))
            assert answer.status_code in (200, 202), answer.text
        self.issued[str(body["id"])] = side

    def cancel(self) -> None:
        sent = [id_ for id_, side in self.issued.items() if side == "cloud"][-5:]
        if sent:
            url = f"{self._base('cloud')}/commands/{self.rnd.choice(sent)}/cancel"
            answer = self.http.post(url, params=self._query("cloud"))
            assert answer.status_code in (202, 404), answer.text

    def work(self) -> None:
        site = self.rnd.choice([*self.sites])
        answer = self.http.post(f"{self._base(site)}/commands/next")
        if answer.status_code == 200:
            id_ = answer.json()["id"]
            self.begun[id_] += 1
            self.doing[id_] = site

    def finish(self) -> None:
        if not self.doing:
            return
        id_ = self.rnd.choice([*self.doing])
        site = self.doing.pop(id_)
        # Some devices never say how it went.
        if self.rnd.random() < 0.85:
            url = f"{self._base(site)}/commands/{id_}/report"
            state = self.rnd.choice(("done", "done", "failed"))
            answer = self.http.post(url, json={"state": state, "reason": "as asked"})
            assert answer.status_code in (200, 409), answer.text

    # -- what is seen -------------------------------------------------------------------------

    def heal(self) -> None:
        for site in self.sites.values():
            site.toggle(linked=True)
        for site in self.sites.values():
            eventually(
                lambda s=site: self.http.get(f"{s.url}/v1/status").json()["connected"],
                what=f"{site.name} linked",
            )

    def twins(self) -> list[dict[str, Any]]:
        """The twin as cloud and edges show it."""
        sides = ["cloud", *self.sites]
        return [self.http.get(f"{self._base(s)}/twin", params=self._query(s)).json() for s in sides]

    def equal(self) -> list[dict[str, Any]] | None:
        found = self.twins()
        names = ("digest", "ledger_digest")
        same = all(one.get(n) == found[0].get(n) for one in found for n in names)
        settled = all(one["in_sync"] for one in found[1:])
        cloud = found[0].get("fields", {})
        folded = cloud.get("reported.starts", {}).get("value", 0) == self.starts
        return found if same and settled and folded else None

    def statuses(self, id_: str) -> list[dict[str, Any]]:
        url = f"{self._base('cloud')}/commands/{id_}"
        answer = self.http.get(url, params=self._query("cloud"))
        return list(answer.json()["history"]) if answer.status_code == 200 else []

    def all_ended(self) -> bool:
        url = f"{self._base('cloud')}/commands"
        newest = self.http.get(url, params=self._query("cloud")).json()
        return {one["id"] for one in newest if one["ended"]} == set(self.issued)

    def _base(self, side: str) -> str:
        url = self.api if side == "cloud" else self.sites[side].url
        return f"{url}/v1/devices/{DEVICE}"

    def _query(self, side: str) -> dict[str, str]:
        return {"tenant": self.tenant} if side == "cloud" else {}
