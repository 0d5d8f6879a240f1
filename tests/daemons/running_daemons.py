"""Muxes and agents of a lab as children of the test: started, asked, ended, their exit codes and logs kept."""

import contextlib
import re
import signal
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from lbmux.lab.fork_server import ForkedProcess
from lbmux.lab.lab import Lab
from tests.api.asking import ask
from tests.lbmux_command import LBMUX, lbmux

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 3, (0x0800).to_bytes(2), (0x86DD).to_bytes(2)
PROBE_PORT = (6083).to_bytes(2)
PROBE_PORTS = 2 * PROBE_PORT
START_S = 30.0
USER_SPACE = {"mux": "packet", "agent": "tun", "edge": "packet"}
"""The driver, unless an option says another."""
STAY = "--stay"
"""No option of a daemon's: an agent is to leave what it leaves, for the next one."""
READY = {"mux": re.compile(r": \d+ services?\n"), "agent": re.compile(r" backends? of this host\n")}


def service(name: str, port: int, backends: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"name": name, "vip": "192.0.2.1", "protocol": "tcp", "port": port, "backends": backends} | more


def configuration(*services: dict[str, Any]) -> dict[str, Any]:
    return {"muxes": ["10.0.1.2"], "maglev": {"size": 251}, "flows": {"limit": 4096}, "services": list(services)}


class Daemon:
    """``lbmux mux``, ``agent`` or ``edge --balance`` in a node of a lab, with the lab's configuration file."""

    def __init__(self, lab: Lab, node: str, program: str, *options: str, prefix: tuple[str, ...] = ()) -> None:
        self.program = program
        self.control = lab.directory / f"{node}-test.sock"
        command = [
            *LBMUX, program, "-c", str(lab.config), "-i", "eth0",
            "--control", str(self.control), "--driver", USER_SPACE[program],
            *(option for option in options if option != STAY),
            *(["--detach-on-exit"] if program == "agent" and STAY not in options else []),
        ]  # fmt: skip
        self._path = lab.directory / f"{node}-{program}-test.log"
        with self._path.open("wb") as log:
            self.process: ForkedProcess | subprocess.Popen[bytes]
            if prefix:
                self.process = lab.popen(node, [*prefix, *command], stdout=log, stderr=log)
            else:
                self.process = lab.fork(node, command, log)

    @property
    def log(self) -> str:
        return self._path.read_text()

    def wait_for(self, text: str | re.Pattern[str], seconds: float = 20.0) -> None:
        """Wait until the log has a text, or matches a pattern."""
        pattern = re.compile(re.escape(text)) if isinstance(text, str) else text
        deadline = time.monotonic() + seconds
        while not pattern.search(self.log):
            assert self.process.poll() is None and time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)

    def reload(self) -> "subprocess.CompletedProcess[str]":
        return lbmux("reload", "--control", str(self.control))


@contextlib.contextmanager
def running(lab: Lab, node: str, program: str, *options: str) -> Iterator[Daemon]:
    """A daemon that is ready; ended in the end if it still runs."""
    with started(lab, node, program, *options) as daemon:
        daemon.wait_for(READY[program], START_S)
        yield daemon


@contextlib.contextmanager
def started(lab: Lab, node: str, program: str, *options: str) -> Iterator[Daemon]:
    """Like ``running``, but without waiting for it: several start faster at once."""
    daemon = Daemon(lab, node, program, *options)
    try:
        yield daemon
        if daemon.process.poll() is None:
            assert daemon.end() == 0, daemon.log
    finally:
        daemon.process.kill()
        daemon.process.wait()


def wait_for_hosts(mux: Daemon, *hosts: str, seconds: float = 20.0) -> None:
    """Wait until these hosts have answered the mux, and all backends that are up are in its tables.

    On a busy machine even the probes of a host whose agent is ready are late at times.
    """
    deadline = time.monotonic() + seconds
    while True:
        backends = ask(mux.control, "health")["health"]
        silent = [one for one in backends if one["host"] in hosts and "does not answer through" in one["reason"]]
        rows = {(row["service"], row["backend"]) for row in ask(mux.control, "backends")["backends"]}
        if not silent and {(one["service"], one["backend"]) for one in backends if one["state"] == "up"} <= rows:
            return
        assert time.monotonic() < deadline, f"{backends}\n{mux.log}"
        time.sleep(0.02)


class Wire:
    """What an interface of a node receives, from now on: whole frames."""

    def __init__(self, lab: Lab, node: str, interface: str = "eth0", version: int | None = 4) -> None:
        """``version``: of IP; None: both."""
        self._kinds = {4: {ETH_P_IP}, None: {ETH_P_IP, ETH_P_IPV6}}[version]

        def listen() -> socket.socket:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # 0: nothing before bind
            sock.bind((interface, ETH_P_ALL))  # before tc, where a mux hides its frames from the kernel
            return sock

        self.socket = lab.inside(node, listen)

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def frames(self, wanted: int, seconds: float = 2.0, tunnelled_from: int | None = None) -> list[bytes]:
        """Return this many frames, or those that came in time, for this node, without muxes' probes and their answers.

        ``tunnelled_from``: only those whose inner packet has that source port; earlier connections may be closing.
        """
        deadline, received = time.monotonic() + seconds, list[bytes]()
        while len(received) < wanted and (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            with contextlib.suppress(TimeoutError):
                frame, origin = self.socket.recvfrom(65536)
                source_port = int.from_bytes(frame[54:56], "big")
                is_probe = PROBE_PORTS in (frame[34:38], frame[54:58])  # a probe's answer, direct or tunnelled
                is_for_us = origin[2] == socket.PACKET_HOST and frame[12:14] in self._kinds
                if is_for_us and not is_probe and tunnelled_from in (None, source_port):
                    received.append(frame)
        return received


def send(lab: Lab, node: str, *packets: bytes) -> None:
    """Send whole IPv4 packets from a node, by its routes."""

    def raw() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            for packet in packets:
                sock.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))

    lab.inside(node, raw)


def by_backend(wires: dict[str, Wire], ports: Collection[int]) -> dict[int, list[str]]:
    """Source port of each tunnelled TCP packet, of these ports: the nodes that it came to."""
    received, deadline = defaultdict[int, list[str]](list), time.monotonic() + 10
    while sum(map(len, received.values())) < len(ports) and time.monotonic() < deadline:
        for node, wire in wires.items():
            for frame in wire.frames(len(ports), 0.05):
                port = int.from_bytes(frame[54:56])
                if frame[23] == socket.IPPROTO_IPIP and port in ports:
                    received[port].append(node)
    return dict(received)


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
