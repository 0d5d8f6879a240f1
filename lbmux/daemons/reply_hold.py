"""The TUN device and routes that an agent in user space leaves behind, so that no reply leaves with the DIP as source.

While no agent runs, replies wait in the device and are dropped when it is full.
"""

import socket

from lbmux.errors import SetupError
from lbmux.frames.tun import Tun
from lbmux.linux.policy_routes import remove_leftovers

DEVICE = "lbmux0"


def is_held() -> bool:
    """Return whether the device exists, so that replies go to it."""
    return any(name == DEVICE for _, name in socket.if_nameindex())


def release() -> bool:
    """Remove device and routes; returns whether there was a device.  SetupError while an agent has it open."""
    was_held = is_held()
    if was_held:
        with Tun(DEVICE, 1) as tun:
            tun.stay(False)
    remove_leftovers()
    return was_held


def release_if_unused() -> None:
    """Remove the device once the kernel's driver has taken over. An agent that has it open keeps it."""
    try:
        release()
    except SetupError:
        return
