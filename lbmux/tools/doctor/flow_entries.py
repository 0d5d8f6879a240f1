"""Check an agent's flow entries: sockets that it cannot see, replies without an entry, replies that are held back."""

from collections.abc import Iterator
from ipaddress import ip_address

from lbmux.daemons.reply_hold import DEVICE, is_held
from lbmux.plurals import counted
from lbmux.tools.doctor.finding import Finding, fault, ok, warning
from lbmux.tools.doctor.node_state import NodeState

MOST_NAMED = 5


def sockets(node: NodeState) -> Iterator[Finding]:
    """Check that the agent sees its backends' sockets.  It keeps the entries of connections that have a socket.

    It looks up the sockets of containers in their network namespaces, if it may enter them.
    """
    if node.runtime is None or node.config is None or node.runtime.mode != "nat":
        return
    own = set(map(ip_address, node.runtime.addresses))
    backends = [backend for service in node.config.services for backend in service.backends]
    seen_dips = own | set(map(ip_address, node.runtime.sockets_elsewhere or ()))
    hidden = sorted({str(one.dip) for one in backends if one.tunnel_to in own and one.dip not in seen_dips})
    if hidden:
        named = ", ".join(hidden[:MOST_NAMED]) + (", ..." if len(hidden) > MOST_NAMED else "")
        seen = (
            f"the sockets of {named} are in a virtual machine, or in a network namespace that this agent cannot enter:"
        )
        hint = "run the agent as root, with CAP_SYS_ADMIN and CAP_SYS_PTRACE, or raise `idle: {tcp_s}` of the service"
        yield warning("sockets", f"{seen} a connection that is idle for longer than its timeout breaks", hint)
    else:
        yield ok("sockets", "the agent sees every backend's sockets: no entry of a live connection expires")


def replies(node: NodeState) -> Iterator[Finding]:
    """Report replies without a flow entry, counted since the agent started."""
    if node.counters is None:
        return
    verdicts, slow = node.counters["verdicts"], node.counters["slowpath"] or {}
    if ambiguous := slow.get("reply_ambiguous"):
        seen = f"{counted(ambiguous, 'reply', 'replies')} dropped: no flow entry, and several VIPs map to the port"
        yield warning("flow entries", seen, "give each VIP its own port on the server")
    if unchecked := slow.get("reply_unchecked"):
        seen = f"{counted(unchecked, 'reply', 'replies')} without a flow entry left with the DIP as source"
        yield warning("flow entries", seen, "the agent cannot inspect their sockets: see `sockets` above")
    if late := verdicts.get("untracked"):
        seen = f"{counted(late, 'datagram')} left with the DIP as source: the client addressed the DIP, or the flow"
        hint = "if replies were late, raise `idle: {udp_s}` of the service"
        yield warning("flow entries", f"{seen} was idle for longer than its timeout", hint)


def held(node: NodeState) -> Iterator[Finding]:
    """Report a holding device that a stopped agent left behind: replies queue there and are never sent."""
    if node.runtime is None and is_held():
        seen = f"no agent runs here, and {DEVICE} holds the backends' replies so that connections survive a restart"
        yield fault("agent", seen, "start `lbmux agent`, or run `lbmux detach -i INTERFACE` if no agent is to run here")
