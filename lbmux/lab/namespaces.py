"""Network namespaces: create, enter and remove them.

Addresses, routes, neighbours, sysctls and counters of the current one.
"""

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute, netns

from lbmux.addresses import mac_from_int, mac_to_int
from lbmux.errors import LabError
from lbmux.lab.topology import Route
from lbmux.linux import network_namespaces

PERMANENT = 0x80  # NUD_PERMANENT
Result = TypeVar("Result")


def enter(name: str) -> None:
    """Move the calling thread into a namespace permanently."""
    network_namespaces.enter(f"{netns.NETNS_RUN_DIR}/{name}")


def inside(name: str, work: Callable[[], Result]) -> Result:
    """Call ``work`` in a namespace, in a temporary thread, and return its result."""
    return network_namespaces.inside(f"{netns.NETNS_RUN_DIR}/{name}", work)


def steer_packets(name: str, interfaces: Sequence[str], cpu: int | None) -> None:
    """Have one CPU handle all packets that arrive at interfaces of a namespace; None: the one that they arrive on.

    Receive packet steering (Linux, Documentation/networking/scaling.rst).  A packet that is then forwarded to a veth
    stays on that CPU.
    """
    script = (
        'for one in "$@"; do for queue in /sys/class/net/$one/queues/rx-*; do echo $MASK > $queue/rps_cpus; done; done'
    )
    mask = {"MASK": "0" if cpu is None else f"{1 << cpu:x}"}
    # `ip netns exec` mounts the namespace's own /sys
    command = ["ip", "netns", "exec", name, "sh", "-ec", script, "sh", *interfaces]
    ran = subprocess.run(command, env={**os.environ, **mask}, capture_output=True, text=True)
    if ran.returncode:
        raise LabError(name, f"no receive packet steering: {ran.stderr.strip()}")


def exists(name: str) -> bool:
    return Path(f"{netns.NETNS_RUN_DIR}/{name}").exists()


def create(name: str) -> None:
    """Create a namespace by `ip`, at a tenth of the cost of pyroute2, which forks this process with its memory."""
    ran = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if ran.returncode:
        raise LabError(name, f"no network namespace: {ran.stderr.strip()}")


def remove(name: str) -> None:
    if exists(name):
        netns.remove(name)


def set_sysctls(values: dict[str, str]) -> None:
    for name, value in values.items():
        try:
            Path("/proc/sys", *name.split(".")).write_text(value)
        except OSError as error:
            raise LabError("", f"sysctl {name}={value}: {error.strerror}") from error


def set_route(route: Route) -> None:
    """Add a route of the current namespace, or replace it."""
    arguments: dict[str, Any] = {"dst": route.destination}
    if len(route.via) == 1:
        arguments["gateway"] = route.via[0]
    else:
        arguments["multipath"] = [{"gateway": gateway} for gateway in route.via]
    if route.advmss:
        arguments["metrics"] = {"advmss": route.advmss}
    with IPRoute() as ip:
        ip.route("replace", **arguments)


def remove_address(interface: str, text: str) -> None:
    address, length = text.split("/")
    with IPRoute() as ip:
        ip.addr("del", index=ip.link_lookup(ifname=interface)[0], address=address, prefixlen=int(length))


def add_address(interface: str, text: str) -> None:
    address, length = text.split("/")
    with IPRoute() as ip:
        ip.addr("add", index=ip.link_lookup(ifname=interface)[0], address=address, prefixlen=int(length))


def packet_counters(interface: str) -> tuple[int, int]:
    """(received, sent) packets of an interface of the current namespace."""
    with IPRoute() as ip:
        stats = ip.get_links(ip.link_lookup(ifname=interface)[0])[0].get_attr("IFLA_STATS64")
    return stats["rx_packets"], stats["tx_packets"]


def byte_counters(interface: str) -> tuple[int, int]:
    """(received, sent) bytes of an interface of the current namespace."""
    with IPRoute() as ip:
        stats = ip.get_links(ip.link_lookup(ifname=interface)[0])[0].get_attr("IFLA_STATS64")
    return stats["rx_bytes"], stats["tx_bytes"]


def link_mac(interface: str) -> int:
    """Return the MAC address of an interface of the current namespace, as a 48-bit integer in load order."""
    with IPRoute() as ip:
        return mac_to_int(ip.get_links(ip.link_lookup(ifname=interface)[0])[0].get_attr("IFLA_ADDRESS"))


def set_neighbour(interface: str, address: str, mac: int) -> None:
    """Add a permanent neighbour entry in the current namespace."""
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=interface)[0]
        ip.neigh("replace", dst=address, lladdr=mac_from_int(mac), ifindex=index, state=PERMANENT)
