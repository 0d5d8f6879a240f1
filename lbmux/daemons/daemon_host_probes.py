"""Probes every host through the tunnel: one TCP segment per second, which the host answers with a reset.

The mux builds the packets itself and reads the answers from a raw socket: a TCP connection per second and host would
cost ten times as much.  Each probe has a random sequence number and an answer acknowledges it, so only a node that sees
the probe can answer.
"""

import asyncio
import contextlib
import secrets
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

from lbmux.addresses import FAMILIES, Address
from lbmux.config.models import BackendKey, Config
from lbmux.daemons.background_task import background_task
from lbmux.daemons.probe_tables import ProbeTables
from lbmux.errors import SetupError
from lbmux.frames.socket_filters import attach, ignore_path_mtus, tcp_to
from lbmux.health.hosts import HostChecks
from lbmux.slowpath.forwarder import TableForwarder
from lbmux.slowpath.mux_output import Sent
from lbmux.slowpath.probes import SEGMENT_BYTES, acknowledged, probe
from lbmux.tables.host_probes import probe_paths
from lbmux.targets.native import Worker
from lbmux.targets.regions import now_ticks

ROUND_S = 1.0
"""Seconds between two probes of a host."""
EARLY_ROUNDS, EARLY_S = 5, 10.0
"""A host that has not answered yet gets this many probes in a second, until this many seconds after the start."""
SLICES = 20
"""A round sends its probes in this many portions."""
REMEMBERED = 4
"""An answer counts for any of a host's last probes."""
READS = 64


def _nothing() -> None:
    return


def _never() -> bool:
    return False


