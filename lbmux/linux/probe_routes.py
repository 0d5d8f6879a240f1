"""Routes a mux's probes to its TUN device, by a rule that matches the mark of their sockets.

Rules and routes have their own routing protocol number, so that a later run finds and removes those of a killed one.
"""

import contextlib
from pathlib import Path

from pyroute2 import IPRoute

from lbmux.addresses import FAMILIES
from lbmux.linux.policy_routes import EVERYTHING, SCOPE_LINK, remove_leftovers

TABLE = 9119
PROTOCOL = 141
MARK = 0x6C63
PRIORITY = 9119
DEVICE_MTU_BYTES = 1280
"""IPv6's minimum MTU: with any tunnel's headers it fits the path to a host."""


def open_routes(device: str) -> None:
    """Route marked packets to ``device``. Remove what an earlier run left."""
    close_routes()
    with contextlib.suppress(OSError):  # a kernel without IPv6
        Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("0")
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=device)[0]
        ip.link("set", index=index, state="up", mtu=DEVICE_MTU_BYTES)
        for version, family in FAMILIES.items():
            scope = {"scope": SCOPE_LINK} if version == 4 else {}
            ip.route("replace", family=family, dst=EVERYTHING[version], oif=index, table=TABLE, proto=PROTOCOL, **scope)
            ip.rule("add", family=family, priority=PRIORITY, fwmark=MARK, table=TABLE, protocol=PROTOCOL)


def close_routes() -> None:
    remove_leftovers(PROTOCOL, TABLE)
