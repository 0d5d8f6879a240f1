"""Moves each PoP's fractions to those of the map, at its HAProxies, and keeps what these find about data centres.

A data centre that is down at all proxies of a PoP is unreachable from there. Its distance is the shortest of their
recent health checks: others waited for a busy machine.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from lbmux.config.steering_models import Pop, Steering
from lbmux.errors import LbmuxError
from lbmux.steering.fractions import distances, next_fractions
from lbmux.steering.steering_map import SteeringMap
from lbmux.tools.haproxy_weights import ServerState, set_weights

States = Mapping[str, ServerState]
RISE = 1.01
"""How much a kept round-trip time may rise in a step."""


class PopWeights:
    """``said``: gets what is wrong with a proxy, or an empty text."""

    def __init__(self, said: Callable[[str, str], None]) -> None:
        self._said = said
        self.unreachable: dict[str, tuple[str, ...]] = {}
        """The data centres that are down at all proxies of a PoP, by PoP."""
        self.distances: dict[str, list[int]] = {}
        """The distances of data centres, by PoP (lbmux.steering.fractions)."""
        self._fractions: dict[str, Mapping[str, float]] = {}
        self._rtt_ms: dict[str, dict[str, float]] = {}

    def measured(self, pop: Pop) -> Pop:
        """Return the PoP with what its proxies know of data centres."""
        down = (*pop.unreachable, *self.unreachable.get(pop.name, ()))
        return pop.model_copy(update={"rtt_ms": {**pop.rtt_ms, **self._rtt_ms.get(pop.name, {})}, "unreachable": down})

    async def step(self, steering: Steering, in_force: SteeringMap, relative_to: Path) -> None:
        """Move all PoPs a second's step towards the map, and set the weights at their proxies."""
        for pop in steering.pops:
            wanted = in_force.fractions.get(pop.name, {})
            dead = in_force.dead | {name for name in self.unreachable.get(pop.name, ()) if not wanted.get(name)}
            now = next_fractions(self._fractions.get(pop.name, wanted), wanted, dead) if wanted else wanted
            self._fractions[pop.name] = now
            self._keep(pop.name, [await self._set(api, steering, now, relative_to) for api in pop.proxies])
            self.distances[pop.name] = distances(self.measured(pop), steering.data_centres, steering.near_ms)

    async def _set(self, api: str, steering: Steering, now: Mapping[str, float], relative_to: Path) -> States:
        try:
            states = await set_weights(api, steering.proxy_backend, now, relative_to)
            self._said(api, "")
        except LbmuxError as error:
            self._said(api, str(error))
            return {}
        return {name: one for name, one in states.items() if name in now}

    def _keep(self, pop: str, found: list[States]) -> None:
        every = [(name, one) for states in found for name, one in states.items()]
        up = {name for name, one in every if one.is_up}
        self.unreachable[pop] = tuple(sorted({name for name, _ in every} - up))
        kept = self._rtt_ms.setdefault(pop, {})
        for name in up:
            times_ms = [one.rtt_ms for other, one in every if other == name and one.is_up and one.rtt_ms]
            if times_ms:
                kept[name] = min(*times_ms, kept.get(name, times_ms[0]) * RISE)
