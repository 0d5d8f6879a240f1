"""Hides packets for VIPs from the host's own forwarding (lbmux.frames.vip_filter), or logs why it cannot."""

import asyncio
import contextlib
import logging
from pathlib import Path
from types import TracebackType

from lbmux.addresses import Address
from lbmux.api import answers
from lbmux.config.models import Config
from lbmux.errors import LbmuxError, SetupError
from lbmux.frames.vip_filter import VipFilter
from lbmux.linux.interface_addresses import addresses
from lbmux.targets.bpf import pins

log = logging.getLogger(__name__)

SYSCTLS = Path("/proc/sys/net")
HINT = "an edge that balances needs tcx (Linux 6.6)"
FORWARDING = {4: "ipv4/conf/{}/forwarding", 6: "ipv6/conf/all/forwarding"}


class HostForwarding:
    """``outlives``: the filter stays attached when this process ends, since the kernel program keeps punting.

    ``has_vips``: the VIPs are addresses of this host, which is an edge, and only its agent may deliver their packets.
    The filter then stays if the process is killed: until the router sends packets elsewhere, the host's stack would
    reset connections of other edges.
    """

    def __init__(self, interface: str, outlives: bool, *, has_vips: bool = False) -> None:
        self._interface, self._outlives, self._has_vips = interface, outlives, has_vips
        self._filter: VipFilter | None = None
        self._refusal = ""
        self._until_exit: pins.Pins | None = None

    def __enter__(self) -> "HostForwarding":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._filter is not None:
            self._filter.close()
        if self._until_exit is not None:
            self._until_exit.remove()

    def _pins(self) -> pins.Pins | None:
        """Return where the filter is pinned; a killed edge may have left one, whichever its driver was."""
        of_edge = pins.Pins(pins.directory_of(self._interface, pins.EDGE))
        if self._outlives:
            of_edge.remove()
            return pins.Pins(pins.directory_of(self._interface, "mux"))
        if not self._has_vips:
            return None
        try:
            pins.mount()
        except SetupError as error:
            log.warning("a killed edge would let this host reset connections of other edges: %s", error)
            return None
        self._until_exit = of_edge
        return of_edge

    async def configure(self, config: Config) -> None:
        """Hide the VIPs of ``config`` from the kernel's forwarding; reads the host's addresses again."""
        vips = {service.vip for service in config.services}
        local = () if self._has_vips else await asyncio.to_thread(addresses)
        try:
            if self._filter is None:
                self._filter = VipFilter(self._interface, self._pins(), has_vips=self._has_vips)
            self._filter.hide(vips, local)
        except (LbmuxError, OSError) as error:
            if self._has_vips:  # the kernel would reset the connections of other edges
                raise SetupError(f"interface {self._interface}", f"cannot hide the VIPs: {error}", HINT) from error
            self._refused(str(error).splitlines()[0], vips)
        else:
            self._refusal = ""

    def _refused(self, reason: str, vips: set[Address]) -> None:
        """Log a reason once, and only on a host that forwards: another host drops the packets anyway."""
        families = [version for version in sorted({vip.version for vip in vips}) if forwards(self._interface, version)]
        if families and reason != self._refusal:
            which = " and ".join(f"IPv{version}" for version in families)
            log.warning("this host forwards %s and will also forward packets for VIPs: %s", which, reason)
        self._refusal = reason

    def describe(self) -> answers.HostForwarding:
        """Return whether VIPs are hidden, how many frames were dropped, and why not."""
        vip_filter = self._filter
        kept = vip_filter is not None and vip_filter.is_attached()
        reason = "" if kept else self._refusal or "the filter is not attached"
        return answers.HostForwarding(kept, vip_filter.dropped() if vip_filter else 0, reason)


def forwards(interface: str, version: int) -> bool:
    """Return whether the kernel forwards packets that arrive on the interface; ``version``: 4 or 6."""
    with contextlib.suppress(OSError):  # a kernel without this family
        return (SYSCTLS / FORWARDING[version].format(interface)).read_text().strip() != "0"
    return False
