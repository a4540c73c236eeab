"""Mail, Slack, Teams, Telegram, ntfy, PagerDuty and many more, by the library apprise."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
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
_HALF_SENT = 10_000
"""Messages of which it is remembered which addresses took them, while others did not."""


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
        try:
            lines = Path(path).read_text().split()
        except (OSError, ValueError) as error:
            raise SettingsError(f"channel {settings.name}: {path}: {error}") from error
        self._notifiers = [apprise.Apprise() for _ in lines]
        for number, (notifier, line) in enumerate(zip(self._notifiers, lines, strict=True), 1):
            if not notifier.add(line):
                raise SettingsError(
                    f"channel {settings.name}: {path}: address {number} is none that apprise knows"
                )
        if not lines:
            raise SettingsError(f"channel {settings.name}: {path} holds no address")
        self._took: OrderedDict[str, set[int]] = OrderedDict()

    async def open(self) -> None:
        """Nothing is connected before there is something to send."""

    async def send(self, message_id: str, body: Mapping[str, Any]) -> Outcome:
        """Send a message for people to all addresses that have not yet taken it."""
        title, text, kind = message_of(body["data"])
        took = self._took.setdefault(message_id, set())
        while len(self._took) > _HALF_SENT:
            self._took.popitem(last=False)

        async def tell(number: int, notifier: apprise.Apprise) -> None:
            if await notifier.async_notify(
                title=title, body=text, notify_type=kind, body_format=apprise.NotifyFormat.TEXT
            ):
                took.add(number)

        asked = [one for one in enumerate(self._notifiers, 1) if one[0] not in took]
        await asyncio.gather(*(tell(*one) for one in asked))
        failed = [str(number) for number, _ in asked if number not in took]
        if failed:
            return Outcome(False, reason=f"address {', '.join(failed)} did not take it")
        del self._took[message_id]
        return Outcome(True)

    async def close(self) -> None:
        """Nothing is open."""


def message_of(data: Mapping[str, Any]) -> tuple[str, str, apprise.NotifyType]:
    """Return title, text and kind of a message, from the data of what a webhook would get."""
    if "alerts" in data:
        listed = [f"- {alert['state']}: {alert['why']}" for alert in data["alerts"][:_LISTED]]
        more = data["count"] - len(listed)
        text = "\n".join([data["why"], *listed, *([f"and {more:,} more"] if more else [])])
        alerts = "alert" if data["count"] == 1 else "alerts"
        return f"{data['count']:,} {alerts} {data['reason']}", text, apprise.NotifyType.WARNING
    title = f"{data['state']}: {data['rule']} on {data['device']}"
    text = f"{data['why']}\nsite {data['site']}, severity {data['severity']}, {data['id']}"
    kind = _KINDS[data["severity"]] if data["state"] == "firing" else apprise.NotifyType.SUCCESS
    return title, text, kind
