"""What is going on in the demo: written by its threads, shown by its view."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable

from streams.sim.sensors import Fault, Message


class Progress:
    """Counts of what was sent, and the story so far.

    :param tell: called with each line of the story as it happens.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self.total = 0
        self.sent: Counter[Fault] = Counter()
        self.spikes: set[tuple[str, int]] = set()
        self.story: deque[str] = deque(maxlen=12)

    def note(self, message: Message) -> None:
        """Count a message that was sent."""
        with self._lock:
            self.sent[message.fault] += 1
            if message.fault is Fault.SPIKE:
                self.spikes.add((message.device, message.t_ms))

    def say(self, line: str) -> None:
        """Add a line to the story."""
        stamped = f"[dim]{time.monotonic() - self._started:5.1f} s[/]  {line}"
        self.story.append(stamped)
        self._tell(stamped)

    def messages(self) -> int:
        """Return how many messages were sent."""
        with self._lock:
            return self.sent.total()

    def share(self) -> float:
        """Return the share of the messages that was sent, 0 to 1."""
        return self.messages() / self.total if self.total else 0.0
