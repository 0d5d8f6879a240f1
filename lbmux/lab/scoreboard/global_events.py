"""Events of facebook-global: data centres and PoPs that drain or fail, resolvers, and a release of the proxies."""

import signal
from dataclasses import replace
from typing import Any

from lbmux.api.requests import HoldRoutes
from lbmux.lab import processes
from lbmux.lab.lab import Lab
from lbmux.lab.scoreboard.event import Event
from lbmux.lab.scoreboard.global_state import (
    RESOLVERS,
    answer,
    at_authority,
    change_steering,
    home,
    pop_proxies,
    proxies,
    servers,
    worker,
)
from lbmux.lab.scoreboard.system_under_test import SystemUnderTest

CENTRE, POP, USERS = "dc1", "pop1", "users1"
"""The data centre and the PoP that events act on, and the users nearest to that PoP."""
STRETCHED_S = 600
"""How long a resolver that ignores TTLs keeps answers (Unbound's cache-min-ttl)."""


def _set(lab: Lab, kind: str, name: str, key: str, value: Any) -> None:
    def change(steering: dict[str, Any]) -> None:
        for one in steering[kind]:
            if one["name"] == name:
                one[key] = value

    change_steering(lab, change)


def _drain_centre(system: SystemUnderTest) -> None:
    """Drain, and wait until no proxy sends requests there."""
    _set(system.lab, "data_centres", CENTRE, "draining", True)
    apis = pop_proxies(system.lab)
    system.wait_for(lambda: all(servers(api)[CENTRE][1] == 0 for api in apis), f"drained {CENTRE}")


def _fill_centre(system: SystemUnderTest) -> None:
    _set(system.lab, "data_centres", CENTRE, "draining", False)


def _hold_pop(system: SystemUnderTest, held: bool) -> None:
    """Have the edges of a PoP, which other PoPs announce the same VIP beside, withdraw or announce it."""
    scenario = system.scenario
    in_pop = {host for backend, host in scenario.backends.items() if backend in scenario.pop}
    for edge in in_pop.intersection(scenario.forwarders):
        system.client(edge).ask(HoldRoutes(held))


def _drain_pop(system: SystemUnderTest) -> None:
    """Drain, and wait until the resolver of its users gives another address."""
    if not system.scenario.resolvers:
        _hold_pop(system, True)
        return
    _set(system.lab, "pops", POP, "healthy", False)
    own = home(system.lab, USERS).vips[0]
    system.wait_for(lambda: answer(system.lab, USERS, RESOLVERS[USERS]) not in ("", own), f"drained {POP}")


def _fill_pop(system: SystemUnderTest) -> None:
    if not system.scenario.resolvers:
        _hold_pop(system, False)
        return
    _set(system.lab, "pops", POP, "healthy", True)


def _stretch(system: SystemUnderTest) -> None:
    """Restart the users' resolver as one that stretches TTLs, have it ask, and drain the PoP that it keeps naming."""
    _restart_resolver(system, "--min-ttl", str(STRETCHED_S))
    own = home(system.lab, USERS).vips[0]
    system.wait_for(lambda: answer(system.lab, USERS, RESOLVERS[USERS]) == own, f"answers of {USERS}'s resolver")
    _set(system.lab, "pops", POP, "healthy", False)
    system.wait_for(lambda: at_authority(system.lab, USERS) not in ("", own), f"a map without {POP}")


def _unstretch(system: SystemUnderTest) -> None:
    _fill_pop(system)
    _restart_resolver(system)


def _restart_resolver(system: SystemUnderTest, *options: str) -> None:
    node = system.lab.topology.node(USERS)
    (program,) = node.programs
    processes.end([system.lab.process(USERS, program.name)])
    system.lab.start(node, replace(program, arguments=(*program.arguments, *options)))


def _release(system: SystemUnderTest) -> None:
    """Replace the PoP's proxies one after the other: a new process takes the sockets of each, by TCP and by QUIC."""
    for api in proxies(system.lab, POP):
        before, name = worker(api), api.name.removesuffix("-haproxy.sock")
        processes.kill(system.lab.process(name, "haproxy"), signal.SIGUSR2)
        system.wait_for(lambda: worker(api) not in (0, before), f"new process of {api.name}")  # noqa: B023 -- called within the turn
        node = system.lab.topology.node(name)
        system.lab.start(node, next(program for program in node.programs if program.name == "quic"))


def _lose_centre(system: SystemUnderTest) -> None:
    system.cut_link(CENTRE)


def _find_centre(system: SystemUnderTest) -> None:
    system.restore_link(CENTRE)


def _stay(system: SystemUnderTest) -> None:
    pass


GLOBAL_EVENTS = (
    Event("drain-dc", "a data centre drains: 10 % of the requests a second", _drain_centre, _fill_centre, True,
          takes_s=30.0),
    Event("lose-dc", "the backbone receives nothing from a data centre", _lose_centre, _find_centre, takes_s=20.0),
    Event("drain-pop", "a PoP drains: the map has no users for it, or its edges withdraw", _drain_pop, _fill_pop, True,
          takes_s=30.0),
    Event("resolver-ignores-ttl", "a PoP drains; a resolver keeps naming it for 600 s", _stretch, _unstretch, True,
          takes_s=30.0),
    Event("release-proxy", "new processes of a PoP's proxies take the sockets", _release, _stay, True, takes_s=20.0),
)  # fmt: skip
