"""Checks of an agent's flow entries: whose sockets it can ask, replies that had none, replies that are held back."""

from collections.abc import Iterator
from ipaddress import ip_address

from lbmux.daemons.leftovers import DEVICE, is_held
from lbmux.tools.doctor.finding import Finding, fault, ok, warning
from lbmux.tools.doctor.node_state import NodeState

MOST_NAMED = 5


def sockets(node: NodeState) -> Iterator[Finding]:
    """An agent keeps the entries of connections that its host has; it sees the sockets of its own namespace only."""
    if node.runtime is None or node.config is None or node.runtime["mode"] != "nat":
        return
    own = set(map(ip_address, node.runtime["addresses"]))
    backends = [backend for service in node.config.services for backend in service.backends]
    elsewhere = sorted({str(one.dip) for one in backends if one.tunnel_to in own and one.dip not in own})
    if elsewhere:
        named = ", ".join(elsewhere[:MOST_NAMED]) + (", ..." if len(elsewhere) > MOST_NAMED else "")
        seen = f"the sockets of {named} are in another network namespace, where this agent cannot look:"
        hint = "raise `idle: {tcp_s}` of its service, or run the agent in that namespace"
        yield warning("sockets", f"{seen} a connection that is silent for longer than its idle time breaks", hint)
    else:
        yield ok("sockets", "of every backend here: no entry of a live connection expires")


def replies(node: NodeState) -> Iterator[Finding]:
    """Replies without an entry, since the agent runs."""
    if node.counters is None:
        return
    counted, slow = node.counters["verdicts"], node.counters["slowpath"] or {}
    if held := slow.get("reply_held"):
        seen = f"{held} replies were held: their entry was lost, and several VIPs lead to their port"
        yield warning("flow entries", seen, "give each VIP a port of its own at the server")
    if unseen := slow.get("reply_unseen"):
        seen = f"{unseen} replies without an entry left with the DIP as their source: their sockets cannot be seen"
        yield warning("flow entries", seen, "see `sockets` above")
    if late := counted.get("untracked"):
        seen = f"{late} datagrams of backends left with the DIP as their source: their clients asked the DIP itself, or"
        hint = "raise `idle: {udp_s}` of the service, if they were late"
        yield warning("flow entries", f"{seen} had been silent for longer than the idle time", hint)


def held(node: NodeState) -> Iterator[Finding]:
    """Without an agent nobody reads the device that the last one left."""
    if node.runtime is None and is_held():
        seen = f"no agent runs here, and {DEVICE} holds the backends' replies back, so that no connection breaks"
        yield fault("agent", seen, "start `lbmux agent`; or, if it is to stay away, `lbmux detach -i INTERFACE`")
