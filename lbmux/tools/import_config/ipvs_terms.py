"""IPVS's schedulers, forwarding methods and persistence in lbmux's terms; Seesaw and keepalived use IPVS too.

Source: ipvsadm(8).
"""

from typing import Any

from lbmux.errors import Problem
from lbmux.tools.import_config.entries import Block, plain_number

BY_LOAD = "lbmux spreads new flows by hash and weight, not by the number of connections"
NO_FIREWALL_MARKS = "lbmux has no firewall marks: write a service for each VIP, protocol and port"
METHODS = {
    "dr": "direct", "dsr": "direct", "gatewaying": "direct", "tun": "ipip", "ipip": "ipip", "nat": "ipip",
    "masquerading": "ipip",
}  # fmt: skip
"""Encapsulation by forwarding method. With NAT, the host's agent translates."""
FOR_NAT = "hosts reply directly: run `lbmux agent` in nat mode on each"
BY_SOURCE = ("sh", "mh", "dh")
WEIGHTED = ("wrr", "wlc", "sed", "sh", "mh")
ONE_CHECK = "lbmux has one health check for a service; this one was not imported"
MOST_TIMEOUT_S, MOST_INTERVAL_S = 60, 3600


def hash_of(scheduler: str, line: int, field: str, left: list[Problem]) -> dict[str, str]:
    """Return the service's `hash` for a scheduler, if it is not the default."""
    if scheduler == "dh":
        left.append(Problem(line, field, "dh: lbmux has no hash of the destination alone; sources are hashed"))
    elif scheduler not in ("rr", "wrr", *BY_SOURCE):
        left.append(Problem(line, field, f"{scheduler}: {BY_LOAD}"))
    return {"hash": "source"} if scheduler in BY_SOURCE else {}


def persistence(line: int, field: str, left: list[Problem]) -> dict[str, str]:
    """Return the service's `hash` for persistence: a source stays with its backend while the backends stay."""
    left.append(Problem(line, field, "imported as `hash: source`: no timeout; a source moves if its backend goes"))
    return {"hash": "source"}


def tunnel_of(method: str, line: int, field: str, left: list[Problem]) -> dict[str, str]:
    """Return the `tunnel` for a forwarding method."""
    if method.lower() not in METHODS:
        left.append(Problem(line, field, f"{method} is not a forwarding method that lbmux knows"))
        return {}
    if method.lower() in ("nat", "masquerading"):
        left.append(Problem(line, field, f"NAT: {FOR_NAT}"))
    return {"tunnel": METHODS[method.lower()]}


def health_of(
    check: Block, kind: str, interval_s: float, timeout_s: float, retries: float, **more: Any
) -> dict[str, Any]:
    """Return a service's `health`. One success brings a backend back, as in Seesaw and keepalived."""
    most_s = min(interval_s, MOST_TIMEOUT_S)
    if timeout_s > most_s:
        check.remark("timeout", f"lowered to {plain_number(most_s)} s: the interval, or lbmux's limit")
    health = {
        "kind": kind, "interval_s": plain_number(min(interval_s, MOST_INTERVAL_S)),
        "timeout_s": plain_number(min(timeout_s, most_s)), "rise": 1, "fall": int(retries) + 1,
    }  # fmt: skip
    return health | {key: value for key, value in more.items() if value}
