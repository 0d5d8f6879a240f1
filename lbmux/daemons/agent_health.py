"""Health checks at an agent: it probes its host's backends and reports to the muxes (Ananta, SIGCOMM 2013, 3.4.3)."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lbmux.addresses import Address
from lbmux.config.field_types import AutoWeight
from lbmux.config.models import Backend, BackendKey, Config, Service
from lbmux.daemons.background_task import background_task
from lbmux.errors import SetupError
from lbmux.health.agent_channel import ChannelError, HealthPublisher, read_token
from lbmux.health.checker import Checker
from lbmux.health.health_connections import HealthConnections
from lbmux.health.load import LOAD_S, SAMPLE_S, LoadMeter
from lbmux.health.prober import Prober
from lbmux.tables.connection_counts import ConnectionPass

if TYPE_CHECKING:
    from lbmux.manager.node_messages import LoadLine

log = logging.getLogger(__name__)
BEAT_S = 1.0
"""Longest pause between two messages: a silent agent looks like a lost agent, host or path to a mux."""
OPENING_S = 5.0
"""Time limit for a mux to authenticate."""
REFUSED_AGAIN_S, MOST_REFUSED = 60.0, 256
"""Time after which a refusal is logged again, and the number of refusals that are remembered."""


def own_backends(config: Config, served: Sequence[tuple[Service, Backend]], is_local: bool) -> Config:
    """Return the configuration that the agent probes: services with ``health.by: agent``, with this host's backends."""
    here = {(service.name, backend.name) for service, backend in served}
    services = []
    for service in config.services:
        if service.health is None or service.health.by != "agent":
            continue
        mine = [backend for backend in service.backends if (service.name, backend.name) in here]
        if is_local:  # the server listens on the VIP
            mine = [one.model_copy(update={"dip": service.vip, "port": one.port or service.port}) for one in mine]
        if mine:
            services.append(service.model_copy(update={"backends": tuple(mine)}))
    return config.model_copy(update={"services": tuple(services)})


