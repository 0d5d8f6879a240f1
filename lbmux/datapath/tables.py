"""Table layouts: flat arrays in one set of regions, shared by Python, native code and the kernel.

Each region is one block of memory (anonymous, or an mmap-able BPF map). Python sees it as a NumPy structured array,
the data path through ``rows``. Addresses are 128 bits as two loaded 64-bit halves, IPv4 in its mapped form (see
lbmux.addresses); ports are as loaded from the wire; times are in ticks.
"""

import zlib
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from lbmux.datapath.memory import layout, rows
from lbmux.datapath.verdicts import VERDICTS

TICK_SHIFT = 20
"""A tick is 2**20 ns (1.05 ms) of CLOCK_MONOTONIC, counted modulo 2**32 (52 days)."""

SETTINGS = layout(
    ("magic", "u8"),
    ("version", "u8"),
    ("active", "u4"),
    ("trusted_ways", "u4"),
    ("untrusted_ways", "u4"),
    ("workers", "u4"),
    ("key0", "u8"),
    ("key1", "u8"),
    ("key2", "u8"),
    ("key3", "u8"),
    ("key4", "u8"),
    ("key5", "u8"),
    ("key6", "u8"),
    ("salt0", "u4"),
    ("salt1", "u4"),
    ("tables_changed", "u4"),
    ("longest_idle", "u4"),
    ("gue_port", "u2"),
    ("geneve_port", "u2"),
    ("any_port", "u2"),
    ("entropy_muxes", "u2"),
    ("direct_endpoint", "u4"),
    ("punt_interface", "u4"),
    ("gated", "u4"),
    ("unused4", "u4"),
)
"""One row. ``active``: the copy of the address map and the services that is in force; keys are secret and random;
``longest_idle``: the longest idle limit of all, in ticks; ``tables_changed``: when the Maglev tables last changed;
``any_port``: some service has no port; ``entropy_muxes``: muxes put a flow's hash into their source address;
``direct_endpoint``: an agent's endpoint for connections that clients open directly to a backend's address;
``punt_interface``: the interface through which the kernel's agent passes replies to user space; ``gated``: the mux in
user space counts packets by VIP and drops those to black holes (datapath.gate)."""

ADDRESS_ENTRY = layout(
    ("high", "u8"), ("low", "u8"), ("port", "u2"), ("protocol", "u1"), ("kind", "u1"), ("index", "u4"), ("unused", "u8")
)
"""An entry of the address map: (kind, address, port, protocol) to an index. Two copies of ``addresses`` rows."""

ADDRESS_LABEL = layout(("high", "u8"), ("low", "u8"), ("label", "u4"), ("index", "u4"), ("unused", "u8"))
"""The same entry as it is compared: ``label`` is port, protocol and kind as one number."""

SERVICE = layout(
    ("slots", "u4"),
    ("size", "u4"),
    ("idle_untrusted", "u4"),
    ("idle_trusted", "u4"),
    ("idle_closing", "u4"),
    ("seed", "u4"),
    ("port_mask", "u4"),
    ("rules", "u4"),
    ("rule_count", "u4"),
    ("hashed", "u1"),
    ("limited", "u1"),
    ("special", "u1"),
    ("unused1", "u1"),
    ("quic_bytes", "u1"),
    ("quic_rotation", "u1"),
    ("rejects", "u1"),
    ("tracking", "u1"),
    ("former", "u4"),
    ("former_size", "u4"),
    ("changed", "u4"),
    ("unused4", "u4"),
    ("unused8", "u4"),
)
"""One cache line. ``slots`` and ``size`` locate its Maglev table in the slot region, ``former`` and ``former_size`` the
one before a change of its size, or NONE; ``rules`` and ``rule_count`` locate its access list. ``changed``: when its
table last changed, in ticks; ``tracking``: which flows get an entry. ``hashed`` and ``port_mask`` select the fields
that pick the slot. ``limited``: the service has a rate limit (RATE). ``special``: its packets need more than a steady
slot, so the kernel's path for ordinary packets leaves them to the general one. ``quic_bytes`` is the length of a server
id in a connection id. ``rejects``: clients get a reset or an ICMP error while the service has no backend. Two copies of
``services`` rows."""

