"""Gives the commands of rules: to the desk, or to a topic of the site's own broker."""

from __future__ import annotations

import hashlib
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from prometheus_client import Counter

from crdt.core.commands.model import Command, CommandError
from crdt.sqlite_file import LogError
from edge.local.pacing import Due
from streams.errors import SettingsError
from streams.log import get_logger
from streams.settings import Rule, RuleCommand, Settings
from streams.settings.rule_commands import PLACES, filled

_log = get_logger(__name__)
_GIVEN = Counter("headwater_edge_rule_commands", "Commands that local rules gave.", ["rule"])
_NOT_GIVEN = Counter(
    "headwater_edge_rule_commands_not_given",
    "Commands of local rules that were not given: refused (by the desk, or no topic can be so "
    "called), disk, expired or replaced (while the site's broker was away), limit.",
    ["reason"],
)
Issue = Callable[[str, Command], object]
"""Takes a command of a device; see :meth:`edge.commands.CommandDesk.issue`."""
Publish = Callable[[str, bytes, int], bool]
"""Publishes on a topic of the site's broker, for so many ms; returns False while that is away."""


@dataclass(frozen=True, slots=True)
class _Message:
    topic: str
    payload: bytes
    until_ms: int


class Actuator:
    """Belongs to the event loop."""

    def __init__(
        self, settings: Settings, issue: Issue, publish: Publish, wall_ms: Callable[[], int]
    ) -> None:
        """Wire the parts.

        :param wall_ms: wall time, which the device is told.
        :raises SettingsError: if a command has a topic, and the site has no broker.
        """
        self._rules = {rule.name: rule for rule in commanding(settings.rules)}
        for rule in self._rules.values():
            if settings.edge.local_mqtt is None and any(one.topic for one in rule.commands):
                raise SettingsError(
                    f"the rule {rule.name} gives commands on a topic, but edge.local_mqtt does not "
                    "name the site's broker"
                )
        self._site, self._limit = settings.edge.site, settings.edge.local.max_commands
        self._issue, self._publish, self._wall_ms = issue, publish, wall_ms
        self._waiting: dict[tuple[str, str, str], list[_Message]] = {}
        self.given: Tally[str] = Tally()
        """Commands given since the start, of each rule."""

    @property
    def waiting(self) -> int:
        """Commands that wait for the site's broker."""
        return sum(map(len, self._waiting.values()))

    def give(self, due: Due, now_ms: int) -> None:
        """Give the commands of a rule for a state; what waited for its broker is out of date.

        :param now_ms: a clock that never goes back.
        """
        rule, alert = self._rules[due.rule], due.alert
        names = {**{name: str(alert[name]) for name in PLACES}}
        place = (due.rule, names["tenant"], names["device"])
        _NOT_GIVEN.labels("replaced").inc(len(self._waiting.pop(place, ())))
        held: list[_Message] = []
        for number, one in enumerate(rule.commands):
            if one.when != due.state:
                continue
            command = self._command(one, alert, number)
            device = filled(one.device, names)
            if one.topic is None:
                self._ask(device, command, due.rule)
                continue
            message = self._message(filled(one.topic, names), device, command, due, now_ms)
            if message is not None and not self._send(message, due.rule, now_ms):
                held.append(message)
        if held and len(self._waiting) >= self._limit:
            _NOT_GIVEN.labels("limit").inc(len(held))
        elif held:
            self._waiting[place] = held

    def flush(self, now_ms: int) -> None:
        """Publish what waited, now that the site's broker is there."""
        waiting, self._waiting = self._waiting, {}
        for place, messages in waiting.items():
            fresh = [one for one in messages if now_ms < one.until_ms]
            _NOT_GIVEN.labels("expired").inc(len(messages) - len(fresh))
            held = [one for one in fresh if not self._send(one, place[0], now_ms)]
            if held:
                self._waiting[place] = held

    def _command(self, one: RuleCommand, alert: Mapping[str, Any], number: int) -> Command:
        # The same id if an edge that was killed gives it again.
        parts = (alert["id"], alert["state"], alert.get("turn", 0), number)
        digest = hashlib.sha256("\x00".join(map(str, parts)).encode()).hexdigest()[:24]
        return Command(
            f"cmd_{digest}", one.name, one.args, one.ttl_ms, self._site, f"edge:{self._site}"
        )

    def _ask(self, device: str, command: Command, rule: str) -> None:
        try:
            self._issue(device, command)
        except CommandError as error:
            _NOT_GIVEN.labels("refused").inc()
            _log.error("a rule's command was refused", rule=rule, device=device, why=str(error))
        except LogError as error:
            _NOT_GIVEN.labels("disk").inc()
            _log.error("a rule's command was not stored", rule=rule, device=device, why=str(error))
        else:
            self._count(rule)

    def _message(
        self, topic: str, device: str, command: Command, due: Due, now_ms: int
    ) -> _Message | None:
        if any(sign in topic for sign in "+#\x00"):
            _NOT_GIVEN.labels("refused").inc()
            _log.error("a rule's command has no such topic", rule=due.rule, topic=topic[:200])
            return None
        told = {
            "id": command.id,
            "device": device,
            "name": command.name,
            "args": command.args,
            "ttl_ms": command.ttl_ms,
            "issued_ms": self._wall_ms(),
            "rule": due.rule,
            "alert": due.alert["id"],
            "state": due.state,
        }
        return _Message(topic, orjson.dumps(told), now_ms + command.ttl_ms)

    def _send(self, message: _Message, rule: str, now_ms: int) -> bool:
        if not self._publish(message.topic, message.payload, message.until_ms - now_ms):
            return False
        self._count(rule)
        return True

    def _count(self, rule: str) -> None:
        self.given[rule] += 1
        _GIVEN.labels(rule).inc()


def commanding(rules: Iterable[Rule]) -> list[Rule]:
    """Return the rules that give commands."""
    return [rule for rule in rules if rule.commands]
