"""What an agent in user space leaves in the network namespace, so that no reply leaves with the DIP as its source."""

import socket

from lbmux.errors import SetupError
from lbmux.frames.tun import Tun
from lbmux.linux.policy_routes import remove_leftovers

DEVICE = "lbmux0"


def is_held() -> bool:
    """Whether the device is there, by which replies go."""
    return any(name == DEVICE for _, name in socket.if_nameindex())


def release() -> bool:
    """Let replies go their usual way; whether there was anything.  SetupError where an agent has the device."""
    there = is_held()
    if there:
        with Tun(DEVICE, 1) as tun:
            tun.stay(False)
    remove_leftovers()
    return there


def release_if_nobody_has_it() -> None:
    """For another driver, which is in force now."""
    try:
        release()
    except SetupError:
        return
