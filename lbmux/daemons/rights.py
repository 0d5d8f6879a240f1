"""The capabilities that each role needs, and why.

A daemon logs at its start which ones it lacks; `lbmux doctor` reports them too.
"""

import logging
from collections.abc import Mapping

from lbmux.linux.capabilities import Capability, effective, lacking

log = logging.getLogger(__name__)

PROGRAMS = {
    Capability.BPF: "to load kernel programs and tables",
    Capability.PERFMON: "to load kernel programs that read packets by computed offsets",
}
MUX = {
    Capability.NET_RAW: "to read and send whole frames, and to send raw packets to hosts and clients",
    Capability.NET_ADMIN: "to turn GRO off, attach kernel programs, route probes into the tunnel, and size buffers",
    **PROGRAMS,
}
NEEDS: Mapping[str, Mapping[Capability, str]] = {
    "mux": MUX,
    "balancing-edge": MUX,
    "agent": {
        Capability.NET_RAW: "to receive tunnelled packets and send returned ones",
        Capability.NET_ADMIN: "to make the TUN device and its routes, turn GRO off, and attach kernel programs",
        **PROGRAMS,
    },
    "edge": {},
}
"""What each daemon does with a capability; an agent's work needs none that a mux's does not need. Without CAP_BPF or
CAP_PERFMON a daemon forwards in user space."""


def missing(role: str, mask: int) -> list[str]:
    """Return what a daemon of the role lacks, one line a capability; ``mask``: the effective ones."""
    needs = NEEDS[role]
    return [f"{one} {needs[one]}" for one in lacking(needs, mask)]


def warn_of_missing(role: str) -> None:
    """Log what this process lacks."""
    for line in missing(role, effective()):
        log.warning("lacks %s", line)