NONE = 0xFFFFFFFF
"""The value of ``former`` if the table has not changed its size, or the former table is no longer available."""

TRACK_CHANGED, TRACK_ALL, TRACK_NONE = 0, 1, 2
"""Values of ``tracking``: flows of slots that have changed get an entry, as in JET (CoNEXT 2021); all flows; none."""

HASH_SOURCE, HASH_DESTINATION = 1, 2
"""Bits of ``hashed``: the addresses that pick the slot."""

RULE = layout(("high", "u8"), ("low", "u8"), ("allowed", "u8"))
"""Sources from this address (a number in the machine's byte order) up to the next row's are allowed or denied."""
RULE_STEPS = 18
MOST_RULES = 1 << RULE_STEPS
"""The most rows that a look-up can search."""

RATE = layout(("full_until", "u8"), ("price", "u4"), ("unused", "u4"))
"""A rate limit, as in datapath.rate_limits. ``full_until``: a time in 2**-32 ticks; ``price``: the time that one packet
or flow takes of the limit, in 2**-22 ticks; 0: no limit. All workers share the row, so a limit is the whole mux's."""

PACKET_RATE, FLOW_RATE, REJECT_RATE = 0, 1, 2
"""Limits of a service: packets, new flows, and packets that the kernel punts so that user space rejects them. Each has
a block of ``services`` rows in the region of rates; the limits of new flows to each backend follow."""
RATE_BLOCKS = 3

SOURCE_CELLS = 32
SOURCES = np.dtype(("u2", SOURCE_CELLS))
"""A cache line of the sketch of known sources (datapath.known_sources)."""

VIP_USAGE = layout(
    ("packets", "u8"),
    ("begins", "u8"),
    ("judged", "u8"),
    ("follows", "u8"),
    ("dropped", "u8"),
    ("until", "u4"),
    ("unused4", "u4"),
    ("begun", "u8"),
    ("completed", "u8"),
    *((f"sources{number}", "u8") for number in range(8)),
)
"""What came for a VIP while the gate is open (datapath.gate), all growing: ``packets``; ``begins``: those that begin a
TCP connection; ``judged``: a sample of the others; ``follows``: those of them whose flow sent a packet before;
``dropped``: those to a black hole. ``until``: in ticks, the end of the black hole; 0: none. ``begun``: a sample of the
TCP connections that began; ``completed``: those of them that went on. The last words are a bitmap of hashed sources.
A VIP has the row of the first of its services."""
SOURCE_BITS_AT, SOURCE_BITS = VIP_USAGE.fields["sources0"][1], 512  # type: ignore[index]

SLOT = layout(("backend", "u2"), ("base", "u2"))
"""A slot of a Maglev table: its backend, and the backend of those of its flows that have no entry. A slot is steady
if the two are the same; else it has changed, and its flows have entries or are at the base (docs/flow-state.md)."""

NO_BACKEND_ROW, NO_BASE, FORMER_TABLE = 0xFFFF, 0xFFFF, 0xFFFE
"""``backend``: the slot is empty. ``base``: flows without an entry are at the slot's backend, others have an entry;
the former table, whose size was another one, has the base."""

BACKEND = layout(
    ("local_high", "u8"),
    ("local_low", "u8"),
    ("remote_high", "u8"),
    ("remote_low", "u8"),
    ("destination_mac", "u8"),
    ("source_mac", "u8"),
    ("interface", "u4"),
    ("checksum", "u4"),
    ("mtu", "u2"),
    ("service", "u2"),
    ("generation", "u1"),
    ("state", "u1"),
    ("tunnel", "u1"),
    ("overhead_bytes", "u1"),
)
"""One cache line with everything that is needed to send to a backend. A MAC address is one 64-bit store, so it changes
atomically; zero means unknown. ``checksum`` is the sum of the outer IPv4 header's TTL and addresses, as loaded,
``tunnel`` the kind of encapsulation with its flags, ``overhead_bytes`` the bytes that it adds."""

IPIP, GUE1, GUE0, GRE, GENEVE, DIRECT = range(6)
KIND_MASK, OUTER_IPV6, ENTROPY = 7, 8, 16
"""Kinds of encapsulation, and flags beside them: the outer header is IPv6; its source carries the flow's hash."""

