"""Ports for servers that start beside each other."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile

import pytest

from streams.services import ports
from streams.services.ports import HOST, free_port, is_open

ASK = "from streams.services.ports import free_port; print(*(free_port() for _ in range(50)))"


def test_processes_that_ask_at_the_same_time_get_different_ports():
    asking = [
        subprocess.Popen([sys.executable, "-c", ASK], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    given = [port for process in asking for port in process.communicate(timeout=60)[0].split()]
    assert len(given) == len(set(given)) == 200


def test_a_port_that_something_listens_on_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ports, "_PORTS", range(16_000, 16_002))
    with socket.socket() as server:
        server.bind((HOST, 16_000))
        server.listen()
        assert is_open(f"{HOST}:16000")
        assert [free_port() for _ in range(2)] == [16_001, 16_001]
        monkeypatch.setattr(ports, "_PORTS", range(16_000, 16_001))
        with pytest.raises(OSError, match="no port of 16000 to 16000 is free"):
            free_port()


def test_the_ports_are_none_that_the_system_gives_to_connections():
    with socket.socket() as connection:
        connection.bind((HOST, 0))
        assert free_port() < connection.getsockname()[1]
