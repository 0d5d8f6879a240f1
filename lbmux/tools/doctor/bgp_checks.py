"""Check a mux's BGP sessions.  A router without an established session sends the mux no packets."""

from collections.abc import Iterator

from lbmux.api.requests import GetBgp
from lbmux.bgp.bgp_settings import ESTABLISHED
from lbmux.errors import ControlError
from lbmux.tools.doctor.finding import Finding, fault, ok, warning
from lbmux.tools.doctor.node_state import NodeState

HINT = "compare both ends: addresses, AS numbers, password, and whether the router has this mux as a neighbour"
UP = "up"


def sessions(node: NodeState) -> Iterator[Finding]:
    """Check that every session is established and that the mux announces its VIPs.  Report the reason otherwise."""
    if not node.has_daemon:
        return
    try:
        answer = node.client.ask(GetBgp())
    except ControlError:  # it runs without BGP, or does not run, which another check reports
        return
    for peer in answer.neighbours:
        name = f"{peer.address} (AS {peer.number})"
        if peer.state != ESTABLISHED:
            yield fault("BGP", f"no session with {name}: {peer.state}: {peer.reason}", HINT)
        elif peer.bfd not in ("", UP):
            seen = f"BFD with {name} is {peer.bfd}: the router detects a dead mux only by the hold timer"
            yield warning("BGP", seen, "enable BFD for this neighbour on the router")
        else:
            yield ok("BGP", f"{name}: established, {peer.prefixes} prefixes announced")
    if answer.held:
        yield warning("BGP", "withdrawn by command: routers send no packets here", "run `lbmux announce`")
    elif answer.withdrawn:
        vips = ", ".join(answer.withdrawn[:5]) + f" and {len(answer.withdrawn) - 5} more" * (len(answer.withdrawn) > 5)
        yield warning("BGP", f"withdrawn by command: {vips}", "run `lbmux announce VIP`")
