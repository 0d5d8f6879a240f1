"""Check interfaces: link state, offloads that merge frames, and offloads that leave checksums unfinished."""

from collections.abc import Iterator

from pyroute2 import IPRoute

from lbmux.linux.offloads import SUPER_FRAMES, device_driver, features
from lbmux.tools.doctor.finding import Finding, fault, ok, warning
from lbmux.tools.doctor.node_state import NodeState
from lbmux.tools.doctor.route_checks import route_to

UP = 0x1 | 0x40  # IFF_UP, IFF_RUNNING


def link(node: NodeState) -> Iterator[Finding]:
    """Check that the daemon's interface exists and is up."""
    if node.interface is None:
        return
    name = node.interface
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=name)
        flags = ip.get_links(index[0])[0]["flags"] if index else 0
    if not index:
        yield fault("link", f"{name} is gone", "recreate it: the daemon reopens it by itself")
    elif flags & UP != UP:
        yield fault("link", f"{name} is down", f"ip link set {name} up; check its other end")
    else:
        yield ok("link", f"{name} is up")


def super_frames(node: NodeState) -> Iterator[Finding]:
    """Check for super-frames (GRO, LRO, TSO).  Only user space segments them; an XDP program cannot."""
    if node.interface is None:
        return
    name, state = node.interface, features(node.interface)
    joins = [feature for feature in SUPER_FRAMES if state.get(feature)]
    ring = (node.counters or {}).get("ring") or {}
    received, lost = ring.get("super_frames", 0), ring.get("super_frames_lost", 0)
    hint = f"ethtool -K PORT tso off gso off, where frames are sent to {name} (the far end of a veth)"
    in_kernel = node.runtime is not None and node.runtime.driver == "xdp"
    if lost:
        seen = f"{lost} of {received + lost} super-frames arrived faster than user space could read them"
        yield warning("offloads", seen, hint)
    elif joins and in_kernel:
        seen = f"{', '.join(joins)} on at {name}: merged frames bypass the kernel program, and user space segments them"
        yield warning("offloads", seen, f"ethtool -K {name} {' '.join(f'{feature} off' for feature in joins)}")
    elif received and in_kernel:
        seen = f"{received} super-frames bypassed the kernel program, and user space segmented them"
        yield warning("offloads", seen, hint)
    elif received or joins:
        yield ok("offloads", f"user space segments super-frames: {received} so far")
    else:
        yield ok("offloads", f"{name} receives no super-frames")


def unfinished_checksums(node: NodeState) -> Iterator[Finding]:
    """Check tx offload on veths: frames reach the far end with unfinished checksums, which XDP cannot detect."""
    if node.config is None:
        return
    backends = [backend for service in node.config.services for backend in service.backends]
    routes = [route_to(address) for address in {*node.config.muxes, *(backend.tunnel_to for backend in backends)}]
    ends = sorted({route.interface for route in routes if route is not None})
    leave = [name for name in ends if device_driver(name) == "veth" and features(name)["tx"]]
    if leave:
        seen = f"tx offload is on at the veth {', '.join(leave)}: frames sent there have unfinished checksums"
        hint = f"ethtool -K {leave[0]} tx off; a mux or an agent that forwards with XDP passes them on unchanged"
        yield warning("checksums", seen, hint)
    else:
        yield ok("checksums", f"frames to muxes and hosts ({', '.join(ends)}) leave with finished checksums")
