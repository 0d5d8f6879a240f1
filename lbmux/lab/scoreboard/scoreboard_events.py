"""The events of experiments: what happens to a running system, and how it is undone.

Each event acts on the system's first forwarder (a mux or an edge) or on its first backend.  Two events joined by ``+``
happen immediately one after the other, as do more than two.
"""

import os
import signal
import time
from typing import Any

from lbmux.errors import LabError
from lbmux.lab.connections import Silence
from lbmux.lab.scoreboard.crowd import PACKETS as CLIENT_PACKETS
from lbmux.lab.scoreboard.crowd import crowd
from lbmux.lab.scoreboard.event import Action, Event, nothing
from lbmux.lab.scoreboard.flood import FLOOD_PER_S, KINDS, send, spoofed
from lbmux.lab.scoreboard.flood import SECONDS as FLOOD_S
from lbmux.lab.scoreboard.global_events import GLOBAL_EVENTS
from lbmux.lab.scoreboard.managed_events import MANAGED_EVENTS
from lbmux.lab.scoreboard.other_vip import OTHER_VIP
from lbmux.lab.scoreboard.scenarios import NEW_BACKEND
from lbmux.lab.scoreboard.system_under_test import SystemUnderTest
from lbmux.lab.topology import ECHO_PORT, SERVER_PORT
from lbmux.tables.flow_sweep import SWEEP_S

OTHER_SEED = 77
LEAST_CAPACITY_PPS = 300
AGENT_AWAY_S = 5.0
CLOCK_STEP_S = 3600
PATIENT_FALL = 100
"""Failed probes before a backend counts as down, for events that stop its agent for seconds."""
SHORT_IDLE = {"untrusted_s": 1, "tcp_s": 1, "fin_s": 1, "udp_s": 1}
SILENCE_S = 4.0
"""Several times longer than all idle times of muxes and agents."""
CHANGES, PAUSE_S = 3, 1.0
KNOWN_S, SETTLED_S = 0.5, SWEEP_S + 2.5
"""Seconds until all flows have entries on the CPU, and until a sweep after the idle time has seen the drained slots."""


def _signal(number: signal.Signals) -> Action:
    return lambda system: system.signal_forwarder(number)


def _drain(system: SystemUnderTest) -> None:
    system.override("drain")


def _enable(system: SystemUnderTest) -> None:
    system.override(None)


def _add(system: SystemUnderTest) -> None:
    system.change_backends(lambda backends: [*backends, NEW_BACKEND])


def _remove(system: SystemUnderTest) -> None:
    system.change_backends(lambda backends: backends[1:])


def _reweight(system: SystemUnderTest) -> None:
    system.change_backends(lambda backends: [backends[0] | {"weight": 3 * backends[0].get("weight", 1)}, *backends[1:]])


def _change_thrice(system: SystemUnderTest) -> None:
    """Add a backend, then give one backend after another three times the weight of the others."""
    for turn in range(CHANGES):
        system.change_backends(
            lambda backends: [
                backend | {"weight": 3 if at == turn else 1}  # noqa: B023 -- called within the turn
                for at, backend in enumerate([*(one for one in backends if one["name"] != "h3"), NEW_BACKEND])
            ]
        )
        time.sleep(PAUSE_S)


def _lose_pop(system: SystemUnderTest) -> None:
    system.cut_link("pop1")


def _find_pop(system: SystemUnderTest) -> None:
    system.restore_link("pop1")


def _add_service(system: SystemUnderTest) -> None:
    system.change(lambda config: config | {"services": [*config["services"], another(config["services"][0])]})


def another(service: dict[str, Any]) -> dict[str, Any]:
    """Return the same servers on the VIP's next port, without health checks, since the servers do not listen there."""
    kept = {name: value for name, value in service.items() if name != "health"}
    return kept | {"name": f"{service['name']}-too", "port": service["port"] + 1}


def _reseed_table(system: SystemUnderTest) -> None:
    system.change(lambda config: config | {"maglev": config.get("maglev", {}) | {"seed": OTHER_SEED}})


def _restore(system: SystemUnderTest) -> None:
    system.restore_config()


