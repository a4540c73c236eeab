"""``headwater run``: servers, topics and every process of the Procfile."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(run)


def run() -> None:
    """Start servers that do not run, make topics, and run the Procfile until Ctrl-C.

    All processes end when one of them does. The servers go on: headwater services down.

    Example: headwater run
    """
    import asyncio
    import os
    import sys
    from pathlib import Path

    from honcho.manager import Manager

    from streams.adapters import topic_admin
    from streams.demo.processes import read_procfile
    from streams.services import supervisor
    from streams.settings import load

    supervisor.up(load().state, report=lambda name, what: print(f"{name:>8} | {what}"))
    settings = load()
    asyncio.run(topic_admin.apply(settings.kafka, settings.topics))
    scripts = str(Path(sys.executable).parent)
    env = {**os.environ, "PATH": scripts + os.pathsep + os.environ.get("PATH", "")}
    manager = Manager()
    for name, command in read_procfile().items():
        manager.add_process(name, " ".join(command), env=env)
    manager.loop()
    raise typer.Exit(manager.returncode or 0)
