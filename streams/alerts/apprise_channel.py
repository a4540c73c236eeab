"""Mail, Slack, Teams, Telegram, ntfy, PagerDuty and many more, by the library apprise."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apprise

from streams.alerts.channel import Outcome
from streams.errors import SettingsError
from streams.settings import Channel

_KINDS = {
    "info": apprise.NotifyType.INFO,
    "warning": apprise.NotifyType.WARNING,
    "critical": apprise.NotifyType.FAILURE,
}
_LISTED = 5
"""Alerts of a group that a message for people lists."""


class AppriseChannel:
    """A :class:`streams.alerts.channel.Channel`; the option ``url_file`` names a file of addresses.

    :raises SettingsError: if the file cannot be read, or a line of it is no address that apprise
        knows.
    """

    def __init__(self, settings: Channel) -> None:
        path = settings.options.get("url_file")
        if not isinstance(path, str):
            raise SettingsError(
                f"channel {settings.name}: the kind apprise needs the option url_file: a file with "
                "an address such as slack://... a line"
            )
        # What it logs may name addresses, which hold secrets.
        logging.getLogger("apprise").setLevel(logging.CRITICAL)
        self._notifier = apprise.Apprise()
        try:
            lines = Path(path).read_text().split()
        except (OSError, ValueError) as error:
            raise SettingsError(f"channel {settings.name}: {path}: {error}") from error
        for number, line in enumerate(lines, 1):
            if not self._notifier.add(line):
                raise SettingsError(
                    f"channel {settings.name}: {path}: address {number} is none that apprise knows"
                )
        if not lines:
            raise SettingsError(f"channel {settings.name}: {path} holds no address")

    async def open(self) -> None:
        """Nothing is connected before there is something to send."""

    async def send(self, message_id: str, body: Mapping[str, Any]) -> Outcome:
        """Send a message for people to all addresses; one that fails makes all be tried again."""
        title, text, kind = message_of(body["data"])
        done = await self._notifier.async_notify(
            title=title, body=text, notify_type=kind, body_format=apprise.NotifyFormat.TEXT
        )
        return Outcome(bool(done), reason="" if done else "an address did not take it")

    async def close(self) -> None:
        """Nothing is open."""


def message_of(data: Mapping[str, Any]) -> tuple[str, str, apprise.NotifyType]:
    """Return title, text and kind of a message, from the data of what a webhook would get."""
    if "alerts" in data:
        listed = [f"- {alert['state']}: {alert['why']}" for alert in data["alerts"][:_LISTED]]
        more = data["count"] - len(listed)
        text = "\n".join([data["why"], *listed, *([f"and {more:,} more"] if more else [])])
        return f"{data['count']:,} alerts {data['reason']}", text, apprise.NotifyType.WARNING
    title = f"{data['state']}: {data['rule']} on {data['device']}"
    text = f"{data['why']}\nsite {data['site']}, severity {data['severity']}, {data['id']}"
    kind = _KINDS[data["severity"]] if data["state"] == "firing" else apprise.NotifyType.SUCCESS
    return title, text, kind
