"""The meaning of each slow path counter, named as under ``slowpath`` in ``lbmux show counters``."""

_LIMITS = {
    "over_packets_per_s": "dropped: over `slowpath.packets_per_s`",
    "over_source_share": "dropped over a budget (counted there, too) while sources of several prefixes shared it",
}
_ICMP = {
    "icmp_no_flow": "ICMP errors dropped: no backend has the quoted flow",
    "icmp_unusable": "ICMP messages dropped: neither a ping nor an error with a usable quote",
}
_MUX = {
    "over_cpu": "fragments, ICMP and packets that are too big or whose TTL ends dropped: over `slowpath.cpu`",
    "loop_behind": "the same dropped, because the packet loop was 50 ms behind",
    "over_icmp_per_s": "ICMP messages not sent: over `slowpath.icmp_per_s`",
    "over_rejects_per_s": "packets for a service without a backend dropped: over `slowpath.rejects_per_s`",
    "no_backend_in_mid_connection": "packets of connections in progress dropped because no backend takes new flows",
    "rejected_reset": "TCP resets sent because no backend takes new flows",
    "rejected_unreachable": "ICMP port unreachable sent because no backend takes new flows",
    "time_exceeded": "ICMP time exceeded sent",
    "echo_answered": "pings answered",
    "echo_forwarded": "pings forwarded to a backend",
    "echo_dropped": "pings dropped, by `slowpath.echo` or without a backend",
    "too_big_answered": "ICMP fragmentation needed or packet too big sent",
    "too_big_fragmented": "packets whose outer packet was fragmented",
    "too_big_dropped": "packets dropped by `slowpath.too_big: drop`",
    "icmp_forwarded": "ICMP errors forwarded to the flow's backend",
    "path_mtu_learned": "ICMP errors about a tunnel that updated a host's path MTU",
    "outer_error_relayed": "ICMP errors about a tunnel passed on to the client",
    "outer_error_ignored": "ICMP errors about a tunnel ignored: the quote matches no tunnel packet of this mux",
    "returned_forwarded": "packets returned by a host and sent to the next candidate",
    "returned_reset": "resets sent because no host that was asked has the connection",
    "returned_not_answered": "packets of connections that no host has, and that RFC 9293 forbids answering",
    "returned_unusable": "returned packets dropped: no flow to a VIP in them",
    "returned_copy": "ICMP errors dropped: a host returned one of two copies, and the mux searches with the other",
    "returned_ttl": "returned packets dropped: the inner TTL is used up",
    "returned_over_cpu": "returned packets dropped: over `slowpath.second_chance_cpu`",
    "fragment_forwarded": "fragments forwarded to the backend of their datagram",
    "fragment_no_backend": "fragments dropped: the service has no backend",
    "fragment_tiny": "fragments dropped: the first one ends before the ports, or the second begins there (RFC 1858)",
    "fragment_malformed": "fragments dropped: impossible offset or length",
    "fragment_protocol": "fragments dropped: neither TCP nor UDP",
    "fragment_overlap": "fragments dropped: they overlap others of their datagram (RFC 5722)",
    "fragment_duplicate": "fragments dropped: repeated",
    "fragment_too_many": "fragments dropped: too many in one datagram",
    "fragment_no_buffer": "fragments dropped: `slowpath.fragments.buffered` others wait for a first fragment",
    "fragment_timeout": "fragments dropped: the first fragment did not arrive in time",
    "fragment_evicted": "fragments dropped: more datagrams than `slowpath.fragments.datagrams`",
    "to_mux": "fragments sent to the mux that owns their datagram",
    "from_mux": "fragments received from another mux",
    "from_mux_unusable": "packets from another mux dropped: not a fragment for a VIP",
    "not_tunnelled": "packets dropped: the backend's next hop is not known",
    "unsent": "frames that the interface did not accept",
    "path_mtus": "hosts whose path MTU is below the link's (a gauge)",
}
_AGENT = {
    "tunnel_unusable": "tunnel packets dropped: nothing readable inside",
    "unknown_connected": "unknown connections that the host has: delivered",
    "unknown_returned": "packets of connections that the host does not have: returned to the mux",
    "unknown_of_another_vip": "packets whose client and port have a connection by another VIP: returned to the mux",
    "unknown_reopened": "connections opened by another VIP than the entry's, whose connection is over",
    "unknown_over_cpu": "packets of unknown connections and ICMP dropped: over `slowpath.second_chance_agent_cpu`",
    "unknown_unchecked": "unknown connections delivered: the kernel does not list its sockets",
    "reply_adopted": "replies without a flow entry whose socket is alive: entered and sent",
    "reply_ambiguous": "replies dropped: several VIPs lead to their port; TCP repeats them",
    "reply_without_connection": "replies dropped: no socket has their connection",
    "reply_unchecked": "replies sent unchanged: the DIP's sockets are in another network namespace",
    "flows_restored": "flow entries made from the host's sockets",
    "icmp_translated": "ICMP errors of this host sent with the VIP in source and quote",
    "icmp_delivered": "pings and ICMP errors delivered to the host",
    "icmp_returned": "ICMP errors about connections that the host does not have: returned to the mux",
    "undelivered": "packets that the TUN device did not accept",
    "reassembled": "packets reassembled from fragments",
    "reassembly_malformed": "fragments dropped: impossible offset or length",
    "reassembly_overlap": "fragments dropped: they overlap others of their packet",
    "reassembly_duplicate": "fragments dropped: repeated",
    "reassembly_evicted": "incomplete packets dropped: the buffer is full",
    "reassembly_timeout": "incomplete packets dropped: the last fragments did not arrive in time",
}
_NOT_ALLOWED = {
    f"{name}_not_allowed": f"as `{name}`, but the packet's kind must not be answered (RFC 1122, 4443)"
    for name in (
        "rejected_reset", "rejected_unreachable", "time_exceeded", "too_big_answered", "echo_answered",
    )
}  # fmt: skip
MEANINGS = {"mux": _LIMITS | _MUX | _ICMP | _NOT_ALLOWED, "agent": _LIMITS | _AGENT | _ICMP}
"""Maps the program to its counters and their meanings."""