def _patient(config: dict[str, Any]) -> dict[str, Any]:
    """Probe settings that do not declare a host dead while its agent is down, or on a busy machine."""
    services = [_slowly_probed(one) for one in config["services"]]
    return config | {"services": services, "tunnel": config.get("tunnel", {}) | {"probes": False}}


def _probe_slowly(system: SystemUnderTest) -> None:
    system.change(_patient)


def _crash_agent(system: SystemUnderTest) -> None:
    _probe_slowly(system)
    system.signal_agent(signal.SIGKILL)
    time.sleep(AGENT_AWAY_S)
    system.start_agent()


def _kill_agent(system: SystemUnderTest) -> None:
    system.signal_agent(signal.SIGKILL)


def _step_clock(system: SystemUnderTest) -> None:
    system.step_clock(CLOCK_STEP_S)


def _right_clock(system: SystemUnderTest) -> None:
    system.step_clock(0)


def _slowly_probed(service: dict[str, Any]) -> dict[str, Any]:
    return service | {"health": service["health"] | {"fall": PATIENT_FALL}} if "health" in service else service


def _restart_agent(system: SystemUnderTest) -> None:
    _probe_slowly(system)
    system.signal_agent(signal.SIGTERM)
    system.start_agent()


def _flooding(kind: str) -> Action:
    def happen(system: SystemUnderTest) -> None:
        packets = spoofed(kind, OTHER_VIP, ECHO_PORT)
        _with_capacity(system)
        system.other_vip.send(lambda vip, port: send(packets, vip, FLOOD_S))

    return happen


def _with_capacity(system: SystemUnderTest) -> int:
    """Add the VIP that floods aim at, and state twice the usual load as the capacity, which is returned."""
    capacity = max(LEAST_CAPACITY_PPS, round(2 * system.usual_pps()))
    system.change(
        lambda config: (
            config | {"services": [*config["services"], *flooded(config["services"][0])], "capacity_pps": capacity}
        )
    )
    return capacity


def _gather(system: SystemUnderTest) -> None:
    """Send three times the capacity of all forwarders by real connections from many addresses."""
    per_s = 3 * _with_capacity(system) * len(system.scenario.forwarders) / CLIENT_PACKETS
    system.other_vip.crowd_addresses("add")
    system.other_vip.send(lambda vip, port: crowd(vip, port, per_s, FLOOD_S))


def _disperse(system: SystemUnderTest) -> None:
    system.other_vip.crowd_addresses("del")
    _restore(system)


def flooded(service: dict[str, Any]) -> list[dict[str, Any]]:
    """Return services for TCP and UDP at the VIP that floods aim at, with the same hosts' web servers."""
    kept = {name: value for name, value in service.items() if name != "health"}
    backends = [backend | {"port": SERVER_PORT} for backend in service["backends"]]
    common = kept | {"vip": OTHER_VIP, "backends": backends}
    return [common | {"name": f"flooded-{protocol}", "protocol": protocol} for protocol in ("tcp", "udp")]


