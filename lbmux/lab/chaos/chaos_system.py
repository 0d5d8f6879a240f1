"""The systems of chaos: those of the scoreboard, with programs whose disk and wall clock can fail.

Each mux has a small disk for its state, and each mux and agent a wall clock of its own.  The second mux is in a time
namespace whose clocks since boot are 100 days ahead.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lbmux.lab.scoreboard.scenarios import SCENARIOS, Scenario
from lbmux.lab.topology import Node, Program, Topology

SYSTEMS = ("ananta", "maglev")
"""Systems with muxes and agents in which the server that answers is the backend."""
RUNNER = "lbmux.lab.altered_program"
BOOT_OFFSET_S = 100 * 86400
HEALTH = {"interval_s": 0.5, "timeout_s": 0.5, "fall": 4}
"""Probes that do not declare a backend dead because the machine is busy."""


def chaos_scenario(name: str) -> Scenario:
    scenario = SCENARIOS[name]
    return replace(scenario, topology=_altered(scenario.topology, scenario.forwarders[1]))


def _altered(topology: Callable[[], Topology], elsewhen: str) -> Callable[[], Topology]:
    def made() -> Topology:
        plain = topology()
        nodes = tuple(_node(node, node.name == elsewhen) for node in plain.nodes)
        services = [_patient(service) for service in plain.config["services"]]
        return replace(plain, name=f"{plain.name}-chaos", nodes=nodes, config=plain.config | {"services": services})

    return made


def _patient(service: dict[str, Any]) -> dict[str, Any]:
    return service | {"health": service["health"] | HEALTH} if "health" in service else service


def _node(node: Node, elsewhen: bool) -> Node:
    return replace(node, programs=tuple(_program(program, elsewhen) for program in node.programs))


def _program(program: Program, elsewhen: bool) -> Program:
    if program.name not in ("mux", "agent"):
        return program
    options: tuple[str, ...] = ("--clock", "{state}/{node}.clock")
    arguments = program.arguments
    if program.name == "mux":
        options += ("--disk", "{state}/{node}")
        arguments = tuple("{state}/{node}/mux.sock" if one == "{state}/{node}.sock" else one for one in arguments)
    if elsewhen:
        options += ("--boot-offset", str(BOOT_OFFSET_S))
    return replace(program, module=RUNNER, arguments=(*options, *arguments))
