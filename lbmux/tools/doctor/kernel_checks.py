"""Check kernel settings and counters: forwarding, reverse path filter, ECMP hash, checksums, clock.

All are read in the network namespace that the doctor runs in.
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
    """Return the IP versions of the VIPs; IPv4 without a configuration."""
    return sorted({vip.version for vip in node.vips}) or [4]


def sysctl(name: str) -> str | None:
    """Return a sysctl's value; None if the kernel has none. ``name`` has slashes, since interfaces have dots."""
    try:
        return (SYSCTLS / name).read_text().strip()
    except OSError:
        return None


def number(name: str) -> int:
    return int(sysctl(name) or 0)


def forwarding(node: NodeState) -> Iterator[Finding]:
    """Check IP forwarding.  A router needs it.  On a mux it loops VIP packets, unless the mux filters VIPs."""
    host = node.runtime.host_forwarding if node.runtime else None
    for version in versions(node):
        name = FORWARDING[version]
        is_on, key = bool(number(name)), name.replace("/", ".")
        if node.role == "router" and not is_on:
            seen = f"{key} is 0: this router does not forward IPv{version}"
            yield fault("forwarding", seen, f"sysctl {key}=1")
        elif node.role == "mux" and is_on and host is not None and host.vips_filtered:
            yield ok(
                "forwarding",
                f"{key} is 1, but the mux keeps VIP packets from the kernel ({host.dropped} frames so far)",
            )
        elif node.role == "mux" and is_on:
            reason = f" ({host.reason})" if host and host.reason else ""
            seen = f"{key} is 1: the kernel sends VIP packets back to the router, a forwarding loop{reason}"
            yield warning("forwarding", seen, f"sysctl {key}=0")
        else:
            yield ok("forwarding", f"{key} is {int(is_on)}")


def reverse_path(node: NodeState) -> Iterator[Finding]:
    """Check rp_filter.  The route to the VIP leads to the muxes, so a strict filter drops replies from the VIP."""
    everywhere = number("net/ipv4/conf/all/rp_filter")
    modes = {
        path.parent.name: max(everywhere, int(path.read_text()))  # the larger of the two applies (ip-sysctl.rst)
        for path in sorted((SYSCTLS / "net/ipv4/conf").glob("*/rp_filter"))
        if path.parent.name not in ("all", "default", "lo")
    }
    strict = [name for name, mode in modes.items() if mode == STRICT]
    if not strict:
        yield ok("rp_filter", "not strict on any interface")
        return
    seen = f"rp_filter is strict on {', '.join(strict)}"
    hint = f"sysctl net.ipv4.conf.{strict[0]}.rp_filter={LOOSE}, and the same for net.ipv4.conf.all"
    if node.role == "router":
        yield fault(
            "rp_filter",
            f"{seen}: it drops replies from the VIP, which arrive on another interface than the route to the VIP",
            hint,
        )
    else:
        yield warning("rp_filter", f"{seen}: it drops packets that arrive by an asymmetric route", hint)


def multipath_hash(node: NodeState) -> Iterator[Finding]:
    """Check the ECMP hash.  A hash of addresses alone sends all flows of a client to one mux."""
    for version in versions(node):
        family = f"net.ipv{version}"
        policy = number(f"{family.replace('.', '/')}/fib_multipath_hash_policy")
        fields = number(f"{family.replace('.', '/')}/fib_multipath_hash_fields")
        setting = f"{family}.fib_multipath_hash_policy is {policy}"
        if policy == FIVE_TUPLE or (policy == CUSTOM and fields & SOURCE_PORT):
            yield ok("hash policy", f"{setting}: ports are hashed")
        else:
            hint = f"sysctl {family}.fib_multipath_hash_policy=1 (or 3, with fib_multipath_hash_fields=55)"
            seen = f"{setting}: ports are not hashed, so one mux gets all flows of a client"
            yield fault("hash policy", seen, hint)


def wrong_checksums(node: NodeState) -> Iterator[Finding]:
    """Report packets that the host dropped for a wrong checksum, often one that an offload left unfinished."""
    counted = {name: values["InCsumErrors"] for name, values in snmp().items() if values.get("InCsumErrors")}
    if counted:
        counts = " and ".join(f"{count} of {name.upper()}" for name, count in sorted(counted.items()))
        seen = f"packets dropped for a wrong checksum since boot: {counts}"
        hint = (
            "ethtool -K PORT tx off on the router's ports to muxes and hosts; `lbmux doctor` on the router names them"
        )
        yield warning("checksums", seen, hint)
    else:
        yield ok("checksums", "no packet had a wrong checksum")


def snmp() -> dict[str, dict[str, int]]:
    """TCP and UDP counters of the namespace, by protocol and name (RFC 4022, RFC 4113).  TCP counts IPv4 and IPv6."""
    lines = [line.split() for line in NET_SNMP.read_text().splitlines()]
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return {
        names[0].rstrip(":"): dict(zip(names[1:], map(int, values[1:]), strict=True))
        for names, values in pairs
        if names[0] in ("Tcp:", "Udp:")
    }


def clock(node: NodeState) -> Iterator[Finding]:
    """Check clock synchronisation, which captures and logs of several machines need.  Forwarding does not need it."""
    state = clock_state()
    if state == TIME_ERROR:
        yield warning("clock", "not synchronised: times of captures and logs cannot be compared", "run chrony or ntpd")
    elif state < 0:
        yield warning("clock", "the kernel does not report whether it is synchronised", "run chrony or ntpd")
    else:
        yield ok("clock", "synchronised")


def clock_state() -> int:
    """Return the clock state from adjtimex(2), called read-only with modes 0; negative on error."""
    libc, timex = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(TIMEX_BYTES)
    return int(libc.adjtimex(timex))
