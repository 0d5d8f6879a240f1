"""A topology whose muxes and agents follow managers: nodes manager1 to managerN behind the router, and their store.

One manager has an SQLite store. Several managers have an etcd cluster: each runs beside a member and uses it alone, so
both are lost together. All files of the pool are below {state}/pool: each node's certificate in a directory of its
name, the admin's token in `token`, and in `env` the variables with which commands in a node reach the managers.
"""

from dataclasses import replace
from typing import Any

from lbmux.errors import LabError
from lbmux.lab.topology import WIRE, Link, Node, Port, Program, Route, Topology

MOST_MANAGERS = 9
RUNNER, POOL = "lbmux.lab.pool_member", "{state}/pool"
HEALTH = {"kind": "tcp", "by": "agent", "interval_s": 0.2, "timeout_s": 0.2, "rise": 1, "fall": 2}


def manager_address(number: int) -> str:
    return f"10.2.{number}.2"


def manager_url(number: int) -> str:
    return f"https://{manager_address(number)}:7443"


def with_managers(topology: Topology, count: int) -> Topology:
    """Return the topology with ``count`` managers, which its muxes and agents follow; raise LabError."""
    if not 1 <= count <= MOST_MANAGERS or count == 2:
        raise LabError("", f"{count} managers: give 1, or 3 to {MOST_MANAGERS}, of which a majority must be alive")
    numbers = range(1, count + 1)
    followers = [node.name for node in topology.nodes if node.role in ("mux", "host")]
    nodes = [_following(node, count) for node in topology.nodes]
    nodes += [_manager(number, count, followers) for number in numbers]
    links = [*topology.links, *(_link(number) for number in numbers)]
    services = [one | {"health": HEALTH} for one in topology.config["services"]]
    config: dict[str, Any] = topology.config | {"services": services}
    return replace(topology, nodes=tuple(nodes), links=tuple(links), config=config)


def _link(number: int) -> Link:
    name = f"manager{number}"
    router = Port("router", f"to-{name}", f"10.2.{number}.1/24", WIRE)
    return Link(router, Port(name, "eth0", f"{manager_address(number)}/24"))


def _manager(number: int, count: int, followers: list[str]) -> Node:
    programs = [_manager_program(number, count, followers)]
    if count > 1:
        members = [f"manager{n}=http://{manager_address(n)}:2380" for n in range(1, count + 1)]
        arguments = ("etcd", f"manager{number}", manager_address(number), f"{POOL}/etcd{number}", ",".join(members))
        programs.append(Program(f"etcd{number}", RUNNER, arguments, ready=False))
    routes = (Route("default", (f"10.2.{number}.1",)),)
    return Node(f"manager{number}", "manager", routes=routes, programs=tuple(programs))


def _manager_program(number: int, count: int, followers: list[str]) -> Program:
    store = f"{POOL}/store" if count == 1 else "etcd://127.0.0.1:2379"
    run = (
        "manager", "--store", store, "--state", f"{POOL}/manager{number}", "--listen", "0.0.0.0:7443",
        "--advertise", manager_url(number),
    )  # fmt: skip
    if number > 1:
        return Program("manager", RUNNER, ("later", f"{POOL}/manager{number}", *run))
    addresses = ",".join(manager_address(n) for n in range(1, count + 1))
    return Program("manager", RUNNER, ("first", POOL, "{config}", store, addresses, ",".join(followers), *run))


def _following(node: Node, count: int) -> Node:
    return replace(node, programs=tuple(_follower(program, count) for program in node.programs))


def _follower(program: Program, count: int) -> Program:
    if program.name not in ("mux", "agent"):
        return program
    at = program.arguments.index("-c")
    urls = [text for number in range(1, count + 1) for text in ("--manager", manager_url(number))]
    own = [*program.arguments[:at], *urls, "--state", f"{POOL}/{{node}}", *program.arguments[at + 2 :]]
    own += ["--health-token", f"{POOL}/health.token"]
    return replace(program, module=RUNNER, arguments=("later", f"{POOL}/{{node}}", *own))
