"""`lbmux steer run`: probes PoPs, collects round trips, and publishes each new map by DNS, BGP and HAProxy's weights.

A map is computed when a PoP's health or a file changes, and at least every minute. While no map can be computed, or
gdnsd refuses it, the one in force stays. Weights are set every second, and routes every 30 s: a proxy or a mux that
restarts gets them again.

With a manager, each map first becomes a revision there. The loop publishes the manager's current map, which another
program may have applied. While no manager answers, the map in force stays.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from lbmux.addresses import Address
from lbmux.config.steering_models import Steering
from lbmux.errors import LbmuxError
from lbmux.health.checker import Checker
from lbmux.health.probe import Target, attempt
from lbmux.health.probe_kinds import KINDS
from lbmux.manager.map_revisions import MapRevision
from lbmux.plurals import counted
from lbmux.steering.inputs import load, read
from lbmux.steering.map_change import unusable
from lbmux.steering.steering_map import SteeringMap
from lbmux.steering.steering_map import read as read_map
from lbmux.steering.steering_plan import Plan, plan
from lbmux.tools.manager_maps import ManagerMaps
from lbmux.tools.pop_nodes import PopNodes
from lbmux.tools.pop_weights import PopWeights
from lbmux.tools.publish_dns import CURRENT, publish

log = logging.getLogger(__name__)
POLL_S, STEP_S, AT_LEAST_S = 0.2, 1.0, 60.0
"""How often files are looked at, how often weights are set, and how often a map is computed in any case."""


@dataclass(frozen=True)
class Server:
    """The directory of gdnsd's files, and the addresses and port it listens on."""

    directory: Path
    listen: tuple[Address, ...]
    port: int = 53


