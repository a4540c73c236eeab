"""A channel of one's own: every alert as a line of JSON in a file."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streams.alerts.channel import Outcome
from streams.errors import SettingsError
from streams.settings import Channel


class FileChannel:
    """A :class:`streams.alerts.channel.Channel`; the option ``path`` names the file."""

    def __init__(self, settings: Channel) -> None:
        path = settings.options.get("path")
        if not isinstance(path, str):
            raise SettingsError(f"channel {settings.name}: the kind file needs the option path")
        self._path = Path(path)

    async def open(self) -> None:
        """The file is opened for each line."""

    async def send(self, message_id: str, body: Mapping[str, Any]) -> Outcome:
        """Append a line; its id tells a repetition after a crash."""
        try:
            await asyncio.to_thread(self._append, json.dumps({"id": message_id, **body}) + "\n")
        except OSError as error:
            return Outcome(False, reason=str(error))
        return Outcome(True)

    async def close(self) -> None:
        """Nothing is open between two lines."""

    def _append(self, line: str) -> None:
        with self._path.open("a") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
