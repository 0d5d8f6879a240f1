"""Check the daemon and its configuration: the daemon answers, runs the wanted driver, and its file is valid."""

from collections.abc import Iterator
from ipaddress import ip_address

from lbmux.addresses import Address
from lbmux.api.channel import program_named
from lbmux.api.requests import GetConfig, GetHealth, GetRuntime
from lbmux.config.changes import changes
from lbmux.config.loader import load
from lbmux.config.models import Config
from lbmux.errors import ConfigError, ControlError
from lbmux.plurals import counted
from lbmux.tools.doctor.finding import Finding, fault, ok, unchecked, warning
from lbmux.tools.doctor.node_state import PROGRAMS, NodeState
from lbmux.tools.doctor.route_checks import route_to

MOST_NAMED = 5


def answers(node: NodeState) -> Iterator[Finding]:
    """Check that the daemon of this role answers on its control socket."""
    if not node.has_daemon:
        if node.guessed:
            yield unchecked(
                "role", f"{node.guessed}, so the role {node.role} is assumed", "set another role with --role"
            )
        return
    try:
        if node.role == "edge":
            yield ok("daemon", f"edge: {counted(len(node.client.whole(GetHealth()).health), 'backend')} on this host")
            return
        runtime = node.client.ask(GetRuntime())
    except ControlError as error:
        hint = f"start `lbmux {program_named(node.control) or PROGRAMS[node.role]}`, or give its socket with --control"
        if node.guessed:
            hint += f"; the role {node.role} is assumed because {node.guessed} (set another with --role)"
        yield fault("daemon", str(error), hint)
        return
    if runtime.program != PROGRAMS[node.role]:
        yield fault(
            "daemon", f"{node.control} is the socket of the {runtime.program}", "give another socket with --control"
        )
    yield ok("daemon", f"{runtime.program} on {runtime.interface}, process {runtime.pid}")


def driver(node: NodeState) -> Iterator[Finding]:
    """Check the driver.  Forwarding in user space is about ten times slower than in the kernel."""
    if node.runtime is None or not node.has_daemon:
        return
    name, modes = node.runtime.driver, node.runtime.modes
    if name == "xdp":
        yield ok("driver", f"kernel programs forward ({', '.join(f'{p} {m}' for p, m in modes.items())})")
        if node.runtime.native_refused:
            seen = f"XDP is generic, not native, and slower: {node.runtime.native_refused}"
            yield warning("XDP mode", seen, "lower the MTU, or use a network driver with native XDP; fine for a lab")
        if node.runtime.pins_end_with:
            seen = f"pins disappear with {node.runtime.pins_end_with}: its /sys/fs/bpf is not the host's"
            yield warning(
                "pins",
                seen,
                "use nsenter --net=FILE instead of ip netns exec; in a container mount the host's /sys/fs/bpf",
            )
    else:
        hint = f"`lbmux {PROGRAMS[node.role]} --driver xdp` reports why the kernel rejects its programs; fine for a lab"
        yield warning("driver", f"user space forwards ({name}), not the kernel", hint)


def configuration(node: NodeState) -> Iterator[Finding]:
    """Validate the file that the next reload reads."""
    if node.config_path is None:
        if not node.has_daemon:
            yield warning("configuration", "no file, so VIPs and muxes are unknown", "give the file with -c")
        return
    try:
        config = load(node.config_path)
    except ConfigError as error:
        for line in error.lines():
            yield fault("configuration", line, "correct the file: a reload is refused and a restart would fail")
        return
    yield ok("configuration", f"{node.config_path}: {counted(len(config.services), 'service')}")
    for service in config.services:
        if not any(backend.weight for backend in service.backends):
            hint = "set a weight above 0 for at least one backend, then run `lbmux reload`"
            yield fault(
                "weights", f"service {service.name}: no backend takes new flows, so new flows are dropped", hint
            )


def health(node: NodeState) -> Iterator[Finding]:
    """Report backends that are down by health checks, or out of service by command."""
    unreachable = _unreachable({ip_address(end) for line in node.not_serving for end in (line.dip, line.host)})
    for line in node.not_serving:
        name = f"{line.service}/{line.backend}"
        seen = f"{name} is {line.state}: {line.reason}"
        without_route = [end for end in (line.host, line.dip) if ip_address(end) in unreachable]
        if line.state == "down" and without_route:
            seen += f"; this mux has no route to {without_route[0]}"
            yield fault("health", seen, f"ip route add {without_route[0]} via ROUTER, on this mux")
        elif line.state == "down":
            yield fault("health", seen, "check the server and its host's agent: the backend returns when they answer")
        else:
            yield warning("health", seen, f"run `lbmux enable {line.backend}` to return it to service")


def _unreachable(ends: set[Address]) -> set[Address]:
    """Return the addresses that this machine has no route to."""
    return {end for end in ends if route_to(end) is None}


def in_force(node: NodeState) -> Iterator[Finding]:
    """Compare the configuration that the mux runs with its file.  Operator overrides are not compared."""
    if node.runtime is None or node.config is None or node.role != "mux":
        return
    loaded = Config.model_validate_json(node.client.ask(GetConfig()))
    differ = changes(loaded, node.config)
    if differ:
        seen = f"{node.config_path} differs from the running configuration: {'; '.join(differ[:MOST_NAMED])}"
        yield warning("in force", seen, f"run `lbmux reload --control {node.control}`")
    else:
        yield ok("in force", "the running configuration matches the file")
