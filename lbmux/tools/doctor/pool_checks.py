"""Checks across the pool: muxes that disagree on a table send one flow to two backends when the router moves it."""

from collections.abc import Iterator
from pathlib import Path

from lbmux.api.control_socket import ask_list
from lbmux.errors import ControlError
from lbmux.tools.doctor.finding import Finding, fault, ok, warning
from lbmux.tools.doctor.node_state import NodeState


def digests(path: Path) -> dict[str, str | None]:
    """Of each service its Maglev table's; what is asked of it is in it, too."""
    return {
        f"{line['service']} ({line['vip']} {line['protocol']} {line['port']})": line["digest"]
        for line in ask_list(path, "services")
    }


def same_tables(node: NodeState) -> Iterator[Finding]:
    """Every service has the same table on this mux and its peers."""
    if node.runtime is None or not node.peers:
        return
    own = digests(node.control)
    for peer in node.peers:
        try:
            theirs = digests(peer)
        except ControlError as error:
            yield warning("pool", f"a peer cannot be asked: {error}", "is it running? its flows are other muxes' now")
            continue
        differ = sorted(name for name in own.keys() | theirs.keys() if own.get(name) != theirs.get(name))
        if differ:
            seen = f"{peer}: other tables than here: {', '.join(differ)}"
            hint = "give both the same file and `lbmux reload` both: flows that move between them would break"
            yield fault("pool", seen, hint)
        else:
            yield ok("pool", f"{peer}: the same {len(own)} tables as here")
