"""How a mux or an edge announces VIPs: a BGP speaker, its directory beside the control socket, its announcer."""

import contextlib
import fcntl
import logging
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from lbmux.addresses import Address
from lbmux.api import answers, requests
from lbmux.api.control_server import Handler, Kind
from lbmux.api.protocol import VERSION
from lbmux.bgp.announced import UNCHANGED, Announced, BgpState, after_command
from lbmux.bgp.announcer import SPEAKERS, Announcer, always, never
from lbmux.bgp.bgp_settings import Bgp
from lbmux.bgp.speaker import Speaker
from lbmux.config.models import Config
from lbmux.errors import LbmuxError
from lbmux.linux.capabilities import effective, lacking

log = logging.getLogger(__name__)

MOST_PREPENDED = 10
SIOCGIFFLAGS = 0x8913
UP_AND_RUNNING = 0x1 | 0x40


@dataclass(frozen=True)
class SpeakerSetup:
    """A speaker that is installed and has its addresses, but does not run yet."""

    speaker: Speaker
    directory: Path
    stall_s: float

    def announcer(
        self,
        can_forward: Callable[[], bool],
        alive: Callable[[], bool] = always,
        forwards: Callable[[], bool] = never,
        overloaded: Callable[[], bool] = never,
    ) -> Announcer:
        """Prepare without starting. ``forwards``: whether the kernel forwards without this process; ``overloaded``:
        whether this process gets more packets than it can forward.
        """
        return Announcer(
            self.speaker, self.directory, can_forward, alive, stall_s=self.stall_s, forwards=forwards,
            overloaded=overloaded,
        )  # fmt: skip


def speaker_setup(bgp: Bgp | None, name: str, local: Iterable[Address], control: Path) -> SpeakerSetup | None:
    """Return the setup; None without peers. Raise SetupError without a speaker program or a needed local address."""
    if bgp is None or not bgp.peers:
        return None
    bgp = with_local(bgp, local)
    for peer in bgp.peers:
        bgp.local_to(peer)
    directory = control.with_suffix(".bgp")
    speaker = SPEAKERS[name](bgp, directory)
    speaker.command()  # raises if the speaker is not installed, before anything else is opened
    if missing := lacking(speaker.capabilities, effective()):
        log.warning("the BGP speaker %s lacks %s, which it needs", name, " and ".join(map(str, missing)))
    return SpeakerSetup(speaker, directory, bgp.stall_s)


def with_local(bgp: Bgp, local: Iterable[Address]) -> Bgp:
    """Return the settings with the first address of each family as the own one, where none is named."""
    for address in local:
        if isinstance(address, IPv6Address):
            bgp = replace(bgp, local6=bgp.local6 or address)
        else:
            bgp = replace(bgp, local=bgp.local or address)
    return bgp


def bgp_handlers(announcer: Announcer, config: Callable[[], Config]) -> dict[Kind, Handler]:
    """Return the handlers of requests about BGP; ``config`` has the VIPs."""

    async def state(request: requests.GetBgp) -> answers.Bgp:
        return bgp_answer(await announcer.state())

    async def hold(request: requests.HoldRoutes) -> answers.Bgp:
        if not (
            0 <= request.prepended <= MOST_PREPENDED and 8 <= request.length <= 32 and 16 <= request.length6 <= 128
        ):
            raise LbmuxError(
                f"the AS is prepended up to {MOST_PREPENDED} times; prefixes have 8 to 32 or 16 to 128 bits"
            )
        vip = None if request.vip is None else known_vip(request.vip, config())
        wanted = Announced(request.held, request.prepended, request.length, request.length6)
        return bgp_answer(await announcer.command(after_command(announcer.commands, vip, wanted)))

    return {requests.GetBgp: state, requests.HoldRoutes: hold}


def known_vip(text: str, config: Config) -> Address:
    """Return the VIP of a request; raise LbmuxError if it is not in the configuration."""
    with contextlib.suppress(ValueError):
        if (vip := ip_address(text)) in {service.vip for service in config.services}:
            return vip
    raise LbmuxError(f"no service has the VIP {text}; `lbmux show services` lists them")


def bgp_answer(state: BgpState) -> answers.Bgp:
    of_all = state.commands.get(None, UNCHANGED)
    return answers.Bgp(
        VERSION,
        state.speaker,
        prefixes=state.prefixes,
        last_resort=state.last_resort,
        neighbours=[answers.BgpNeighbour(**vars(neighbour)) for neighbour in state.neighbours],
        held=of_all.is_held,
        prepended=of_all.prepended,
        withdrawn=[*map(str, state.withdrawn)],
    )


def is_up(interface: str) -> bool:
    """Return whether an interface exists, is up, and has a carrier."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16s24x", interface.encode()))
        except OSError:
            return False
    (flags,) = struct.unpack_from("=16xH", answer)  # struct ifreq (netdevice(7))
    return int(flags) & UP_AND_RUNNING == UP_AND_RUNNING
