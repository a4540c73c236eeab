"""The live view of the demo; plain lines where nobody watches a terminal."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table

from streams.demo.processes import Processes
from streams.demo.progress import Progress
from streams.demo.receiver import Receiver

_PAUSE_S = 0.5


class View:
    """Draws progress until the block ends."""

    def __init__(
        self, console: Console, progress: Progress, processes: Processes, receiver: Receiver
    ) -> None:
        self._console = console
        self._parts = (progress, processes, receiver)
        self._done = threading.Event()
        self._live: Live | None = None
        self._thread: threading.Thread | None = None
        self._windows = self._scores = 0.0

    def __enter__(self) -> View:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
            self._thread = threading.Thread(target=self._draw, name="view", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        if self._live is not None:
            self._live.stop()

    def _draw(self) -> None:
        assert self._live is not None
        while not self._done.wait(_PAUSE_S):
            # A process that is being restarted has no metrics: the last ones stay.
            with suppress(KeyError):
                self._measure()
            self._live.update(self._picture(), refresh=True)

    def _measure(self) -> None:
        worker = self._parts[1].children["worker"]
        if worker.alive():
            self._windows = worker.metric("headwater_worker_window_results_total")
            self._scores = worker.metric("headwater_worker_scores_told_total")

    def _picture(self) -> RenderableType:
        progress, processes, receiver = self._parts
        states = Table("process", "state", "restarts", box=None)
        for child in list(processes.children.values()):
            state = "[green]runs[/]" if child.alive() else "[red]dead[/]"
            states.add_row(child.name, state, str(child.restarts or ""))
        counts = Table(show_header=False, box=None)
        counts.add_row("sent", f"{progress.messages():,} of {progress.total:,}")
        counts.add_row("windows", f"{self._windows:,.0f}")
        counts.add_row("scores told", f"{self._scores:,.0f}")
        counts.add_row("webhooks", f"{len(receiver.deliveries):,}")
        if receiver.deliveries:
            last = receiver.deliveries[-1]
            counts.add_row("last alert", f"{last.data['why']} ({last.latency_ms():.0f} ms)")
        grid = Table.grid(padding=(0, 4))
        grid.add_row(states, counts)
        bar = ProgressBar(total=1.0, completed=progress.share())
        story = "\n".join(progress.story)
        return Group(Panel(Group(grid, bar), title="Headwater"), Panel(story, title="Story"))


def teller(console: Console) -> Callable[[str], None]:
    """Return what tells the story as lines, where there is no live view."""

    def tell(line: str) -> None:
        if not console.is_terminal:
            console.print(line, highlight=False)

    return tell
