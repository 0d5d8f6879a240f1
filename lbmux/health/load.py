"""The load of a host and its backends, as agents report it for `weight: auto`: means over LOAD_S seconds.

It reads /proc/stat (proc_stat(5)) and the listening sockets (sock_diag(7)) of the agent's network namespace.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import port_to_wire, to_pair
from lbmux.config.models import Backend, BackendKey
from lbmux.linux.sock_diag import Connections

LOAD_S, SAMPLE_S = 5.0, 0.5
"""The time over which a load is the mean, and the interval of its samples, in seconds."""
STAT = Path("/proc/stat")
CONNECTIONS = 8
"""This many waiting connections count as 1: a server that keeps up has a few at times."""
IDLE = slice(3, 5)
"""The fields of a CPU's times in which it was idle, or idle and waiting for a disk."""
GUEST_AT = 8
"""From here on the fields are parts of earlier ones."""


class Load(NamedTuple):
    """``cpu``: the share of the host's CPU time that was used; ``run_queue``: tasks that waited for a CPU, for each
    CPU; ``accept_queue``: connections that waited to be accepted by the backend's server."""

    cpu: float
    run_queue: float
    accept_queue: float

    @property
    def total(self) -> float:
        """One number to compare backends by: work that is being done, and work that waits."""
        return self.cpu + self.run_queue + self.accept_queue / CONNECTIONS


class LoadMeter:
    """Samples the load until `take`."""

    def __init__(self, stat: Path = STAT) -> None:
        self._stat, self._cpus = stat, os.cpu_count() or 1
        self._begun = 0, 0
        self._waiting = list[int]()
        self._queues = dict[BackendKey, list[int]]()

    def sample(self, backends: Mapping[BackendKey, Backend]) -> None:
        """Take one sample; ``backends``: where the servers of this host listen. Raise OSError if that cannot be read.

        The sampling thread itself is running, too.
        """
        times, running = self._read()
        if self._begun == (0, 0):
            self._begun = times
        self._waiting.append(max(0, running - 1 - self._cpus))
        with Connections() as connections:  # a socket of its own, since other threads list sockets too
            sockets, lengths = connections.accept_queues()
        for key, backend in backends.items():
            self._queues.setdefault(key, []).append(int(lengths[_is_of(backend, sockets)].sum()))

    def take(self) -> dict[BackendKey, Load]:
        """Return the means since the last call."""
        (busy, total), _ = now = self._read()
        cpu = (busy - self._begun[0]) / max(1, total - self._begun[1])
        run_queue = float(np.mean(self._waiting or [0])) / self._cpus
        loads = {
            key: Load(round(cpu, 3), round(run_queue, 3), round(float(np.mean(lengths)), 3))
            for key, lengths in self._queues.items()
        }
        self._begun, self._waiting, self._queues = now[0], [], {}
        return loads

    def _read(self) -> tuple[tuple[int, int], int]:
        """Return the busy and the whole CPU time, in ticks, and the number of tasks that run or could run."""
        lines = dict(line.split(maxsplit=1) for line in self._stat.read_text().splitlines())
        times = [int(field) for field in lines["cpu"].split()[:GUEST_AT]]
        return (sum(times) - sum(times[IDLE]), sum(times)), int(lines["procs_running"])


def _is_of(backend: Backend, sockets: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which listening sockets take the backend's connections: at its address, or at any."""
    is_here = (sockets["local"] == np.array(to_pair(backend.dip), np.uint64)).all(axis=1)
    is_anywhere = ((sockets["local"] == ANY) | (sockets["local"] == ANY_MAPPED)).all(axis=1)
    return (sockets["local_port"] == port_to_wire(backend.port)) & (is_here | is_anywhere)  # type: ignore[no-any-return]


ANY, ANY_MAPPED = (np.frombuffer(16 * b"\0", "<u8"), np.frombuffer(10 * b"\0" + b"\xff\xff" + 4 * b"\0", "<u8"))
"""The unspecified address of IPv6 sockets, and of IPv4 ones."""
