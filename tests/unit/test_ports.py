"""Ports for servers that start beside each other."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile

import pytest

from streams.services import ports
from streams.services.ports import HOST, free_port, is_open
from tests.waiting import PATIENCE_S

ASK = "from streams.services.ports import free_port; print(*(free_port() for _ in range(50)))"


def test_processes_that_ask_at_the_same_time_get_different_ports():
    asking = [
        subprocess.Popen([sys.executable, "-c", ASK], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    given = [
        port for process in asking for port in process.communicate(timeout=PATIENCE_S)[0].split()
    ]
    assert len(given) == len(set(given)) == 200


def test_a_port_that_something_listens_on_is_passed_over(tmp_path, monkeypatch):
    with socket.socket() as server:
        taken = free_port()
        server.bind((HOST, taken))
        server.listen()
        assert is_open(f"{HOST}:{taken}")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setattr(ports, "_PORTS", range(taken, taken + 20))
        # More than once round.
        found = {free_port() for _ in range(40)}
        assert found
        assert taken not in found
        monkeypatch.setattr(ports, "_PORTS", range(taken, taken + 1))
        with pytest.raises(OSError, match=f"no port of {taken} to {taken} is free"):
            free_port()


def test_the_ports_are_none_that_a_system_gives_to_connections():
    linux, macos = 32_768, 49_152
    assert free_port() < min(linux, macos)
    assert min(linux, macos) not in ports._PORTS
