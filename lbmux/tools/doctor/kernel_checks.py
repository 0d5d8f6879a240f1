"""Checks of the kernel's settings and counters: forwarding, reverse path filter, ECMP hash, checksums, clock.

All are read of the namespace that the doctor runs in.
"""

import ctypes
from collections.abc import Iterator
from pathlib import Path

from lbmux.tools.doctor.finding import Finding, fault, ok, warning
from lbmux.tools.doctor.node_state import NodeState

SYSCTLS = Path("/proc/sys")
NET_SNMP = Path("/proc/thread-self/net/snmp")
TIME_ERROR = 5
TIMEX_BYTES = 256
STRICT, LOOSE = 1, 2
SOURCE_PORT = 0x10  # of fib_multipath_hash_fields, ip-sysctl.rst
FIVE_TUPLE, CUSTOM = 1, 3
FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


def versions(node: NodeState) -> list[int]:
    """Of IP, that the VIPs have; IPv4 where no configuration says."""
    return sorted({vip.version for vip in node.vips}) or [4]


def sysctl(name: str) -> str | None:
    """A setting's value; None where this kernel has no such setting.  ``name`` has slashes: interfaces have dots."""
    try:
        return (SYSCTLS / name).read_text().strip()
    except OSError:
        return None


def number(name: str) -> int:
    return int(sysctl(name) or 0)


def forwarding(node: NodeState) -> Iterator[Finding]:
    """A router must forward; a mux must not, unless its filter keeps VIPs from the kernel, which sends them back."""
    host = (node.runtime or {}).get("host_forwarding", {})
    for version in versions(node):
        name = FORWARDING[version]
        is_on, said = bool(number(name)), name.replace("/", ".")
        if node.role == "router" and not is_on:
            seen = f"{said} is 0: this router forwards nothing of IPv{version}"
            yield fault("forwarding", seen, f"sysctl {said}=1")
        elif node.role == "mux" and is_on and host.get("vips_filtered"):
            yield ok("forwarding", f"{said} is 1, but the mux keeps VIPs from it ({host['dropped']} frames so far)")
        elif node.role == "mux" and is_on:
            reason = f" ({host['reason']})" if host.get("reason") else ""
            seen = f"{said} is 1: the kernel sends what goes to VIPs back to the router, round and round{reason}"
            yield warning("forwarding", seen, f"sysctl {said}=0")
        else:
            yield ok("forwarding", f"{said} is {int(is_on)}")


def reverse_path(node: NodeState) -> Iterator[Finding]:
    """Replies have the VIP as their source, and the way to the VIP is by the muxes: strict filters drop them."""
    everywhere = number("net/ipv4/conf/all/rp_filter")
    modes = {
        path.parent.name: max(everywhere, int(path.read_text()))  # ip-sysctl.rst: the larger of the two holds
        for path in sorted((SYSCTLS / "net/ipv4/conf").glob("*/rp_filter"))
        if path.parent.name not in ("all", "default", "lo")
    }
    strict = [name for name, mode in modes.items() if mode == STRICT]
    if not strict:
        yield ok("rp_filter", "strict on no interface")
        return
    seen = f"rp_filter is strict on {', '.join(strict)}"
    hint = f"sysctl net.ipv4.conf.{strict[0]}.rp_filter={LOOSE}, and so in net.ipv4.conf.all"
    if node.role == "router":
        yield fault("rp_filter", f"{seen}: replies of the VIP come from where no route to it leads: dropped", hint)
    else:
        yield warning("rp_filter", f"{seen}: packets that come another way than they go are dropped", hint)


def multipath_hash(node: NodeState) -> Iterator[Finding]:
    """A router that looks at addresses only sends a client's flows to one mux, and errors about them to another."""
    for version in versions(node):
        family = f"net.ipv{version}"
        policy = number(f"{family.replace('.', '/')}/fib_multipath_hash_policy")
        fields = number(f"{family.replace('.', '/')}/fib_multipath_hash_fields")
        said = f"{family}.fib_multipath_hash_policy is {policy}"
        if policy == FIVE_TUPLE or (policy == CUSTOM and fields & SOURCE_PORT):
            yield ok("hash policy", f"{said}: ports count")
        else:
            hint = f"sysctl {family}.fib_multipath_hash_policy=1 (or 3, with fib_multipath_hash_fields=55)"
            seen = f"{said}: ports do not count, so each client has one mux for all flows"
            yield fault("hash policy", seen, hint)


def wrong_checksums(node: NodeState) -> Iterator[Finding]:
    """What a host's own TCP and UDP threw away: nobody before it verifies what an offload should have finished."""
    counted = {name: values["InCsumErrors"] for name, values in snmp().items() if values.get("InCsumErrors")}
    if counted:
        said = " and ".join(f"{count} of {name.upper()}" for name, count in sorted(counted.items()))
        seen = f"packets came with a wrong checksum and were dropped, since the machine started: {said}"
        hint = "ethtool -K PORT tx off on the router's ports to muxes and hosts; `lbmux doctor` there names them"
        yield warning("checksums", seen, hint)
    else:
        yield ok("checksums", "no packet came with a wrong one")


def snmp() -> dict[str, dict[str, int]]:
    """The namespace's counters of TCP and UDP, by protocol and name (RFC 4022, 4113; TCP's are of both IPs)."""
    lines = [line.split() for line in NET_SNMP.read_text().splitlines()]
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return {
        names[0].rstrip(":"): dict(zip(names[1:], map(int, values[1:]), strict=True))
        for names, values in pairs
        if names[0] in ("Tcp:", "Udp:")
    }


def clock(node: NodeState) -> Iterator[Finding]:
    """Times in captures and logs of several machines are compared; forwarding itself does not need it."""
    state = clock_state()
    if state == TIME_ERROR:
        yield warning("clock", "not synchronised: times of captures and logs cannot be compared", "run chrony or ntpd")
    elif state < 0:
        yield warning("clock", "the kernel does not say whether it is synchronised", "run chrony or ntpd")
    else:
        yield ok("clock", "synchronised")


def clock_state() -> int:
    """As adjtimex(2) returns it, which with modes 0 only reads; negative where it cannot be had."""
    libc, timex = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(TIMEX_BYTES)
    return int(libc.adjtimex(timex))
