"""What a mux announces itself with: a speaker, in a directory beside the control socket, and whether it can forward."""

import fcntl
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path

from lbmux.addresses import Address
from lbmux.bgp.announcer import SPEAKERS, Announcer, always, never
from lbmux.bgp.bgp_settings import Bgp

SIOCGIFFLAGS = 0x8913
UP_AND_RUNNING = 0x1 | 0x40


def announcing(
    bgp: Bgp | None, speaker: str, local: Iterable[Address], control: Path, can_forward: Callable[[], bool],
    alive: Callable[[], bool] = always, forwards: Callable[[], bool] = never,
) -> Announcer | None:  # fmt: skip
    """Not started yet; None without peers.  SetupError where the speaker is not installed, or an address is missing.

    ``forwards``: whether the kernel forwards without this process.
    """
    if bgp is None or not bgp.peers:
        return None
    directory = control.with_suffix(".bgp")
    for address in local:
        if isinstance(address, IPv6Address):
            bgp = replace(bgp, local6=bgp.local6 or address)
        else:
            bgp = replace(bgp, local=bgp.local or address)
    for peer in bgp.peers:
        bgp.local_to(peer)
    return Announcer(
        SPEAKERS[speaker](bgp, directory), directory, can_forward, alive, stall_s=bgp.stall_s, forwards=forwards
    )


def is_up(interface: str) -> bool:
    """Whether an interface is there, up, and has a carrier."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16s24x", interface.encode()))
        except OSError:
            return False
    return int.from_bytes(answer[16:18], "little") & UP_AND_RUNNING == UP_AND_RUNNING