class AgentHealth:
    """Probes on the agent's event loop and a server for muxes; without a token file it does nothing."""

    def __init__(self, token: Path | None) -> None:
        self._token = read_token(token) if token is not None else None
        self._prober = Prober(self._on_result, by="agent", is_known=self._is_settled)
        self._checkers: dict[BackendKey, Checker] = {}
        self._servers: dict[int, asyncio.Server] = {}
        self._connections = HealthConnections()
        self._subscribers: set[asyncio.Event] = set()
        self.changed: Callable[[], None] | None = None
        """Called when a state changes, if a manager gets them; the token is needed for muxes only."""
        self.last_pass: Callable[[], ConnectionPass | None] = lambda: None
        """Returns the connections that the agent counted last."""
        self._refused: dict[tuple[str, str], float] = {}
        self._weighted: dict[BackendKey, Backend] = {}
        """Backends whose weight follows the load; with their servers' addresses."""
        self.loads: tuple[LoadLine, ...] = ()
        """Their last loads, if they are up."""

    @property
    def checkers(self) -> Mapping[BackendKey, Checker]:
        """State per backend that is probed here."""
        return self._checkers

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self._prober, background_task(self._measure_load()):
            try:
                yield
            finally:
                for server in self._servers.values():
                    server.close()

    async def configure(self, config: Config, muxes: Iterable[Address]) -> None:
        """``config``: from ``own_backends``; ``muxes``: addresses that may connect.

        Raise SetupError if a port cannot be opened.
        """
        self._connections.allow(frozenset(muxes))
        if config.services and self._token is None and self.changed is None:
            log.warning("services with health by agents are not probed: --health-token is missing")
            return
        self._weighted = {
            (service.name, one.name): one
            for service in config.services for one in service.backends if isinstance(one.weight, AutoWeight)
        }  # fmt: skip
        known = {}
        for service in config.services:
            assert service.health is not None
            for backend in service.backends:
                key = service.name, backend.name
                known[key] = self._checkers.get(key) or Checker(1, 1, time.time())
                known[key].rise, known[key].fall = service.health.rise, service.health.fall
        self._checkers = known
        self._prober.configure(config)
        if self.changed is not None:
            self.changed()  # removed backends
        if self._token is not None:
            await self._listen({service.health.agent_port for service in config.services if service.health})

    def _is_settled(self, key: BackendKey) -> bool:
        return key not in self._checkers or self._checkers[key].was_probed

    async def _listen(self, ports: set[int]) -> None:
        for port in self._servers.keys() - ports:
            self._servers.pop(port).close()
        for port in ports - self._servers.keys():
            try:
                self._servers[port] = await asyncio.start_server(self._tell, None, port)
            except OSError as error:
                raise SetupError(
                    f"port {port}", error.strerror or str(error), "set another port with health.agent_port"
                ) from error

    def _on_result(self, key: BackendKey, healthy: bool, reason: str) -> None:
        checker = self._checkers.get(key)
        is_first = checker is not None and not checker.was_probed
        if checker is not None and (checker.record(healthy, reason, time.time()) or is_first):
            log.info("backend %s of service %s is %s: %s", key[1], key[0], "up" if healthy else "down", reason)
            self._send()

    async def _measure_load(self) -> None:
        """Report the load every LOAD_S seconds while weights follow it."""
        load_meter, due = LoadMeter(), 0.0
        while True:
            await asyncio.sleep(SAMPLE_S)
            if not self._weighted:
                continue
            try:
                await asyncio.to_thread(load_meter.sample, self._weighted)
                if time.monotonic() >= due:
                    loads, due = load_meter.take(), time.monotonic() + LOAD_S
                    self.loads = tuple((*key, *load) for key, load in loads.items() if self._is_up(key))
                    self._send()
            except (OSError, KeyError, ValueError) as error:
                log.warning("the load of this host cannot be measured: %s", error)
                await asyncio.sleep(REFUSED_AGAIN_S)

    def _is_up(self, key: BackendKey) -> bool:
        return key in self._checkers and self._checkers[key].was_probed and not self._checkers[key].is_down

    def _send(self) -> None:
        """Let muxes and the manager know at once."""
        for event in self._subscribers:
            event.set()
        if self.changed is not None:
            self.changed()

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer, changed = writer.get_extra_info("peername")[0], asyncio.Event()
        connection = self._connections.open(ip_address(peer), writer.transport.abort)
        if connection is None:
            self._refuse(peer, "it is not one of `muxes` in the configuration")
            writer.transport.abort()
            return
        try:
            assert self._token is not None  # without a token there is no server
            async with asyncio.timeout(OPENING_S):
                publisher = await HealthPublisher.opened(reader, writer, self._token)
            self._connections.authenticated(connection)
            self._subscribers.add(changed)
            sent = self.loads
            while True:
                changed.clear()
                loads = {"loads": self.loads} if self.loads is not sent else {}
                sent = self.loads
                states, connections = self._states(), self._connection_counts()
                await publisher.send({"backends": states, "connections": connections, **loads})
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), BEAT_S)
        except ChannelError as error:
            self._refuse(peer, str(error))
        except (OSError, TimeoutError):
            pass  # the mux disconnected, or did not authenticate in time
        finally:
            self._subscribers.discard(changed)
            self._connections.closed(connection)
            writer.close()

    def _refuse(self, peer: str, why: str) -> None:
        """Log a refusal once a minute per reason: a refused mux connects again every two seconds."""
        now = time.monotonic()
        if now - self._refused.get((peer, why), -float("inf")) > REFUSED_AGAIN_S:
            if len(self._refused) >= MOST_REFUSED:
                self._refused.clear()
            self._refused[peer, why] = now
            log.warning("mux %s gets no health states: %s", peer, why)

    def lines(self) -> list[tuple[str, str, bool, str]]:
        """Return the states of backends that have been probed: service, backend, whether it is up, and the reason."""
        return [
            (*key, checker.state == "up", checker.reason)
            for key, checker in self._checkers.items()
            if checker.was_probed
        ]

    def _connection_counts(self) -> dict[str, Any]:
        """The live connections of the last pass, and its age in seconds; empty if nothing was counted."""
        last = self.last_pass()
        if last is None:
            return {}
        return {
            "age_s": time.monotonic() - last.begun,
            "counts": [(*key, number) for key, number in last.counts.items()],
        }

    def _states(self) -> list[dict[str, Any]]:
        """Return the states of backends that have been probed."""
        return [dict(zip(("service", "backend", "up", "reason"), line, strict=True)) for line in self.lines()]
