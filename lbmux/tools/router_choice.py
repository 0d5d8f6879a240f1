"""Find out which of several muxes a Linux router sends a flow to.  Only a kernel can compute its hash.

A router on this machine is asked by `ip route get`; the packet is assumed to arrive on the interface that leads to the
client.  For IPv6 that answer is wrong: netlink hashes the flow, forwarding hashes the packet, and with hash policy 3
the two differ (Linux 6.18).  Then, and for a router elsewhere, a replica is asked (router_twin), which needs the seed.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lbmux.addresses import Address
from lbmux.api.channel import ControlTarget
from lbmux.api.control_client import ControlClient
from lbmux.api.requests import GetRuntime
from lbmux.errors import LbmuxError, SetupError
from lbmux.tools.explanation import Explanation, Step
from lbmux.tools.packet_text import ClientPacket
from lbmux.tools.router_twin import Hashing, choice

HERE = "."
"""A router's name that means this network namespace."""
HASHING = (
    "net/ipv4/fib_multipath_hash_seed", "net/ipv6/fib_multipath_hash_policy", "net/ipv6/fib_multipath_hash_fields",
)  # fmt: skip
"""A router's settings for IPv6, in the order of Hashing's fields.  The seed is shared by both families."""


def with_router(explanation: Explanation, router: str, mux: ControlTarget | None) -> Explanation:
    """Add a step with the choice of a router on this machine, after the packet.

    ``router``: the name of a network namespace (`ip netns`).  ``mux``: the mux that explained the
    packet, if any.  Raise SetupError if there is no such namespace.
    """
    return _with(explanation, _choice(router, explanation.packet), mux)


def with_seed(explanation: Explanation, seed: int, muxes: Sequence[Address], mux: ControlTarget | None) -> Explanation:
    """Add a step with the choice of a router elsewhere.  ``muxes``: its next hops to the VIP, in its route's order."""
    hashing = Hashing(seed)
    via = str(muxes[choice(explanation.packet, hashing, [1] * len(muxes))])
    how = f"seed {seed}, hash policy {hashing.policy}, fields {hashing.fields}"
    data = {"router": None, "seed": seed, "via": via, "muxes": [*map(str, muxes)]}
    return _with(explanation, Step("router", f"a Linux router with {how} sends it to {via}", data), mux)


def _with(explanation: Explanation, step: Step, mux: ControlTarget | None) -> Explanation:
    if mux is not None and "via" in step.data:
        is_ours = step.data["via"] in ControlClient(mux).ask(GetRuntime()).addresses
        note = "this mux" if is_ours else "not this mux: ask that one as well"
        step = replace(step, found=f"{step.found}: {note}", data=step.data | {"this_mux": is_ours})
    first, *others = explanation.steps
    return replace(explanation, steps=[first, step, *others])


def _choice(router: str, packet: ClientPacket) -> Step:
    data: dict[str, Any] = {"router": router}
    try:
        back = _route(router, str(packet.source))["dev"]
        arrival = ["from", str(packet.source), "iif", back]
        if packet.vip.version == 6:
            return _choice6(router, packet, _route(router, "fibmatch", str(packet.vip), *arrival))
        flow = ["ipproto", packet.protocol, "sport", str(packet.source_port), "dport", str(packet.port)]
        return _sends(router, packet, _route(router, str(packet.vip), *arrival, *flow))
    except _NoRouteError as error:
        return Step("router", f"{router} has no route: {error.why}", data)


def _choice6(router: str, packet: ClientPacket, route: dict[str, Any]) -> Step:
    """Return the next hop that a replica of the router chooses."""
    hops = _next_hops(router, route)
    if not hops:
        return _sends(router, packet, route)
    hashing = _hashing(router)
    if not hashing.seed:
        why = "its hash seed is random (net.ipv4.fib_multipath_hash_seed is 0), and netlink cannot tell IPv6's next hop"
        return Step("router", f"{router} cannot be asked: {why}", {"router": router})
    return _sends(router, packet, hops[choice(packet, hashing, [hop["weight"] for hop in hops])])


def _next_hops(router: str, route: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all next hops of a multipath route, in its order.  ``route`` may have any one of them."""
    table = ["table", route["table"]] if "table" in route else []
    routes = _ip(router, "-6", "route", "show", "exact", route["dst"], *table)
    (whole, *_) = [one for one in routes if one.get("metric") == route.get("metric")] or [route]
    return [hop for hop in whole.get("nexthops", ()) if not {"dead", "linkdown"} & set(hop["flags"])]


def _sends(router: str, packet: ClientPacket, hop: dict[str, Any]) -> Step:
    via = hop.get("gateway") or hop.get("via", {}).get("host") or str(packet.vip)
    data = {"router": router, "via": via, "interface": hop["dev"]}
    return Step("router", f"{router} sends it by {hop['dev']} to {via}", data)


def _hashing(router: str) -> Hashing:
    """Return the router's own settings; seed 0 if they cannot be read."""
    place = [] if router == HERE else ["ip", "netns", "exec", router]
    files = [f"/proc/sys/{name}" for name in HASHING]
    done = subprocess.run([*place, "cat", *files], capture_output=True, text=True, check=False)
    return Hashing(0) if done.returncode else Hashing(*map(int, done.stdout.split()))


class _NoRouteError(LbmuxError):
    """The kernel's reason."""

    why: str


def _route(router: str, *arguments: str) -> dict[str, Any]:
    (route,) = _ip(router, "route", "get", *arguments)
    return route


def _ip(router: str, *arguments: str) -> list[dict[str, Any]]:
    place = [] if router == HERE else ["-n", router]
    try:
        done = subprocess.run(["ip", "-j", *place, *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise SetupError("`ip`", "command not found", "install iproute2") from error
    if "netns" in done.stderr or "network namespace" in done.stderr:
        raise SetupError(f"router {router}", "no such network namespace", "`ip netns` lists them")
    if done.returncode:
        raise _NoRouteError(done.stderr.strip().rpartition(": ")[2])
    output: list[dict[str, Any]] = json.loads(done.stdout)
    return output
