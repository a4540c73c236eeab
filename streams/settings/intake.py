"""The section ``[intake]`` of the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from streams.settings.sections import Positive, Section


class Intake(Section):
    """Readings over HTTP and CoAP, at gateways and edges; off unless a port is set."""

    host: str = "127.0.0.1"
    """Address to bind. Beyond loopback it needs ``cert_file``, and ``tokens`` or
    ``client_ca_file``."""
    http_port: Annotated[int, Field(gt=0, le=65_535)] | None = None
    """Of ``POST /v1/readings``; 8110 is usual."""
    coap_port: Annotated[int, Field(gt=0, le=65_535)] | None = None
    """Of CoAP, ``POST /v1/readings``; 5683 is usual."""
    tokens: Path | None = None
    """A file of ``headwater tokens``: who sends has to name one, and sends as itself."""
    cert_file: Path | None = None
    """Certificate of the server: speak https."""
    key_file: Path | None = None
    """Its private key."""
    client_ca_file: Path | None = None
    """Certificates of devices have to be signed by one of these; their common name is who sends:
    ``TENANT/SITE/DEVICE``, or ``TENANT/SITE``."""
    crl_file: Path | None = None
    """Certificates that were revoked, such as ``revoked.pem`` of ``headwater pki``; read at
    start."""
    plain: bool = False
    """Allow beyond loopback what can be read on the way: http behind a proxy that speaks TLS, and
    CoAP in a closed network."""
    max_body_bytes: Positive = 1_048_576
    """Of one request, compressed or not; longer ones get 413."""
    max_readings: Positive = 10_000
    """Of one request."""
    max_waiting_readings: Positive = 200_000
    """Taken and not yet durable; beyond it requests get 503."""
    max_requests: Positive = 64
    """Under way at once from one sender (without tokens or certificates: one address); beyond it
    they get 429."""
    max_connections: Positive = 1_024
    """At once; beyond it they get 503."""
    max_transfers: Positive = 64
    """Block-wise requests over CoAP that are not complete; beyond it they get 5.03."""
    max_observers: Positive = 1_024
    """Observations of fields over CoAP; beyond it a field is told once."""
    timeout_ms: Positive = 10_000
    """For the body to come, and then for the readings to be durable."""

    @model_validator(mode="after")
    def _is_safe(self) -> Intake:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")
        if self.client_ca_file is not None and self.cert_file is None:
            raise ValueError("client_ca_file needs cert_file and key_file: certificates need TLS")
        if self.host in ("127.0.0.1", "::1", "localhost") or (
            self.http_port is None and self.coap_port is None
        ):
            return self
        if self.tokens is None and self.client_ca_file is None:
            raise ValueError(
                f"host {self.host!r} is not loopback: set tokens or client_ca_file, or anyone who "
                "reaches it can send in anyone's name"
            )
        if self.coap_port is not None and (self.tokens is None or not self.plain):
            raise ValueError(
                f"host {self.host!r} is not loopback: CoAP needs tokens, which can be read on "
                "the way; in a closed network set plain = true"
            )
        if self.http_port is not None and self.cert_file is None and not self.plain:
            raise ValueError(
                f"host {self.host!r} is not loopback: set cert_file and key_file, or tokens can be "
                "read on the way; behind a proxy that speaks TLS set plain = true"
            )
        return self
