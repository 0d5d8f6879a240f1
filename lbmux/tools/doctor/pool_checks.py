"""Check the pool: if muxes have different tables, a flow that the router moves reaches another backend."""

from collections.abc import Iterator

from lbmux.api.channel import ControlTarget
from lbmux.api.control_client import ControlClient
from lbmux.api.requests import GetServices
from lbmux.errors import ControlError
from lbmux.tools.doctor.finding import Finding, fault, ok, warning
from lbmux.tools.doctor.node_state import TIMEOUT_S, NodeState


def digests(place: ControlTarget) -> dict[str, str | None]:
    """Return the digest of each service's Maglev table, by a name with the service's VIP, protocol and port."""
    return {
        f"{line.service} ({line.vip} {line.protocol} {line.port})": line.digest
        for line in ControlClient(place, TIMEOUT_S).whole(GetServices()).services
    }


def same_tables(node: NodeState) -> Iterator[Finding]:
    """Check that every service has the same table on this mux and its peers."""
    if node.runtime is None or not node.peers:
        return
    own = digests(node.control)
    for peer in node.peers:
        try:
            theirs = digests(peer)
        except ControlError as error:
            yield warning(
                "pool", f"a peer does not answer: {error}", "check that it runs; if not, other muxes have its flows now"
            )
            continue
        differ = sorted(name for name in own.keys() | theirs.keys() if own.get(name) != theirs.get(name))
        if differ:
            seen = f"{peer} has different tables for {', '.join(differ)}"
            hint = "give both the same file and run `lbmux reload` on both: flows that move between them break"
            yield fault("pool", seen, hint)
        else:
            yield ok("pool", f"{peer} has the same {len(own)} tables")
