"""A TCP proxy whose link can be cut and healed: for tests and the demo.

It runs in a thread of its own, so that it also serves processes and blocking tests::

    with TcpProxy("127.0.0.1", 1883) as proxy:
        ...                      # connect to proxy.address
        proxy.cut()              # connections end; new ones are closed at once
        proxy.heal()
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType

_CHUNK_BYTES = 65_536


class TcpProxy:
    """Forwards a free loopback port to a target."""

    def __init__(self, host: str, port: int) -> None:
        """Make a proxy that does not listen yet."""
        self._target = (host, port)
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy")
        self.port = 0

    @property
    def address(self) -> str:
        """Where to connect, ``host:port``."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> TcpProxy:
        """Listen on a free port.

        :raises OSError: if that is not possible.
        """
        self._thread.start()
        listening: Future[asyncio.Server] = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        )
        self._server = listening.result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def cut(self) -> None:
        """End all connections; close new ones at once."""
        self._is_cut = True
        self._in_loop(self._drop)

    def heal(self) -> None:
        """Let new connections through again."""
        self._is_cut = False

    def stop(self) -> None:
        """End all connections and stop listening."""
        self.cut()
        self._in_loop(self._server.close)
        self._in_loop(self._cancel)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> TcpProxy:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    def _in_loop(self, what: Callable[[], object]) -> None:
        """Call in the proxy's thread and wait for it."""

        async def call() -> None:
            what()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    def _drop(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    def _cancel(self) -> None:
        for task in asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            # The target is away: to the client this looks like a cut.
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._writers |= both
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            self._writers -= both
            for one in both:
                one.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        # The other side is told below, as on a real link.
        pass
    finally:
        writer.close()
