"""Checks of interfaces: offloads that join or leave frames unfinished, and whether the daemon's interface is up."""

from collections.abc import Iterator

from pyroute2 import IPRoute

from lbmux.linux.offloads import SUPER_FRAMES, device_driver, features
from lbmux.tools.doctor.finding import Finding, fault, ok, warning
from lbmux.tools.doctor.node_state import NodeState
from lbmux.tools.doctor.route_checks import route_to

UP = 0x1 | 0x40  # IFF_UP, IFF_RUNNING


def link(node: NodeState) -> Iterator[Finding]:
    """The daemon's interface carries frames."""
    if node.interface is None:
        return
    name = node.interface
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=name)
        flags = ip.get_links(index[0])[0]["flags"] if index else 0
    if not index:
        yield fault("link", f"{name} is gone", "bring it back: the daemon opens it again by itself")
    elif flags & UP != UP:
        yield fault("link", f"{name} is down", f"ip link set {name} up; is its other end up?")
    else:
        yield ok("link", f"{name} is up")


def super_frames(node: NodeState) -> Iterator[Finding]:
    """Joined frames, and those that a sender here leaves to a device to cut: user space cuts them, no program can."""
    if node.interface is None:
        return
    name, state = node.interface, features(node.interface)
    joins = [feature for feature in SUPER_FRAMES if state.get(feature)]
    ring = (node.counters or {}).get("ring") or {}
    came, lost = ring.get("super_frames", 0), ring.get("super_frames_lost", 0)
    hint = f"ethtool -K PORT tso off gso off, where they are sent to {name} (a veth's far end)"
    in_kernel = (node.runtime or {}).get("driver") == "xdp"
    if lost:
        seen = f"{lost} of {came + lost} super-frames came faster than user space could read them"
        yield warning("offloads", seen, hint)
    elif joins and in_kernel:
        seen = f"{', '.join(joins)} on at {name}: joined frames pass the kernel's program by, and user space cuts them"
        yield warning("offloads", seen, f"ethtool -K {name} {' '.join(f'{feature} off' for feature in joins)}")
    elif came and in_kernel:
        seen = f"{came} super-frames passed the kernel's program by, and user space cut them"
        yield warning("offloads", seen, hint)
    elif came or joins:
        yield ok("offloads", f"user space cuts super-frames into single ones: {came} so far")
    else:
        yield ok("offloads", f"{name} receives frames one by one")


def unfinished_checksums(node: NodeState) -> Iterator[Finding]:
    """A veth's frames reach the other end with the checksum that a card was to finish: XDP there cannot know."""
    if node.config is None:
        return
    backends = [backend for service in node.config.services for backend in service.backends]
    ways = [route_to(address) for address in {*node.config.muxes, *(backend.tunnel_to for backend in backends)}]
    ends = sorted({found.interface for found in ways if found is not None})
    leave = [name for name in ends if device_driver(name) == "veth" and features(name)["tx"]]
    if leave:
        seen = f"tx offload is on at the veth {', '.join(leave)}: checksums of frames sent there are not finished"
        hint = f"ethtool -K {leave[0]} tx off; a mux or an agent that forwards by XDP passes them on as they are"
        yield warning("checksums", seen, hint)
    else:
        yield ok("checksums", f"frames to muxes and hosts ({', '.join(ends)}) leave with finished checksums")
