"""Which of several muxes a Linux router sends a flow to: its own kernel is asked, which alone knows its seed.

By `ip route get`; the packet is taken to come in by the interface by which the router sends to the client.  IPv4 only:
what that says of IPv6 (Linux 6.18, hash policy 3) is not the way that packets then take.
"""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from lbmux.control.control_socket import ask
from lbmux.errors import SetupError
from lbmux.tools.explain import Explanation, Step
from lbmux.tools.packet import Packet

HERE = "."
"""In the place of a router's name: this network namespace."""


def with_router(explanation: Explanation, router: str, mux: Path | None) -> Explanation:
    """With a step more, the first after the packet; ``mux``: the control socket of the one that was asked, if any.

    ``router`` is the name of a network namespace (`ip netns`).  SetupError where there is none of that name.
    """
    step = _choice(router, explanation.packet)
    if mux is not None and "via" in step.data:
        is_ours = step.data["via"] in ask(mux, "runtime")["addresses"]
        said = "this mux" if is_ours else "not this mux: ask that one, too"
        step = replace(step, found=f"{step.found}: {said}", data=step.data | {"this_mux": is_ours})
    first, *others = explanation.steps
    return replace(explanation, steps=[first, step, *others])


def _choice(router: str, packet: Packet) -> Step:
    data: dict[str, Any] = {"router": router}
    if packet.vip.version == 6:
        return Step("router", f"{router} cannot be asked: `ip route get` does not tell the way of IPv6", data)
    try:
        back = _route(router, str(packet.source))["dev"]
        flow = ["ipproto", packet.protocol, "sport", str(packet.source_port), "dport", str(packet.port)]
        found = _route(router, str(packet.vip), "from", str(packet.source), "iif", back, *flow)
    except _NoRoute as error:
        return Step("router", f"{router} has no route: {error}", data)
    via = found.get("gateway") or found.get("via", {}).get("host") or str(packet.vip)
    data |= {"via": via, "interface": found["dev"]}
    return Step("router", f"{router} sends it by {found['dev']} to {via}", data)


class _NoRoute(Exception):
    """The kernel's reason."""


def _route(router: str, *arguments: str) -> dict[str, Any]:
    place = [] if router == HERE else ["-n", router]
    try:
        done = subprocess.run(
            ["ip", "-j", *place, "route", "get", *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise SetupError("`ip`", "there is no such command", "install iproute2") from error
    if "netns" in done.stderr or "network namespace" in done.stderr:
        raise SetupError(f"router {router}", "no such network namespace", "`ip netns` lists them")
    if done.returncode:
        raise _NoRoute(done.stderr.strip().rpartition(": ")[2])
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found
