"""Checks of the daemon and its configuration: it answers, has the driver asked for, and the file is usable."""

from collections.abc import Iterator
from ipaddress import ip_address

from lbmux.addresses import Address
from lbmux.api.control_socket import ask
from lbmux.config.changes import changes
from lbmux.config.loader import load
from lbmux.config.models import Config
from lbmux.errors import ConfigError, ControlError
from lbmux.plurals import counted
from lbmux.tools.doctor.finding import Finding, fault, ok, unchecked, warning
from lbmux.tools.doctor.node_state import TIMEOUT_S, NodeState
from lbmux.tools.doctor.route_checks import route_to

MOST_NAMED = 5


def answers(node: NodeState) -> Iterator[Finding]:
    """Whether the daemon of this role runs."""
    if not node.has_daemon:
        if node.guessed:
            yield unchecked("role", f"{node.guessed}: taken for a {node.role}", "name another one by --role")
        return
    try:
        runtime = ask(node.control, "runtime", timeout_s=TIMEOUT_S)
    except ControlError as error:
        hint = f"start `lbmux {node.role}`, or name its socket by --control"
        if node.guessed:
            hint += f"; taken for a machine of the {node.role}, since {node.guessed} (else name its --role)"
        yield fault("daemon", str(error), hint)
        return
    if runtime["program"] != node.role:
        yield fault("daemon", f"{node.control} is the socket of the {runtime['program']}", "name another one")
    yield ok("daemon", f"{runtime['program']} on {runtime['interface']}, process {runtime['pid']}")


def driver(node: NodeState) -> Iterator[Finding]:
    """By the kernel's programs, or in user space, which is slower by a factor of ten."""
    if node.runtime is None or not node.has_daemon:
        return
    name, modes = node.runtime["driver"], node.runtime["modes"]
    if name == "xdp":
        yield ok("driver", f"the kernel's programs forward ({', '.join(f'{p} {m}' for p, m in modes.items())})")
        if node.runtime.get("native_refused"):
            seen = f"XDP is generic, not native, and slower: {node.runtime['native_refused']}"
            yield warning("XDP mode", seen, "a smaller MTU, or a driver that can; fine for a lab")
        if node.runtime.get("pins_end_with"):
            seen = f"they end with {node.runtime['pins_end_with']}: its /sys/fs/bpf is not the machine's own"
            yield warning("pins", seen, "nsenter --net=FILE, not ip netns exec; in a container mount the host's")
    else:
        hint = f"`lbmux {node.role} --driver xdp` says why the kernel does not take them; fine for a lab"
        yield warning("driver", f"user space forwards ({name}), not the kernel's programs", hint)


def configuration(node: NodeState) -> Iterator[Finding]:
    """The file as it is now, which the next reload reads."""
    if node.config_path is None:
        if not node.has_daemon:
            yield warning("configuration", "no file to know VIPs and muxes from", "name it by -c")
        return
    try:
        config = load(node.config_path)
    except ConfigError as error:
        for line in error.lines():
            yield fault("configuration", line, "correct the file: a restart would fail, and a reload is refused")
        return
    yield ok("configuration", f"{node.config_path}: {counted(len(config.services), 'service')}")
    for service in config.services:
        if not any(backend.weight for backend in service.backends):
            hint = "give one of them a weight above 0, and `lbmux reload`"
            yield fault("weights", f"service {service.name}: no backend takes new flows, all of them are dropped", hint)


def health(node: NodeState) -> Iterator[Finding]:
    """What the mux's own probes say, and what was ordered."""
    unreachable = _unreachable({ip_address(line[end]) for line in node.not_serving for end in ("dip", "host")})
    for line in node.not_serving:
        name = f"{line['service']}/{line['backend']}"
        seen = f"{name} is {line['state']}: {line['reason']}"
        without_route = [end for end in (line["host"], line["dip"]) if ip_address(end) in unreachable]
        if line["state"] == "down" and without_route:
            seen += f"; this mux has no route to {without_route[0]}"
            yield fault("health", seen, f"ip route add {without_route[0]} via the router, on this mux")
        elif line["state"] == "down":
            yield fault("health", seen, "look at the server: the mux's probes bring it back when it answers")
        else:
            yield warning("health", seen, f"`lbmux enable {line['backend']}`, if it is to serve")


def _unreachable(ends: set[Address]) -> set[Address]:
    """Those that this machine has no route to: of them no server can be asked."""
    return {end for end in ends if route_to(end) is None}


def in_force(node: NodeState) -> Iterator[Finding]:
    """What a mux has loaded against its file as it is now; what was ordered beside the file stays over a reload."""
    if node.runtime is None or node.config is None or node.role != "mux":
        return
    loaded = Config.model_validate_json(ask(node.control, "config", timeout_s=TIMEOUT_S))
    differ = changes(loaded, node.config)
    if differ:
        seen = f"{node.config_path} is not what was loaded: {'; '.join(differ[:MOST_NAMED])}"
        yield warning("in force", seen, f"`lbmux reload --control {node.control}`")
    else:
        yield ok("in force", "the mux has loaded what its file says")
