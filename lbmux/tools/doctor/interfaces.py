"""Checks of interfaces: offloads that join or leave frames unfinished, and whether the daemon's interface is up."""

from collections.abc import Iterator

from pyroute2 import IPRoute

from lbmux.control.offloads import SUPER_FRAMES, device_driver, features
from lbmux.tools.doctor.finding import Finding, fault, ok, warning
from lbmux.tools.doctor.routes import way
from lbmux.tools.doctor.situation import Situation

UP = 0x1 | 0x40  # IFF_UP, IFF_RUNNING


def link(situation: Situation) -> Iterator[Finding]:
    """The daemon's interface carries frames."""
    if situation.interface is None:
        return
    name = situation.interface
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=name)
        flags = ip.get_links(index[0])[0]["flags"] if index else 0
    if not index:
        yield fault("link", f"{name} is gone", "bring it back: the daemon opens it again by itself")
    elif flags & UP != UP:
        yield fault("link", f"{name} is down", f"ip link set {name} up; is its other end up?")
    else:
        yield ok("link", f"{name} is up")


def super_frames(situation: Situation) -> Iterator[Finding]:
    """Joined frames are longer than any path takes, so the mux drops them as too big; an agent fares no better."""
    if situation.interface is None:
        return
    name = situation.interface
    state = features(name)
    joins = [feature for feature in SUPER_FRAMES if state.get(feature)]
    if joins:
        seen = f"{', '.join(joins)} on at {name}: received frames are joined, and dropped as too big"
        yield fault("offloads", seen, f"ethtool -K {name} {' '.join(f'{feature} off' for feature in joins)}")
    else:
        yield ok("offloads", f"nothing joins the frames that {name} receives")


def unfinished_checksums(situation: Situation) -> Iterator[Finding]:
    """A veth's frames reach the other end with the checksum that a card was to finish: XDP there cannot know."""
    if situation.config is None:
        return
    backends = [backend for service in situation.config.services for backend in service.backends]
    ways = [way(address) for address in {*situation.config.muxes, *(backend.tunnel_to for backend in backends)}]
    ends = sorted({found.interface for found in ways if found is not None})
    leave = [name for name in ends if device_driver(name) == "veth" and features(name)["tx"]]
    if leave:
        seen = f"tx offload is on at the veth {', '.join(leave)}: checksums of frames sent there are not finished"
        mend = f"ethtool -K {leave[0]} tx off; a mux or an agent that forwards by XDP passes them on as they are"
        yield warning("checksums", seen, mend)
    else:
        yield ok("checksums", f"frames to muxes and hosts ({', '.join(ends)}) leave with finished checksums")