FLOW = layout(
    ("owner", "u2"),
    ("state", "u1"),
    ("generation", "u1"),
    ("target", "u2"),
    ("version", "u2"),
    ("high", "u8"),
    ("low", "u8"),
    ("ports", "u4"),
    ("seen", "u4"),
)
"""32 bytes: the client's address and both ports, ``owner`` (the service, which identifies VIP and protocol; at an agent
the DIP), and ``target`` (the backend; at an agent the endpoint). ``version`` has the flags LOCKED, OVERFLOWED and
CLAIMED, and above them the number of times that the entry was reused."""

FLOW_WORD = layout(("word", "u8"), ("high", "u8"), ("low", "u8"), ("ports", "u4"), ("seen", "u4"))
"""The same entry as the data path reads and writes it: the first five fields change at once, as one word."""

ENDPOINT = layout(
    ("vip_high", "u8"),
    ("vip_low", "u8"),
    ("dip_high", "u8"),
    ("dip_low", "u8"),
    ("vip_port", "u2"),
    ("dip_port", "u2"),
    ("mode", "u1"),
    ("protocol", "u1"),
    ("owner", "u2"),
    ("idle_untrusted", "u4"),
    ("idle_trusted", "u4"),
    ("idle_closing", "u4"),
    ("state", "u1"),
    ("generation", "u1"),
    ("mss", "u2"),
    ("checks_sockets", "u1"),
    ("unused1", "u1"),
    ("unused2", "u2"),
    ("unused4", "u4"),
)
"""At an agent: one VIP and port, with its DIP and port. ``mss`` is the largest MSS that a SYN-ACK may offer, in bytes,
0 for no limit. ``checks_sockets``: user space checks the host's sockets for unknown connections."""

IDENTITY = layout(("value", "u8"))
"""The hashed name of a service or a backend, by which a later process finds the rows. The data path does not use it."""

COUNT = layout(("packets", "u8"), ("bytes", "u8"))
TRAFFIC = layout(("packets", "u8"), ("bytes", "u8"), ("flows", "u8"), ("admitted", "u8"))
"""A backend's traffic. ``flows`` counts the new flows that arrived, ``admitted`` those within the service's rate
limits, if it has any."""

WAYS = 4
BUCKET_BYTES = WAYS * FLOW.itemsize
"""Two cache lines."""

UNTRUSTED, TRUSTED, CLOSING = 1, 2, 3
"""States of a flow; 0 is an empty entry."""

LOCKED, OVERFLOWED, CLAIMED, VERSION_SHIFT = 1 << 48, 1 << 49, 1 << 50, 51
"""Flags in an entry's word, and where the version begins. A bucket's first word has LOCKED while a flow is entered
whose first bucket it is, and OVERFLOWED once such a flow was entered in its second one. CLAIMED: the entry is being
written."""

GONE, UP, DRAINING = 0, 1, 2
"""States of a backend: not in use, in use, in use by its existing flows only."""

VIP, DIP, MUX, TUNNEL_ADDRESS, SERVER_ID, ENTROPY_MUX, SOURCE, VIP_ADDRESS = 1, 2, 3, 4, 5, 6, 7, 8
"""Kinds of address map entries: a service's address, a local backend's, a mux's (outer source), our own (outer
destination); a server id in QUIC connection ids (with the service in place of the port); a mux's source without the
flow's hash; a local backend's address without its port, as fragments and ICMP errors have it; a VIP without its port,
with its VIP_USAGE row."""

AGENT_MARK = 0x6C62  # "lb"
"""SO_MARK of packets that an agent itself sends and must not process again."""

LOCAL, NAT = 0, 1
"""Modes of an endpoint: the VIP is on a local interface; or VIP is translated to DIP."""

LOOKUPS = {
    "hit": "found",
    "new": "not found, and entered",
    "evicted": "not found, and entered in place of a live untrusted flow",
    "full": "not found, and the flow table has no free entry: the Maglev table alone decides",
    "gone": "found, but its backend is gone",
    "expired": "found, but idle for too long, so treated as new",
    "contended": "not found, and not entered, because another CPU was entering a flow there at that moment",
    "server_id": "a QUIC connection id named the backend",
    "base": "not found, and entered with the backend that the slot had before it changed",
}
"""The outcomes of a look-up in the flow table with their meanings, in the order of the counters."""
HIT, NEW, EVICTED, FULL, LOST, EXPIRED, CONTENDED, BY_SERVER_ID, BY_BASE = range(len(LOOKUPS))
LOOKUP_ROWS = 16