def _move_irq(system: SystemUnderTest) -> None:
    """Drain a backend, and move all packets to another CPU once flows have been silent there for all idle times."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise LabError("", "move-irq needs two CPUs")
    _expire_soon(system)
    system.steer(cpus[0])
    time.sleep(KNOWN_S)
    _drain(system)
    time.sleep(SETTLED_S)
    system.steer(cpus[1])


def _stay_irq(system: SystemUnderTest) -> None:
    system.steer(None)
    _enable(system)
    _restore(system)


def _expire_soon(system: SystemUnderTest) -> None:
    """Raise ``fall``: connections of a backend that counts as dead are reset, which this event does not test."""
    system.change(lambda config: _patient(config) | {"idle": SHORT_IDLE})


EVENTS = {
    event.name: event
    for event in (
        Event("nothing", "for comparison", nothing, nothing, planned=True),
        Event("kill-mux", "kill -9", _signal(signal.SIGKILL), SystemUnderTest.start_forwarder),
        Event(
            "stop-mux",
            "SIGTERM: withdraw, keep forwarding, stop",
            _signal(signal.SIGTERM),
            SystemUnderTest.start_forwarder,
            True,
        ),
        Event("freeze-mux", "SIGSTOP", _signal(signal.SIGSTOP), _signal(signal.SIGCONT)),
        Event("lose-mux", "its whole machine fails", SystemUnderTest.lose_forwarder, SystemUnderTest.return_forwarder),
        Event("add-mux", "one more mux", SystemUnderTest.start_spare, SystemUnderTest.stop_spare, planned=True),
        Event(
            "cut-link", "the router receives nothing from it", SystemUnderTest.cut_link, SystemUnderTest.restore_link
        ),
        Event(
            "reseed-router",
            "a new ECMP hash seed: flows move to another mux",
            SystemUnderTest.reseed,
            SystemUnderTest.reseed,
            planned=True,
        ),
        Event("lose-pop", "the backbone receives nothing from the nearer PoP", _lose_pop, _find_pop),
        Event("kill-backend", "kill -9 of the server", SystemUnderTest.kill_server, SystemUnderTest.start_server),
        Event("kill-host", "the server's whole machine fails", SystemUnderTest.lose_host, SystemUnderTest.return_host),
        Event("kill-agent", "kill -9", _kill_agent, SystemUnderTest.start_agent),
        Event("freeze-agent", "SIGSTOP", SystemUnderTest.freeze_agent, SystemUnderTest.thaw_agent),
        Event("kill-speaker", "kill -9 of a mux's BGP speaker", SystemUnderTest.kill_speaker, nothing),
        Event("disk-full", "the disk with a mux's state", SystemUnderTest.fill_disk, SystemUnderTest.empty_disk, True),
        Event("step-clock", "the wall clock of a mux and an agent, by an hour", _step_clock, _right_clock, True),
        Event("restart-agent", "SIGTERM, then restart", _restart_agent, _restore),
        Event("crash-agent", "kill -9, restart after 5 s", _crash_agent, _restore),
        Event(
            "half-closed",
            "clients half-close; servers answer after all idle times",
            _expire_soon,
            _restore,
            silence=Silence("half-closed", SILENCE_S),
        ),
        Event(
            "idle-push",
            "silence; servers speak first, after all idle times",
            _expire_soon,
            _restore,
            silence=Silence("idle-push", SILENCE_S),
        ),
        Event(
            "idle-change",
            "silence; weights change meanwhile; servers speak first, after all idle times and two sweeps",
            _expire_soon,
            _restore,
            silence=Silence("idle-push", 2 * SWEEP_S + SILENCE_S),
            in_silence=_reweight,
            takes_s=2 * SWEEP_S + SILENCE_S,
        ),
        Event("drain-backend", "lbmux drain", _drain, _enable, planned=True),
        Event("add-backend", "one more backend in the file", _add, _restore, planned=True),
        Event("remove-backend", "one backend fewer in the file", _remove, _restore, planned=True),
        Event("reweight-backend", "three times the weight", _reweight, _restore, planned=True),
        Event(
            "three-changes",
            "three changes of weights, a second apart, and one more backend",
            _change_thrice,
            _restore,
            planned=True,
            takes_s=CHANGES * PAUSE_S,
        ),
        Event("reload", "a file with one more service", _add_service, _restore, planned=True),
        Event(
            "move-irq", "drain; after an idle time packets arrive on another CPU", _move_irq, _stay_irq, planned=True
        ),
        Event("flood-ack", "20,000 ACKs in 3 s that belong to no connection", SystemUnderTest.flood, nothing),
        *(
            Event(kind, f"{FLOOD_PER_S:,} packets a second for 3 s at another VIP", _flooding(kind), _restore)
            for kind in KINDS
        ),
        Event("flash-crowd", "three times the capacity, by real clients of another VIP, for 3 s", _gather, _disperse),
        *GLOBAL_EVENTS,
        *MANAGED_EVENTS,
        Event("reseed-table", "a new hash seed in the file: flows move to another slot", _reseed_table, _restore, True),
    )
}


def events_of(name: str) -> list[Event]:
    """Return the events of ``A``, ``A+B`` or more.  Raise LabError for an unknown name."""
    events = [EVENTS.get(part) for part in name.split("+")]
    if any(event is None for event in events):
        raise LabError("", f"no event {name!r}: use one of {', '.join(EVENTS)}, or several joined by +")
    return [event for event in events if event is not None]