@dataclass
class SteerLoop:
    """``config``: steering.yaml; None: only publish the manager's maps. ``maps``: the manager's, if there is one.

    ``faults``: what is wrong at present with the map, or with a proxy; else empty.
    """

    config: Path | None
    server: Server
    maps: ManagerMaps | None = None
    in_force: SteeringMap | None = None
    faults: dict[str, str] = field(default_factory=dict)
    _number: int = 0
    _ask_at: float = 0.0
    _checkers: dict[str, Checker] = field(default_factory=dict)
    _probes: dict[tuple[str, Target], asyncio.Task[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._weights = PopWeights(self._said)
        self._nodes = PopNodes(self.maps.client if self.maps else None, self._said)

    async def run(self, stop: asyncio.Event, is_ready: asyncio.Event) -> None:
        """Steer until ``stop``; set ``is_ready`` once a map is in force."""
        current = self.server.directory / CURRENT / "map.json"
        self.in_force = read_map(current) if current.exists() else None
        tasks = [asyncio.create_task(self._repeat(step)) for step in (self._set_weights, self._visit_nodes)]
        try:
            seen: object = None
            while not stop.is_set():
                now = self._state(), await self._revision()
                if now != seen:
                    seen = now
                    await self._once()
                    if self.in_force is not None:
                        is_ready.set()
                await asyncio.sleep(POLL_S)
        finally:
            for task in (*tasks, *self._probes.values()):
                task.cancel()
            await asyncio.gather(*tasks, *self._probes.values(), return_exceptions=True)

    async def _revision(self) -> int:
        """Return the number of the manager's map, every second; while it does not answer, the last one."""
        if self.maps is not None and time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + STEP_S
            try:
                self._number = await asyncio.to_thread(self.maps.number)
                self._said("manager", "")
            except LbmuxError as error:
                self._said("manager", f"{error}: the map in force stays")
        return self._number

    def _state(self) -> object:
        """Everything that asks for a new map when it changes."""
        if self.config is None:
            return None
        files = self.config, *self.config.parent.glob("*.csv")
        times = tuple(path.stat().st_mtime_ns for path in files if path.exists())
        down = tuple(name for name, checker in self._checkers.items() if checker.is_down)
        seen = repr((self._weights.unreachable, self._weights.distances))
        return times, down, seen, time.monotonic() // AT_LEAST_S

    async def _once(self) -> None:
        """Compute the map, and publish it if it differs from the one in force."""
        try:
            if self.config is not None:
                self._probe(load(self.config))
            steering_map = await asyncio.to_thread(self._made if self.maps is None else self._agreed)
            if steering_map is not None and _differ(steering_map, self.in_force):
                number = await asyncio.to_thread(
                    publish, steering_map, self.server.directory, self.server.listen, self.server.port
                )
                self.in_force = steering_map
                log.info("map %d is in force: %s", number, counted(len(steering_map.groups), "group"))
            self._said("map", "")
        except LbmuxError as error:
            self._said("map", str(error))

    def _agreed(self) -> SteeringMap | None:
        """Return the manager's map, after the proposal of a better one."""
        assert self.maps is not None
        revision, current = self.maps.current() or (None, None)
        self._number = 0 if revision is None else revision.number
        if self.config is None or self._is_kept(revision, current):
            return current
        made = self._plan(current)
        if _differ(made.steering_map, current):
            self._number = self.maps.propose(made, self._number, "steer run").number
        return made.steering_map

    def _is_kept(self, revision: MapRevision | None, current: SteeringMap | None) -> bool:
        """Return whether the current map was restored by a rollback, and uses nothing that fails at present."""
        if revision is None or current is None or revision.restores is None:
            return False
        assert self.config is not None
        return not unusable(self._with_health(load(self.config)), current)

    def _made(self) -> SteeringMap:
        return self._plan(self.in_force).steering_map

    def _plan(self, present: SteeringMap | None) -> Plan:
        assert self.config is not None
        inputs = read(self.config, time.time())
        return plan(self._with_health(inputs.steering), inputs.groups, inputs.latency, present, inputs.now)

    def _with_health(self, steering: Steering) -> Steering:
        """Return the configuration with what the probes, and the proxies of PoPs, have seen."""
        pops = tuple(
            self._weights.measured(pop).model_copy(update={"healthy": pop.healthy and not self._is_down(pop.name)})
            for pop in steering.pops
        )
        return steering.model_copy(update={"pops": pops})

    def _is_down(self, pop: str) -> bool:
        checker = self._checkers.get(pop)
        return checker is not None and checker.is_down

    def _said(self, subject: str, fault: str) -> None:
        """Log a fault once, until it changes; one that several subjects have, such as that of the file, once in all."""
        if fault and fault not in self.faults.values():
            log.warning("%s", fault)
        self.faults[subject] = fault

    def _probe(self, steering: Steering) -> None:
        """Probe exactly the PoPs of the file; probes that stay the same continue."""
        wanted = dict[str, Target]()
        if (health := steering.health) is not None:
            wanted = {pop.name: Target(pop.addresses[0], health.port, health) for pop in steering.pops}
        for gone in self._probes.keys() - wanted.items():
            self._probes.pop(gone).cancel()
            self._checkers.pop(gone[0], None)
        for name, target in wanted.items() - self._probes.keys():
            self._checkers[name] = Checker(target.health.rise, target.health.fall, time.time())
            self._probes[name, target] = asyncio.create_task(self._probe_pop(name, target))

    async def _probe_pop(self, name: str, target: Target) -> None:
        while True:
            begun = time.monotonic()
            healthy, why = await attempt(KINDS[target.health.kind], target)
            checker = self._checkers[name]
            if checker.record(healthy, why, time.time()) and checker.was_probed:
                log.warning("PoP %s is %s: %s", name, checker.state, why)
            await asyncio.sleep(max(0.0, begun + target.health.interval_s - time.monotonic()))

    async def _repeat(self, step: Callable[[Steering, Path], Awaitable[None]]) -> None:
        """Do a step every second, with the present configuration."""
        while self.config is not None:
            begun = time.monotonic()
            try:
                await step(load(self.config), self.config.parent)
                self._said(step.__name__, "")
            except LbmuxError as error:
                self._said(step.__name__, str(error))
            await asyncio.sleep(max(0.0, begun + STEP_S - time.monotonic()))

    async def _set_weights(self, steering: Steering, relative_to: Path) -> None:
        if self.in_force is not None and any(self.in_force.fractions.values()):
            await self._weights.step(steering, self.in_force, relative_to)

    async def _visit_nodes(self, steering: Steering, relative_to: Path) -> None:
        await self._nodes.collect(steering, relative_to)
        if self.in_force is not None:
            await self._nodes.announce(steering, self.in_force, relative_to)


def _differ(one: SteeringMap, other: SteeringMap | None) -> bool:
    return other is None or one.to_json() != other.to_json()
