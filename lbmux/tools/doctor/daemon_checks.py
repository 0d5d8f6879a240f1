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
from lbmux.tools.doctor.route_checks import way
from lbmux.tools.doctor.situation import TIMEOUT_S, Situation

MOST_NAMED = 5


def answers(situation: Situation) -> Iterator[Finding]:
    """Whether the daemon of this role runs."""
    if not situation.has_daemon:
        if situation.guessed:
            yield unchecked("role", f"{situation.guessed}: taken for a {situation.role}", "name another one by --role")
        return
    try:
        runtime = ask(situation.control, "runtime", timeout_s=TIMEOUT_S)
    except ControlError as error:
        hint = f"start `lbmux {situation.role}`, or name its socket by --control"
        if situation.guessed:
            hint += f"; taken for a machine of the {situation.role}, since {situation.guessed} (else name its --role)"
        yield fault("daemon", str(error), hint)
        return
    if runtime["program"] != situation.role:
        yield fault("daemon", f"{situation.control} is the socket of the {runtime['program']}", "name another one")
    yield ok("daemon", f"{runtime['program']} on {runtime['interface']}, process {runtime['pid']}")


def driver(situation: Situation) -> Iterator[Finding]:
    """By the kernel's programs, or in user space, which is slower by a factor of ten."""
    if situation.runtime is None or not situation.has_daemon:
        return
    name, modes = situation.runtime["driver"], situation.runtime["modes"]
    if name == "xdp":
        yield ok("driver", f"the kernel's programs forward ({', '.join(f'{p} {m}' for p, m in modes.items())})")
        if situation.runtime.get("native_refused"):
            seen = f"XDP is generic, not native, and slower: {situation.runtime['native_refused']}"
            yield warning("XDP mode", seen, "a smaller MTU, or a driver that can; fine for a lab")
        if situation.runtime.get("pins_end_with"):
            seen = f"they end with {situation.runtime['pins_end_with']}: its /sys/fs/bpf is not the machine's own"
            yield warning("pins", seen, "nsenter --net=FILE, not ip netns exec; in a container mount the host's")
    else:
        hint = f"`lbmux {situation.role} --driver xdp` says why the kernel does not take them; fine for a lab"
        yield warning("driver", f"user space forwards ({name}), not the kernel's programs", hint)


def configuration(situation: Situation) -> Iterator[Finding]:
    """The file as it is now, which the next reload reads."""
    if situation.config_path is None:
        if not situation.has_daemon:
            yield warning("configuration", "no file to know VIPs and muxes from", "name it by -c")
        return
    try:
        config = load(situation.config_path)
    except ConfigError as error:
        for line in error.lines():
            yield fault("configuration", line, "correct the file: a restart would fail, and a reload is refused")
        return
    yield ok("configuration", f"{situation.config_path}: {counted(len(config.services), 'service')}")
    for service in config.services:
        if not any(backend.weight for backend in service.backends):
            hint = "give one of them a weight above 0, and `lbmux reload`"
            yield fault("weights", f"service {service.name}: no backend takes new flows, all of them are dropped", hint)


def health(situation: Situation) -> Iterator[Finding]:
    """What the mux's own probes say, and what was ordered."""
    unreachable = _unreachable({ip_address(line[end]) for line in situation.not_serving for end in ("dip", "host")})
    for line in situation.not_serving:
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
    return {end for end in ends if way(end) is None}


def in_force(situation: Situation) -> Iterator[Finding]:
    """What a mux has loaded against its file as it is now; what was ordered beside the file stays over a reload."""
    if situation.runtime is None or situation.config is None or situation.role != "mux":
        return
    loaded = Config.model_validate_json(ask(situation.control, "config", timeout_s=TIMEOUT_S))
    differ = changes(loaded, situation.config)
    if differ:
        seen = f"{situation.config_path} is not what was loaded: {'; '.join(differ[:MOST_NAMED])}"
        yield warning("in force", seen, f"`lbmux reload --control {situation.control}`")
    else:
        yield ok("in force", "the mux has loaded what its file says")
