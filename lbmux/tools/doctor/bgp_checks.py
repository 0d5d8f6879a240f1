"""Checks of a mux's BGP sessions: a router without one sends no packets."""

from collections.abc import Iterator

from lbmux.api.control_socket import ask
from lbmux.bgp.bgp_settings import ESTABLISHED
from lbmux.errors import ControlError
from lbmux.tools.doctor.finding import Finding, fault, ok, warning
from lbmux.tools.doctor.node_state import TIMEOUT_S, NodeState

HINT = "compare both ends: addresses, AS numbers, password, and whether the router has this mux as its neighbour"
NO_REASON = "the speaker gives no reason"
UP = "up"


def sessions(node: NodeState) -> Iterator[Finding]:
    """Each is established, and says why where it is not; something is announced by them."""
    if node.runtime is None or not node.has_daemon:
        return
    try:
        said = ask(node.control, "bgp", timeout_s=TIMEOUT_S)
    except ControlError:  # it has answered before: it announces nothing by BGP
        return
    for peer in said["neighbours"]:
        name = f"{peer['address']} (AS {peer['number']})"
        if peer["state"] != ESTABLISHED:
            seen = f"no session with {name}: {peer['state']}: {peer['reason'] or NO_REASON}"
            yield fault("BGP", seen, HINT)
        elif peer["bfd"] not in ("", UP):
            seen = f"BFD with {name} is {peer['bfd']}: the router notices a dead mux by the hold time alone"
            yield warning("BGP", seen, "enable BFD for this neighbour on the router")
        else:
            yield ok("BGP", f"{name}: established, {peer['prefixes']} prefixes announced")
    if said["held"]:
        yield warning("BGP", "withdrawn by command: routers send no packets here", "`lbmux announce`")