PADDING = 64
"""Spare bytes after every region, so that a bound that is rounded up stays inside."""

MAGIC = int.from_bytes(b"lbmux-01", "little")
LAYOUTS = (
    SETTINGS, ADDRESS_ENTRY, SERVICE, SLOT, RULE, RATE, BACKEND, FLOW, ENDPOINT, IDENTITY, COUNT, TRAFFIC, VIP_USAGE,
)  # fmt: skip
HASHES = 4
"""Increase this number whenever a hash, the placement of rows or the meaning of a field changes."""
VERSION = zlib.crc32(repr([HASHES, *(layout.descr for layout in LAYOUTS)]).encode())
"""A digest of all layouts and hashes. A daemon does not adopt tables of another version."""


@dataclass(frozen=True)
class Sizes:
    """The number of rows of each table. All but ``slots``, ``endpoints`` and ``workers`` are powers of two."""

    addresses: int = 4096
    services: int = 1024
    slots: int = 16 * 65537
    backends: int = 4096
    buckets: int = 1 << 19
    endpoints: int = 1
    workers: int = 1
    rules: int = 16
    sources: int = 1

    @property
    def version(self) -> int:
        return VERSION << 32 | zlib.crc32(repr(astuple(self)).encode())

    def regions(self) -> dict[str, int]:
        """Return the size of each region in bytes."""
        return {
            "settings": SETTINGS.itemsize + PADDING,
            "addresses": 2 * self.addresses * ADDRESS_ENTRY.itemsize + PADDING,
            "services": 2 * self.services * SERVICE.itemsize + PADDING,
            "slots": self.slots * SLOT.itemsize + PADDING,
            "rules": self.rules * RULE.itemsize + PADDING,
            "rates": (RATE_BLOCKS * self.services + self.backends) * RATE.itemsize + PADDING,
            "backends": self.backends * BACKEND.itemsize + PADDING,
            "flows": self.buckets * BUCKET_BYTES + PADDING,
            "endpoints": self.endpoints * ENDPOINT.itemsize + PADDING,
            "identities": (self.services + self.backends) * IDENTITY.itemsize + PADDING,
            "verdicts": self.workers * VERDICTS * COUNT.itemsize + PADDING,
            "lookups": self.workers * LOOKUP_ROWS * 8 + PADDING,
            "traffic": self.workers * self.backends * TRAFFIC.itemsize + PADDING,
            "sources": self.sources * SOURCES.itemsize + PADDING,
            "vips": self.services * VIP_USAGE.itemsize + PADDING,
        }


settings_row, address_entry_row, service_row, slot_row = rows(SETTINGS), rows(ADDRESS_ENTRY), rows(SERVICE), rows(SLOT)
backend_row, flow_row, endpoint_row = rows(BACKEND), rows(FLOW), rows(ENDPOINT)
entry_row = rows(FLOW_WORD)
salt_row, SALTS_AT = rows(layout(("value", "u4"))), SETTINGS.fields["salt0"][1]  # type: ignore[index]
"""The salts of both copies of the address map, at this offset of the settings."""
rule_row, rate_row, address_label_row = rows(RULE), rows(RATE), rows(ADDRESS_LABEL)
count_row, traffic_row, lookup_row = rows(COUNT), rows(TRAFFIC), rows(layout(("count", "u8")))
source_cell_row, vip_usage_row = rows(layout(("seen", "u2"))), rows(VIP_USAGE)

ROWS: dict[str, np.dtype[Any]] = {
    "settings": SETTINGS,
    "addresses": ADDRESS_ENTRY,
    "services": SERVICE,
    "slots": SLOT,
    "rules": RULE,
    "rates": RATE,
    "backends": BACKEND,
    "flows": FLOW,
    "endpoints": ENDPOINT,
    "identities": np.dtype("u8"),
    "verdicts": COUNT,
    "lookups": np.dtype("u8"),
    "traffic": TRAFFIC,
    "sources": SOURCES.base,
    "vips": VIP_USAGE,
}
"""The layout of each region's rows, for views from Python."""
