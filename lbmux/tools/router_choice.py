"""Which of several muxes a Linux router sends a flow to: a kernel is asked, since it alone knows its hash.

Of a router on this machine its own, by `ip route get`; the packet is taken to come in by the interface by which the
router sends to the client.  Of IPv6 that tells nothing: netlink's answer is hashed from a flow, a packet's way from the
packet, and with hash policy 3 the two differ (Linux 6.18).  So a twin of the router is asked (router_twin), which needs
its seed, as it is for a router that is not here.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lbmux.addresses import Address
from lbmux.api.control_socket import ask
from lbmux.errors import LbmuxError, SetupError
from lbmux.tools.explain_mux import Explanation, Step
from lbmux.tools.packet_text import Packet
from lbmux.tools.router_twin import Hashing, choice

HERE = "."
"""In the place of a router's name: this network namespace."""
HASHING = (
    "net/ipv4/fib_multipath_hash_seed", "net/ipv6/fib_multipath_hash_policy", "net/ipv6/fib_multipath_hash_fields",
)  # fmt: skip
"""A router's settings for IPv6, as Hashing has them; the seed is that of both families."""


def with_router(explanation: Explanation, router: str, mux: Path | None) -> Explanation:
    """With a step more, the first after the packet; ``mux``: the control socket of the one that was asked, if any.

    ``router`` is the name of a network namespace (`ip netns`).  SetupError where there is none of that name.
    """
    return _with(explanation, _choice(router, explanation.packet), mux)


def with_seed(explanation: Explanation, seed: int, muxes: Sequence[Address], mux: Path | None) -> Explanation:
    """The same for a router that is not here, of this seed; ``muxes``: its ways to the VIP, in its route's order."""
    hashing = Hashing(seed)
    via = str(muxes[choice(explanation.packet, hashing, [1] * len(muxes))])
    how = f"seed {seed}, hash policy {hashing.policy}, fields {hashing.fields}"
    data = {"router": None, "seed": seed, "via": via, "muxes": [*map(str, muxes)]}
    return _with(explanation, Step("router", f"a Linux router with {how} sends it to {via}", data), mux)


def _with(explanation: Explanation, step: Step, mux: Path | None) -> Explanation:
    if mux is not None and "via" in step.data:
        is_ours = step.data["via"] in ask(mux, "runtime")["addresses"]
        said = "this mux" if is_ours else "not this mux: ask that one, too"
        step = replace(step, found=f"{step.found}: {said}", data=step.data | {"this_mux": is_ours})
    first, *others = explanation.steps
    return replace(explanation, steps=[first, step, *others])


def _choice(router: str, packet: Packet) -> Step:
    data: dict[str, Any] = {"router": router}
    try:
        back = _route(router, str(packet.source))["dev"]
        way = ["from", str(packet.source), "iif", back]
        if packet.vip.version == 6:
            return _choice6(router, packet, _route(router, "fibmatch", str(packet.vip), *way))
        flow = ["ipproto", packet.protocol, "sport", str(packet.source_port), "dport", str(packet.port)]
        return _sends(router, packet, _route(router, str(packet.vip), *way, *flow))
    except _NoRouteError as error:
        return Step("router", f"{router} has no route: {error.why}", data)


def _choice6(router: str, packet: Packet, route: dict[str, Any]) -> Step:
    """One of the route's ways: its twin's choice."""
    ways = _ways(router, route)
    if not ways:
        return _sends(router, packet, route)
    hashing = _hashing(router)
    if not hashing.seed:
        why = "its seed is its own secret (net.ipv4.fib_multipath_hash_seed), and netlink does not tell the way of IPv6"
        return Step("router", f"{router} cannot be asked: {why}", {"router": router})
    return _sends(router, packet, ways[choice(packet, hashing, [way["weight"] for way in ways])])


def _ways(router: str, route: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that lie beside one another, in their order: the route that was found begins with any of them."""
    table = ["table", route["table"]] if "table" in route else []
    shown = _ip(router, "-6", "route", "show", "exact", route["dst"], *table)
    (whole, *_) = [one for one in shown if one.get("metric") == route.get("metric")] or [route]
    return [way for way in whole.get("nexthops", ()) if not {"dead", "linkdown"} & set(way["flags"])]


def _sends(router: str, packet: Packet, way: dict[str, Any]) -> Step:
    via = way.get("gateway") or way.get("via", {}).get("host") or str(packet.vip)
    data = {"router": router, "via": via, "interface": way["dev"]}
    return Step("router", f"{router} sends it by {way['dev']} to {via}", data)


def _hashing(router: str) -> Hashing:
    """The router's own; seed 0 where nobody knows it."""
    place = [] if router == HERE else ["ip", "netns", "exec", router]
    files = [f"/proc/sys/{name}" for name in HASHING]
    done = subprocess.run([*place, "cat", *files], capture_output=True, text=True, check=False)
    return Hashing(0) if done.returncode else Hashing(*map(int, done.stdout.split()))


class _NoRouteError(LbmuxError):
    """The kernel's reason."""

    why: str


def _route(router: str, *arguments: str) -> dict[str, Any]:
    (found,) = _ip(router, "route", "get", *arguments)
    return found


def _ip(router: str, *arguments: str) -> list[dict[str, Any]]:
    place = [] if router == HERE else ["-n", router]
    try:
        done = subprocess.run(["ip", "-j", *place, *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise SetupError("`ip`", "there is no such command", "install iproute2") from error
    if "netns" in done.stderr or "network namespace" in done.stderr:
        raise SetupError(f"router {router}", "no such network namespace", "`ip netns` lists them")
    if done.returncode:
        raise _NoRouteError(done.stderr.strip().rpartition(": ")[2])
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
