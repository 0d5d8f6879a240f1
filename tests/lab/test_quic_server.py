"""Releases of the lab's HTTP/3 server: connections stay with their process, new ones go to the new process."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbmux.lab.processes import python

ROOT = Path(__file__).parents[2]
ADDRESS = "127.0.0.1"


@contextlib.contextmanager
def running(base: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A server that is ready: its certificate is written before it takes the socket, so wait for BASE.sock."""
    path = Path(f"{base}.sock")
    before = path.stat().st_ino if path.exists() else 0
    command = python("lbmux.lab.quic_server", str(base), "edge", ADDRESS, str(port))
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            end = time.monotonic() + 20
            while not path.exists() or path.stat().st_ino == before:
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


class Client:
    """A client with one connection, which asks who serves it."""

    def __init__(self, port: int) -> None:
        command = [sys.executable, "-m", "tests.daemons.quic_peer", "keep", ADDRESS, str(port)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.first = self._answer()

    def ask(self, line: str = "ask") -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        name, pid = self._process.stdout.readline().split()
        assert name == "edge"
        return int(pid)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


@pytest.fixture
def port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((ADDRESS, 0))
        return int(sock.getsockname()[1])


@pytest.mark.slow
def test_a_release_keeps_connections_and_the_old_process_ends_with_its_last_one(tmp_path: Path, port: int) -> None:
    base = tmp_path / "quic"
    with running(base, port) as old, contextlib.closing(Client(port)) as early:
        assert early.first == old.pid
        with running(base, port) as new, contextlib.closing(Client(port)) as late:
            assert late.first == new.pid
            assert [early.ask() for _ in range(3)] == [old.pid] * 3
            assert early.ask("move") == old.pid  # another port, and another connection id
            assert late.ask() == new.pid and old.poll() is None
            early.close()
            assert old.wait(10) == 0
            assert late.ask() == new.pid
            with running(base, port) as third, contextlib.closing(Client(port)) as last:
                assert (last.first, late.ask()) == (third.pid, new.pid)
