"""Signed envelopes, permissions, and the keys that ``headwater pki`` makes."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from crdt.core.cells import Cell
from crdt.core.errors import WireError
from crdt.core.hlc import Hlc
from crdt.core.kinds import LATCH, Sets
from crdt.core.ledger import Conflict
from crdt.core.permissions import Grant
from crdt.core.refusals import NAME, Refusal
from crdt.core.replay import ReplayWindow
from crdt.log import Log
from edge.node import EdgeNode
from edge.process import sign
from streams.adapters.challenges import Challenger, wall_ms
from streams.adapters.cose import Signed, sign1
from streams.adapters.envelopes import DOWN, UP, Opener, Sealer, UnansweredError
from streams.adapters.replica_keys import Registry, load_signer
from streams.adapters.twin_records import edit_record, reading_of
from streams.agents.twins import make_twins
from streams.cli.main import app
from streams.errors import SettingsError
from streams.gateway.link import Delivery
from streams.gateway.twin_bridge import down_batches, signing, up_records
from streams.pki import Pki
from streams.ports import Produce
from streams.settings import Settings
from streams.testing import Driver

NOW = datetime(2026, 11, 1, tzinfo=UTC)
PARTS = [("pump-1", b"one"), ("pump-2", b"two")]


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    made = Pki(tmp_path / "pki")
    made.init(["localhost", "127.0.0.1"], NOW)
    made.issue("t", "north", NOW)
    made.issue("t", "south", NOW, devices=["pump-*"], paths=["reported.*"], releases=[])
    return made


def sealer(pki: Pki, site: str = "north") -> Sealer:
    return Sealer(load_signer(pki.folder / "sites" / "t" / site / "replica.key"), UP)


def test_an_envelope_by_another_implementation_is_read_and_ours_has_its_bytes() -> None:
    # Made by cwt 3.3.0 with the key whose seed is 0, 1, ... 31.
    made = bytes.fromhex(
        "d28455a20127045030313233343536373839616263646566a0477061796c6f61645840c7e10dbf3e98574a8173"
        "45c4cad9cfaa421c50d4e4d16b728a301eb722646c8ab72cc790907821e5eeb3c8dfeda68ce90f9b3f7a7df9f5"
        "5d01d577614cc9110a"
    )
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    signed = Signed(made)
    assert (signed.kid, signed.verified(key.public_key())) == ("0123456789abcdef", b"payload")
    assert sign1(b"payload", key, "0123456789abcdef") == made


def test_every_flipped_bit_and_every_truncation_of_an_envelope_is_refused(pki: Pki) -> None:
    opener = Opener(Registry(pki.registry), UP)
    envelope = sealer(pki).seal("t", "north", PARTS)
    for position in range(len(envelope)):
        damaged = bytearray(envelope)
        damaged[position] ^= 1 << position % 8
        for bad in (bytes(damaged), envelope[:position], envelope + b"\x00"):
            with pytest.raises(WireError):
                opener.open(bad, "t", "north")
    assert list(opener.open(envelope, "t", "north")) == PARTS


def test_what_is_not_signed_by_who_may_is_refused_with_its_reason(pki: Pki) -> None:
    up = Opener(Registry(pki.registry), UP)
    down = Opener(Registry(pki.folder / "sites" / "t" / "north" / "registry.json"), DOWN)
    hub = Sealer(load_signer(pki.folder / "hub.key"), DOWN)
    north = sealer(pki)
    cases = [
        (up, b"\x82\x01\x80", "north", "unsigned"),
        (up, b"", "north", "unsigned"),
        (up, b"\xd2" * 2_000_000, "north", "too-big"),
        (up, north.seal("t", "north", PARTS), "south", "not-permitted"),
        (up, hub.seal("t", "north", PARTS), "north", "not-permitted"),
        (up, sealer(pki).seal("t", "south", PARTS), "north", "bad-envelope"),
        (down, north.seal("t", "north", PARTS), "north", "unknown-key"),
        (down, hub.seal("t", "south", PARTS), "north", "bad-envelope"),
    ]
    for opener, envelope, site, reason in cases:
        with pytest.raises(WireError) as caught:
            opener.open(envelope, "t", site)
        assert caught.value.reason == reason
    assert list(down.open(hub.seal("t", "north", PARTS), "t", "north")) == PARTS


def test_a_replayed_envelope_is_refused_and_the_next_one_is_not(pki: Pki) -> None:
    opener, north = Opener(Registry(pki.registry), UP), sealer(pki)
    first, second = (north.seal("t", "north", PARTS) for _ in range(2))
    opener.open(second, "t", "north")
    opener.open(first, "t", "north")
    for envelope in (first, second):
        with pytest.raises(WireError, match="was taken before"):
            opener.open(envelope, "t", "north")
    opener.open(north.seal("t", "north", PARTS), "t", "north")


def test_a_window_admits_each_number_once_in_any_order_and_none_behind_it() -> None:
    window = ReplayWindow()
    order = [5, 3, 4, 5, 3, 9, 0, 4_200, 9, 105, 104]
    admitted = [window.admit("a", number) for number in order]
    assert admitted == [True, True, True, False, False, True, True, True, False, True, False]
    assert window.admit("b", 5)


def test_rotation_lets_both_keys_count_and_revocation_none_at_once(pki: Pki) -> None:
    opener, old = Opener(Registry(pki.registry), UP), sealer(pki)
    opener.open(old.seal("t", "north", PARTS), "t", "north")
    pki.rotate("t", "north", NOW)
    new = sealer(pki)
    for one in (old, new):
        opener.open(one.seal("t", "north", PARTS), "t", "north")
    kids = [entry.kid for entry in pki.entries() if entry.site == "north"]
    assert pki.revoke(kids[0], NOW) == 2
    with pytest.raises(WireError, match="was revoked"):
        opener.open(old.seal("t", "north", PARTS), "t", "north")
    opener.open(new.seal("t", "north", PARTS), "t", "north")
    assert pki.revoke("t/north", NOW) == 2
    with pytest.raises(WireError, match="was revoked"):
        opener.open(new.seal("t", "north", PARTS), "t", "north")
    assert Registry(pki.registry).grant("t", "north") is None


def cell(actor: str, path: str = "reported.a", **more: object) -> Cell:
    return Cell(path, actor, 1, {}, Hlc(1, 0), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (cell("edge:south:1-x"), "forged-actor"),
        (cell("cloud:0.1.2"), "forged-actor"),
        (cell("edge:northern:1-x"), "forged-actor"),
        (cell("edge:north:1-x", "desired.a"), "not-permitted"),
        (
            cell("edge:north:1-x", "reported.stop", value=False, kind=LATCH, state=Sets()),
            "not-permitted",
        ),
    ],
)
def test_a_spoke_writes_only_as_itself_and_only_what_it_may(bad: Cell, reason: str) -> None:
    grant = Grant("edge:north:", ("pump-*",), ("reported.*",), ("reported.door",))
    mine = cell("edge:north:1-x")
    on = cell("edge:north:1-x", "reported.stop", value=True, kind=LATCH, state=Sets())
    grant.check_writes([mine, on], [Conflict(mine, cell("cloud:0.1.2"), "latest")])
    with pytest.raises(WireError) as caught:
        grant.check_writes([mine, bad], [])
    assert caught.value.reason == reason
    with pytest.raises(WireError, match="among others"):
        grant.check_writes([], [Conflict(cell("cloud:0"), cell("edge:south:1"), "latest")])
    for device, sender in (("fan-1", "edge:north:1-x"), ("pump-1", "edge:south:1-x")):
        with pytest.raises(WireError):
            grant.check_sender(device, sender)


class Link:
    """A site and the cloud that sign what they say."""

    def __init__(self, pki: Pki, site: str, path: Path) -> None:
        folder = pki.folder / "sites" / "t" / site
        self.site = site
        self.cloud_settings = Settings(
            twins={"registry": pki.registry}, gateway={"twin_key": pki.folder / "hub.key"}
        )
        edge_settings = Settings(
            twins={"registry": folder / "registry.json"},
            edge={"tenant": "t", "site": site, "key": folder / "replica.key"},
        )
        reading = reading_of(edge_settings.twins)
        self.edge = EdgeNode(Log(path / f"{site}.db"), site, reading, lambda: 1_000)
        sign(self.edge, edge_settings)
        self.up: list[bytes] = []
        self.edge.send = self.up.append
        self.openers, self.sealers = signing(self.cloud_settings)
        self.cloud = Driver(make_twins(self.cloud_settings))
        self.told = 0

    def append(self, records: list[Produce]) -> None:
        for record in records:
            if record.topic == "rejected":
                self.cloud.output.append(record)
            else:
                self.cloud.append(record.value, at_ms=1_000, key=record.key, headers=record.headers)

    def talk(self) -> None:
        while True:
            sent, self.up[:] = list(self.up), []
            for envelope in sent:
                topic = f"hw/v1/t/{self.site}/twin/up"
                delivery = Delivery(topic, envelope, 1, 1, 5)
                made = up_records(delivery, self.cloud_settings, self.openers, self.refuse)
                self.append(made)
            self.cloud.run()
            made = self.cloud.records("twin.down")
            new, self.told = made[self.told :], len(made)
            for tenant, site, parts in down_batches([_FromKafka(record) for record in new]):
                self.edge.hear(self.sealers["twin.down"].seal(tenant, site, parts))
            if not new and not self.up:
                return

    def refuse(self, kind: str, tenant: str, site: str, refusal: Refusal) -> None:
        assert kind == "twin"
        self.edge.hear(self.sealers["twin.down"].seal(tenant, site, [(NAME, refusal.encode())]))

    def refusals(self) -> list[bytes]:
        """Reasons, but that the first envelope to each start of a gateway answers no challenge."""
        found = [p.headers["hw-reason"] for p in self.cloud.records("rejected")]
        return [reason for reason in found if reason != b"unanswered-challenge"]


class _FromKafka:
    def __init__(self, record: Produce) -> None:
        self.value, self.headers = record.value, list(record.headers.items())


def test_edge_and_cloud_agree_over_signed_envelopes(pki: Pki, tmp_path: Path) -> None:
    link = Link(pki, "north", tmp_path)
    link.edge.edit("pump-1", {"desired.a": 1}, ())
    link.append([edit_record("t", "pump-1", {"desired.b": 2}, 1)])
    link.talk()
    link.edge.greet(all_devices=True)
    link.talk()
    view = link.edge.view("pump-1")
    assert view is not None
    assert {path: f["value"] for path, f in view["fields"].items()} == {
        "desired.a": 1,
        "desired.b": 2,
    }
    assert view["in_sync"]
    assert link.refusals() == []
    link.edge.hear(b"\x82\x01\x80")
    assert link.edge.view("pump-1") == view
    link.edge.close()


def test_a_write_that_a_site_may_not_make_changes_nothing_in_the_cloud(
    pki: Pki, tmp_path: Path
) -> None:
    link = Link(pki, "south", tmp_path)
    link.edge.edit("pump-1", {"reported.rpm": 5}, ())
    link.talk()
    link.edge.edit("pump-2", {"desired.limit": 5}, ())
    link.edge.edit("fan-1", {"reported.rpm": 5}, ())
    link.talk()
    assert set(link.refusals()) == {b"not-permitted"}
    shown = link.edge.view("fan-1")
    assert shown is not None
    assert shown["refused"]["reason"] == "not-permitted"
    before = len(link.refusals())
    link.edge.greet(all_devices=False)
    link.talk()
    assert len(link.refusals()) == before
    link.edge.edit("fan-1", {"reported.rpm": 6}, ())
    link.talk()
    assert len(link.refusals()) > before
    assert b"t/fan-1" not in {p.key for p in link.cloud.records("twin.state")}
    states = [p.value or b"" for p in link.cloud.records("twin.state") if p.key == b"t/pump-2"]
    assert not any(b"desired.limit" in state for state in states)
    link.edge.edit("pump-1", {"reported.rpm": 6}, ())
    link.talk()
    assert b'"reported.rpm":{' in (link.cloud.records("twin.state")[-1].value or b"")
    link.edge.close()


def test_what_was_recorded_before_a_gateway_started_is_not_taken_by_it(
    pki: Pki, tmp_path: Path
) -> None:
    link = Link(pki, "north", tmp_path)
    link.edge.edit("pump-1", {"desired.a": 1}, ())
    link.talk()
    recorded: list[bytes] = []
    link.edge.send = lambda envelope: (recorded.append(envelope), link.up.append(envelope))[-1]
    link.edge.edit("pump-1", {"desired.a": 2}, ())
    link.talk()
    assert recorded
    old = list(recorded)
    ahead = Challenger(load_signer(pki.folder / "hub.key").key, lambda: wall_ms() + 1_000)
    opener = Opener(Registry(pki.registry), UP, ahead)
    for envelope in old:
        with pytest.raises(UnansweredError) as caught:
            opener.open(envelope, "t", "north")
        for sender in ("another", ""):
            assert not ahead.check(caught.value.challenge, sender)
    link.openers = {"twin": opener}
    link.edge.edit("pump-1", {"desired.a": 3}, ())
    link.talk()
    view = link.edge.view("pump-1")
    assert view is not None
    assert view["in_sync"]
    assert b'"value":3' in (link.cloud.records("twin.state")[-1].value or b"")
    for envelope in old:
        with pytest.raises(UnansweredError):
            link.openers["twin"].open(envelope, "t", "north")
    link.edge.close()


def test_keys_that_are_missing_or_open_to_others_stop_a_process_at_its_start(
    pki: Pki, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=r"needs gateway\.twin_key"):
        signing(Settings(twins={"registry": pki.registry}))
    with pytest.raises(SettingsError, match="headwater pki init"):
        Registry(tmp_path / "none.json")
    (pki.folder / "hub.key").chmod(0o644)
    with pytest.raises(SettingsError, match="others may read this key"):
        load_signer(pki.folder / "hub.key")
    (tmp_path / "text.json").write_text("{}x")
    with pytest.raises(SettingsError, match="no registry"):
        Registry(tmp_path / "text.json")
    registry = Registry(pki.registry)
    pki.registry.write_text("torn")
    with pytest.raises(WireError, match="bad-registry"):
        registry.refresh()


def test_certificates_make_a_tls_connection_and_the_revoked_are_listed(pki: Pki) -> None:
    folder = pki.folder / "sites" / "t" / "north"
    for name in ("ca.key", "broker.key", "hub.key", "sites/t/north/client.key"):
        assert (pki.folder / name).stat().st_mode & 0o077 == 0
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pki.folder / "broker.pem", pki.folder / "broker.key")
    server.load_verify_locations(pki.folder / "ca.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    client.load_cert_chain(folder / "client.pem", folder / "client.key")
    handshake(client, server)
    pki.revoke("t/north", NOW)
    crl = x509.load_pem_x509_crl((pki.folder / "revoked.pem").read_bytes())
    certificate = x509.load_pem_x509_certificate((folder / "client.pem").read_bytes())
    assert crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
    server.load_verify_locations(pki.folder / "revoked.pem")
    server.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    with pytest.raises(ssl.SSLError, match="revoked"):
        handshake(client, server)


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """Shake hands in memory."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(back, there, server_hostname="localhost"),
        server.wrap_bio(there, back, server_side=True),
    ]
    done = [False, False]
    for _ in range(10):
        for number, end in enumerate(ends):
            try:
                end.do_handshake()
                done[number] = True
            except ssl.SSLWantReadError:
                pass
    assert all(done)


def test_the_command_makes_issues_rotates_revokes_and_lists(tmp_path: Path) -> None:
    folder = ["--folder", str(tmp_path / "pki")]

    def call(*arguments: str, code: int = 0) -> str:
        found = CliRunner().invoke(app, ["pki", *arguments, *folder])
        assert found.exit_code == code, found.output
        return found.output

    assert "twins.registry" in call("init")
    assert "edge.key" in call("issue", "t/north", "--path", "reported.*")
    call("rotate", "t/north")
    assert "revoked 4 keys and certificates" in call("revoke", "t/north")
    assert call("list").count("revoked") == 2
    assert call("list", "--json").count('"revoked":true') == 2
    call("issue", "north", code=2)
    assert isinstance(
        CliRunner().invoke(app, ["pki", "issue", "t/../x", *folder]).exception, SettingsError
    )
