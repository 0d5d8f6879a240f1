"""ICMP errors about a mux's outer packets: the mux learns the path MTU, and relays the error to the client.

Only a credible error counts: it quotes a packet that this mux may have sent to that host (RFC 5927, section 4).
"""

from lbmux.addresses import Address
from lbmux.slowpath import icmp_errors
from lbmux.slowpath.mux_context import MuxContext
from lbmux.slowpath.mux_output import BY_ROUTE, MuxOutput, Sent
from lbmux.slowpath.path_mtu import OuterError, PathMtus, read_outer_error
from lbmux.slowpath.slow_path_flow import Flow, client_flow
from lbmux.slowpath.tunnels import carrier, inside
from lbmux.wire.icmp_types import HOST
from lbmux.wire.packet import Packet

UNREACHABLE_CODE = {4: HOST, 6: 3}
"""ICMP codes by IP version: host unreachable (RFC 792), address unreachable (RFC 4443)."""


class OuterErrors:
    """Handles ICMP errors to the mux. ``mtus`` are the path MTUs to hosts."""

    def __init__(self, output: MuxOutput, context: MuxContext, mtus: PathMtus) -> None:
        self._output, self._forwarder, self._mtus = output, output.forwarder, mtus
        self.configure(context)

    def configure(self, context: MuxContext) -> None:
        self._context = context
        self._mtus.keep(context.hosts)

    def handle(self, packet: Packet, now: float) -> list[Sent]:
        """Handle an ICMP error about an outer packet that we sent to a host, if it is credible.

        ``now`` is in seconds of a monotonic clock.
        """
        error = read_outer_error(packet, self._context.hosts)
        if error is None or carrier(error.quote) not in self._context.hosts[error.host]:
            return self._output.drop("outer_error_ignored")
        inner = inside(error.quote, *self._context.ports, is_quoted=True)
        flow = None if inner is None else client_flow(inner)
        backend = None if flow is None else self._backend_at(flow, error.host)
        if inner is not None and (inner.destination not in self._context.vips or (flow and backend is None)):
            return self._output.drop("outer_error_ignored")
        if error.mtu_bytes is not None:
            mtu_bytes = error.least(self._context.settings.path_mtu_floor)
            if mtu_bytes is None:
                return self._output.drop("outer_error_ignored")
            self._mtus.learn(error.host, mtu_bytes, now)
            self._output.counts["path_mtu_learned"] += 1
        return [] if inner is None or backend is None else self._relay(error, inner, backend, now)

    def _backend_at(self, flow: Flow, host: Address) -> int | None:
        """Return the backend at a host that the flow has or recently had."""
        entry = self._forwarder.entry(flow)
        known = [] if entry is None else self._forwarder.at_host([entry], host)
        backends = known or self._forwarder.at_host(self._forwarder.likely(flow), host)
        return backends[0] if backends else None

    def _relay(self, error: OuterError, inner: Packet, backend: int, now: float) -> list[Sent]:
        """Send the client an error about its own packet, ``inner``."""
        vip = inner.destination
        if error.mtu_bytes is None:
            answer = icmp_errors.unreachable(inner, vip, UNREACHABLE_CODE[inner.version])
        else:
            answer = icmp_errors.too_big(inner, self._forwarder.inner_mtu(backend), vip)
        if answer is None:
            return []
        if not self._output.messages.take(inner.source.packed, now):
            return []
        self._output.counts["outer_error_relayed"] += 1
        return [Sent(BY_ROUTE, answer)]
