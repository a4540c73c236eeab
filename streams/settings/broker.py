"""Settings of the log-in to MQTT brokers: the cloud's, and a site's own."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from streams.settings.sections import Positive, Section


class Mqtt(Section):
    """How to log in to the MQTT broker. The address is the top-level ``mqtt``."""

    section: ClassVar[str] = "broker"
    """Where it stands in the settings; errors name it."""
    username: str = ""
    """Empty: no log-in."""
    password_file: Path | None = None
    """A file that holds the password."""
    ca_file: Path | None = None
    """Certificates to trust; default: the system's."""
    cert_file: Path | None = None
    """Client certificate for mutual TLS."""
    key_file: Path | None = None
    """Its private key."""
    keepalive_s: Positive = 30
    """Seconds of silence after which broker and gateway check on each other."""


class LocalMqtt(Mqtt):
    """How to log in to the site's own broker. The address is ``edge.local_mqtt``."""

    section: ClassVar[str] = "edge.local_broker"
