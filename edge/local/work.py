"""The local work of a site: readings in; commands, alerts and windows to be read out.

::

    readings, stored ─▶ evaluation ─▶ alerts ─▶ pacer ─▶ commands, at once
                             │           └─▶ journal, on disk ─▶ the spool's lane ``alerts``
                             │                          └─▶ courier ─▶ webhooks of the site
                             └─▶ windows ─▶ recent

The evaluation and the journal belong to one thread, all else to the event loop. Nothing here holds
up the intake: what comes faster than it is evaluated waits, up to a bound.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from prometheus_client import Counter, Gauge, Histogram

from crdt.sqlite_file import LogError
from edge.errors import SpoolError
from edge.local.actuator import Actuator, commanding
from edge.local.courier import Message, SiteCourier, messages_of
from edge.local.evaluation import Evaluation, Outcome
from edge.local.journal import Journal
from edge.local.pacing import Pacer
from edge.local.recent import RecentWindows
from edge.model_scores import SiteModels
from streams.core.alert_states import FIRING, TOLD_BY_EDGE
from streams.core.readings import Readings, concat_readings
from streams.log import get_logger
from streams.settings import Settings

T = TypeVar("T")
_log = get_logger(__name__)
_TICK_S = 0.5
_MAX_ROWS = 10_000
_SHOWN = 10
"""Alerts that a status names; ``GET /v1/alerts`` has them all."""
_SHOWN_OF_ALERT = ("id", "rule", "device", "metric", "severity", "began_ms", "why")
_ALERTS = Counter("headwater_edge_alerts", "Changes of local alerts.", ["rule", "state"])
_FIRING = Gauge("headwater_edge_alerts_firing", "Local alerts that fire.")
_UNTOLD = Gauge("headwater_edge_alerts_unstored", "Changes of alerts that the disk refused so far.")
_LOST = Counter("headwater_edge_alerts_lost", "Changes of alerts beyond edge.local.max_untold.")
_PASSED_OVER = Counter(
    "headwater_edge_local_passed_over",
    "Readings that local work has not seen: edge.local.max_waiting_rows was met.",
)
_REFUSED = Counter(
    "headwater_edge_rules_refused",
    "Results not judged and alerts not begun: alerts.max_series or alerts.max_open is met.",
)
_HELD = Counter(
    "headwater_edge_rule_commands_held", "Commands that commands_every_ms has made wait."
)
_UNDONE = Counter(
    "headwater_edge_rule_commands_undone", "Commands that waited until they were not wanted more."
)
_BEYOND = Counter("headwater_edge_rule_commands_beyond", "Alerts beyond edge.local.max_commands.")
_SECONDS = Histogram(
    "headwater_edge_local_seconds",
    "Evaluation of one batch of readings.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1),
)
Tell = Callable[[Sequence[bytes]], Awaitable[None]]
"""Puts alerts, JSON each, into the spool; raises :class:`SpoolError` if it cannot."""


class LocalWork:
    """See the module. Make it inside the event loop."""

    def __init__(
        self, settings: Settings, actuator: Actuator, tell: Tell, clock_ms: Callable[[], int]
    ) -> None:
        """Go on with the alerts that fire since before this start.

        :param clock_ms: wall time at the start of the process, and from there on steady.
        :raises LogError: if the journal cannot be used.
        :raises StateError: if what it has is of another version.
        :raises SettingsError: if a signing secret cannot be read.
        """
        local = settings.edge.local
        self._limits = local
        self._rules = {rule.name: rule.where for rule in settings.rules if rule.at_edge}
        self._actuator, self._tell = actuator, tell
        self._told_by_cloud = {rule.name for rule in settings.rules if rule.where == "both"}
        self._journal = Journal(settings.edge.data / "alerts.db", local.max_alerts)
        self._evaluation = Evaluation(settings)
        stored_ms = self._evaluation.restore(self._journal.state())
        # A clock that was ahead before the start must not make all wait until it is so late again.
        self._ahead_ms = max(0, stored_ms - clock_ms())
        self._clock_ms = clock_ms
        self.recent = RecentWindows(local.recent, local.max_recent)
        self._alerts = {one["id"]: one for one in self._journal.alerts()}
        self._pacer = Pacer(
            {rule.name: rule.commands_every_ms for rule in commanding(settings.rules)},
            local.max_commands,
        )
        self._pacer.restore(one for one in self._alerts.values() if one["state"] == FIRING)
        self._courier = SiteCourier(settings, self._journal.messages(), self._delivered)
        self._waiting: deque[Readings] = deque()
        self._rows = 0
        self._passed_over = 0
        self._arrived = asyncio.Event()
        self._unstored: deque[dict[str, Any]] = deque()
        self._is_behind = True
        """Whether the journal may have what is not in the spool."""
        self._thread = ThreadPoolExecutor(1, "local")

    # -- what others see -----------------------------------------------------------------------

    def take(self, readings: Readings) -> None:
        """Take readings that are stored; returns at once."""
        self._waiting.append(readings)
        self._rows += len(readings)
        while self._rows > self._limits.max_waiting_rows and len(self._waiting) > 1:
            passed_over = len(self._waiting.popleft())
            self._rows -= passed_over
            self._passed_over += passed_over
            _PASSED_OVER.inc(passed_over)
        self._arrived.set()

    def score_by(self, models: SiteModels) -> None:
        """Score windows by the models of the site's twins, too. Call it before :meth:`running`."""
        self._evaluation.models = models

    def alerts(self, state: str | None = None) -> list[dict[str, Any]]:
        """Return local alerts in their last state, the newest change first."""
        return [one for one in reversed(self._alerts.values()) if state in (None, one["state"])]

    def status(self) -> dict[str, Any]:
        """Return what the site does by itself; counts are of the time since the start."""
        firing = self.alerts(FIRING)
        of_rules = Tally(alert["rule"] for alert in firing)
        given = self._actuator.given
        return {
            "rules": [
                {"rule": name, "where": where, "firing": of_rules[name], "commands": given[name]}
                for name, where in self._rules.items()
            ],
            "firing": len(firing),
            "newest_firing": [
                {name: alert[name] for name in _SHOWN_OF_ALERT} for alert in firing[:_SHOWN]
            ],
            "windows": self.recent.status,
            "commands": given.total(),
            "waiting_commands": self._actuator.waiting,
            "webhooks": self._courier.status(),
            "waiting_readings": self._rows,
            "passed_over": self._passed_over,
        }

    def broker_is_back(self) -> None:
        """Publish commands that waited for the site's broker."""
        self._actuator.flush(self._now_ms())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[list[asyncio.Task[None]]]:
        """Work until the block ends; gives the task that must not end before."""
        try:
            async with self._courier.running() as delivering:
                task = asyncio.create_task(self._run(), name="local")
                try:
                    yield [task, *delivering]
                finally:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
        finally:
            await self._in_thread(self._close)
            self._thread.shutdown()

    # -- the loop ------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._arrived.wait()
            self._arrived.clear()
            await self._step(self._next())
            while self._waiting:
                await self._step(self._next())

    async def _step(self, readings: Sequence[Readings]) -> None:
        now_ms = self._now_ms()
        outcome = await self._in_thread(self._evaluate, readings, now_ms)
        self._act(outcome.alerts, self._now_ms())
        for part in outcome.windows:
            self.recent.update(part)
        if outcome.alerts or self._unstored:
            await self._keep(outcome.alerts)
        elif self._is_behind:
            await self._hand_on()

    def _evaluate(self, readings: Sequence[Readings], now_ms: int) -> Outcome:
        if not readings:
            outcome = self._evaluation.pass_time(now_ms)
        else:
            with _SECONDS.time():
                outcome = self._evaluation.take(concat_readings(readings), now_ms)
        _REFUSED.inc(self._evaluation.refused())
        return outcome

    def _next(self) -> list[Readings]:
        found: list[Readings] = []
        rows = 0
        while self._waiting and (not found or rows + len(self._waiting[0]) <= _MAX_ROWS):
            found.append(self._waiting.popleft())
            rows += len(found[-1])
        self._rows -= rows
        return found

    def _act(self, alerts: Sequence[Mapping[str, Any]], now_ms: int) -> None:
        due = [one for alert in alerts for one in self._pacer.take(alert, now_ms)]
        for one in (*due, *self._pacer.due(now_ms)):
            self._actuator.give(one, now_ms)
        for counter, name in ((_HELD, "held"), (_UNDONE, "dropped"), (_BEYOND, "refused")):
            counter.inc(getattr(self._pacer, name))
            setattr(self._pacer, name, 0)

    # -- alerts, on disk and up ----------------------------------------------------------------

    async def _keep(self, alerts: Sequence[dict[str, Any]]) -> None:
        for alert in alerts:
            self._address(alert)
            _ALERTS.labels(alert["rule"], alert["state"]).inc()
            self._alerts.pop(alert["id"], None)
            self._alerts[alert["id"]] = alert
        self._unstored += alerts
        while len(self._unstored) > self._limits.max_untold:
            self._unstored.popleft()
            _LOST.inc()
        self._forget_over()
        changed = list(self._unstored)
        queued_ms = self._clock_ms()
        messages = [
            message
            for alert in changed
            for message in messages_of(alert, alert.get(TOLD_BY_EDGE, ()), queued_ms)
        ]
        try:
            await self._in_thread(self._record, changed, messages)
        except LogError as error:
            # Tried again with the next tick; commands were given all the same.
            _log.error("alerts cannot be stored", error=str(error), waiting=len(changed))
        else:
            self._unstored.clear()
            self._courier.take(messages)
            await self._hand_on()
        _UNTOLD.set(len(self._unstored))

    def _forget_over(self) -> None:
        over = [key for key, alert in self._alerts.items() if alert["state"] != FIRING]
        _FIRING.set(len(self._alerts) - len(over))
        for key in over[: -self._limits.max_alerts]:
            del self._alerts[key]

    def _address(self, alert: dict[str, Any]) -> None:
        """Name the webhooks that are told of an alert from here, for the cloud to leave out."""
        if alert["rule"] not in self._told_by_cloud:
            endpoints = self._courier.endpoints(alert["tenant"])
            if endpoints:
                alert[TOLD_BY_EDGE] = endpoints

    async def _delivered(self, messages: Sequence[str]) -> None:
        await self._in_thread(self._journal.finished, messages)

    def _record(self, changed: Sequence[dict[str, Any]], messages: Sequence[Message]) -> None:
        up = [alert for alert in changed if alert["rule"] not in self._told_by_cloud]
        state = self._evaluation.state(self._evaluation.keys_of(changed))
        self._journal.record(changed, up, state, messages)

    async def _hand_on(self) -> None:
        """Put what is not yet in the spool there."""
        try:
            untold = await self._in_thread(self._journal.untold)
            if untold:
                await self._tell([data for _, data in untold])
                await self._in_thread(self._journal.told, untold[-1][0])
            self._is_behind = False
        except (SpoolError, LogError) as error:
            self._is_behind = True
            _log.error("alerts wait at the edge", error=str(error))

    def _close(self) -> None:
        try:
            self._journal.record((), (), self._evaluation.state(self._evaluation.keys()))
        except LogError as error:
            _log.error("the state of rules was not stored", error=str(error))
        self._journal.close()

    def _now_ms(self) -> int:
        return self._clock_ms() + self._ahead_ms

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)