class HostProbes:
    """``changed`` is called when ``cut_off`` or ``reported`` gets or loses a host."""

    def __init__(self, local: Iterable[Address], send: Callable[[Iterable[Sent]], Any]) -> None:
        self._local = {address.version: address for address in reversed([*local])}
        self._send = send
        self.changed: Callable[[], None] = _nothing
        self.is_overloaded: Callable[[], bool] = _never
        """Whether this mux loses packets, its probes among them."""
        self._checks, self._settled = HostChecks(), asyncio.Event()
        self._cut_off: Mapping[Address, float] = {}
        self.reported = set[Address]()
        """The hosts of ``cut_off`` that have answered before or have had the time to."""
        self._config: Config | None = None
        self.tables = ProbeTables(self._local.values())
        self._forwarder: TableForwarder | None = None
        self._ways: dict[Address, list[BackendKey]] = {}
        self._turn: dict[Address, int] = {}
        self._asked: dict[Address, deque[int]] = {}
        self._hosts: dict[int, Address] = {}
        """Host by sequence number of a probe."""
        self._answered = set[Address]()
        self._port = 0
        self._sockets: dict[int, socket.socket] = {}

    @property
    def cut_off(self) -> Mapping[Address, float]:
        return self._cut_off

    def describe(self, host: Address) -> str:
        """Return what the probes of a host have found; empty without probes."""
        return self._checks.describe(host)

    async def configure(self, config: Config) -> None:
        """Probe the hosts of ``config`` and no others."""
        if config == self._config:
            return
        self._config = config
        if self._port != config.tunnel.probe_port:
            self._port = config.tunnel.probe_port
            for version, sock in self._sockets.items():
                attach(sock, tcp_to(self._port, version))
        self._ways = probe_paths(config, tuple(self._local))
        if self._ways:
            mux = await self.tables.fill(config.model_copy(update={"services": self.tables.bare(config.services)}))
            if mux is not self.tables.mux:
                self.tables.mux, self._forwarder = mux, TableForwarder(Worker(mux.tables), now_ticks)
        self._checks.configure(self._ways, time.time())
        for gone in self._asked.keys() - self._ways.keys():
            for sequence in self._asked.pop(gone):
                self._hosts.pop(sequence, None)
        self._follow()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            for version in self._local:
                sock = self._sockets[version] = stack.enter_context(_raw(version, self._port))
                loop.add_reader(sock.fileno(), self._read, version)
                stack.callback(loop.remove_reader, sock.fileno())
            try:
                async with background_task(self._probe()):
                    yield
            finally:
                self._sockets = {}

    async def settled(self, within_s: float) -> None:
        """Wait until every host has answered or missed enough probes; ``within_s`` at most."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), within_s)

    async def _probe(self) -> None:
        loop = asyncio.get_running_loop()
        started, turn = loop.time(), 0
        while True:
            begun, hosts, round_s = loop.time(), [*self._ways], ROUND_S
            new = self._checks.never_answered
            if new and begun - started < EARLY_S:
                round_s = ROUND_S / EARLY_ROUNDS
                hosts = hosts if turn % EARLY_ROUNDS == 0 else [host for host in hosts if host in new]
                turn += 1
            late_s = 0.0
            for at in range(SLICES):
                self._read_all()  # answers that arrived while the event loop was busy are not late
                for host in hosts[at::SLICES]:
                    self._judge(host)
                    self._ask(host)
                late_s = max(late_s, loop.time() - begun - at * round_s / SLICES)
                if hosts[at + 1 :]:  # the last portion needs no pause
                    await asyncio.sleep(begun + (at + 1) * round_s / SLICES - loop.time())
            self._follow()
            await asyncio.sleep(begun + late_s + round_s - loop.time())  # each has a whole round to answer

    def _judge(self, host: Address) -> None:
        """Count a missing answer to the host's last probe, and use another VIP for its next one."""
        if host in self._asked and host in self._ways and host not in self._answered:
            self._turn[host] = self._turn.get(host, 0) + 1
            self._record(host, False)
        self._answered.discard(host)

    def _ask(self, host: Address) -> None:
        ways, mux, forwarder = self._ways.get(host), self.tables.mux, self._forwarder
        if not ways or mux is None or forwarder is None or mux.config is None:
            return
        key = ways[self._turn.get(host, 0) % len(ways)]
        row = mux.rows.get(key)
        vip = next((service.vip for service in mux.config.services if service.name == key[0]), None)
        if row is None or vip is None:
            return
        sequence = secrets.randbits(32)
        before = self._asked.setdefault(host, deque())
        before.append(sequence)
        self._hosts[sequence] = host
        if len(before) > REMEMBERED:
            self._hosts.pop(before.popleft(), None)
        packet = probe(self._local[vip.version], vip, self._port, sequence)
        self._send([Sent(interface, frame) for interface, frame in forwarder.tunnel(packet, row)])

    def _read_all(self) -> None:
        for version in self._sockets:
            self._read(version)

    def _read(self, version: int) -> None:
        for _ in range(READS):
            try:
                data = self._sockets[version].recv(SEGMENT_BYTES)
            except (BlockingIOError, KeyError):
                return
            host = self._hosts.get(acknowledged(data, version))
            if host is not None:
                self._answered.add(host)
                self._record(host, True)

    def _record(self, host: Address, is_answer: bool) -> None:
        if self._checks.record(host, is_answer, time.time(), self.is_overloaded()):
            self._follow()

    def _follow(self) -> None:
        if not self._checks.unprobed:
            self._settled.set()
        cut_off, reported = self._checks.cut_off, self._checks.reported(time.time())
        if cut_off.keys() != self._cut_off.keys() or reported != self.reported:
            self._cut_off, self.reported = dict(cut_off), reported
            self.changed()


def _raw(version: int, port: int) -> socket.socket:
    try:
        sock = socket.socket(FAMILIES[version], socket.SOCK_RAW, socket.IPPROTO_TCP)
    except PermissionError as error:
        raise SetupError("raw socket", "not permitted", "needs CAP_NET_RAW: run as root") from error
    sock.setblocking(False)
    attach(sock, tcp_to(port, version))
    ignore_path_mtus(sock)
    return sock
