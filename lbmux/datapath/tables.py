"""Table layouts: flat arrays in one set of regions, shared by Python, native code and the kernel.

Each region is one block of memory (anonymous, or an mmap-able BPF map), seen from Python as a NumPy
structured array and from the data path through ``rows``.  Addresses are 128 bits as two loaded 64-bit
halves, IPv4 in its mapped form (see lbmux.addresses); ports are as loaded from the wire; times are ticks.
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
)
"""One row.  ``active`` says which copy of names and services is in force; keys are secret and random;
``longest_idle`` is the longest idle time of all, in ticks, ``changed`` when the Maglev tables last did; ``any_port``:
some service has no port; ``entropy_muxes``: muxes put a flow's hash into their source address; ``direct_endpoint``: an
agent's endpoint for connections straight to a backend's address; ``punt_interface``: the interface by which the kernel's
agent hands replies to user space."""

ADDRESS_ENTRY = layout(
    ("high", "u8"), ("low", "u8"), ("port", "u2"), ("protocol", "u1"), ("kind", "u1"), ("index", "u4"), ("unused", "u8")
)
"""An address that means something: (kind, address, port, protocol) to an index.  Two copies of ``names`` rows."""

SERVICE = layout(
    ("slots", "u4"),
    ("size", "u4"),
    ("idle_untrusted", "u4"),
    ("idle_trusted", "u4"),
    ("idle_closing", "u4"),
    ("seed", "u4"),
    ("hashed", "u4"),
    ("port_mask", "u4"),
    ("rules", "u4"),
    ("rule_count", "u4"),
    ("rate", "u4"),
    ("quic_bytes", "u1"),
    ("quic_rotation", "u1"),
    ("rejects", "u1"),
    ("unused", "u1"),
    ("previous", "u4"),
    ("unused2", "u4"),
    ("unused3", "u8"),
)
"""One cache line.  ``slots``/``size``: where its Maglev table lies in the slot region, ``previous`` where the one
before lies, or NONE; ``rules``/``rule_count``: its access list.  ``hashed`` and ``port_mask``: what of a packet picks
the slot.  ``rate``: new flows in 1024 ticks that one worker enters, 0 for all.  ``quic_bytes``: bytes of a server id in
a connection id.  ``rejects``: whether clients are told that there is no backend; ``rate`` is then of packets that the
kernel punts for that.  Two copies of ``services`` rows."""

NONE, PREVIOUS_LOST = 0xFFFFFFFF, 0xFFFFFFFE
"""For ``previous``: there is no Maglev table before; or there was one, which nobody has any more."""

HASH_SOURCE, HASH_DESTINATION = 1, 2
"""Bits of ``hashed``: which addresses pick the slot."""

RULE = layout(("high", "u8"), ("low", "u8"), ("allowed", "u8"))
"""From this address on (as a number, in the machine's byte order) up to the next row's, sources are allowed or not."""
RULE_STEPS = 18
MOST_RULES = 1 << RULE_STEPS
"""Rows that a look-up can tell apart."""

RATE = layout(("tokens", "u4"), ("at", "u4"))
"""A worker's token bucket for a service's new flows: 1024 tokens are a flow."""

SLOT = layout(("backend", "u2"))

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
"""One cache line: all that is needed to send to a backend.  A MAC address is one 64-bit store, so it changes
between two packets; zero is unknown.  ``checksum`` is the sum of the outer IPv4 header's constant words, ``tunnel`` the
kind of encapsulation with its marks, ``overhead_bytes`` the bytes that it takes."""

IPIP, GUE1, GUE0, GRE, GENEVE, DIRECT = range(6)
KIND_MASK, OUTER_IPV6, ENTROPY = 7, 8, 16
"""Kinds of encapsulation, and marks beside them: the outer header is IPv6; its source carries the flow's hash."""

FLOW = layout(
    ("high", "u8"),
    ("low", "u8"),
    ("ports", "u4"),
    ("owner", "u2"),
    ("target", "u2"),
    ("seen", "u4"),
    ("state", "u1"),
    ("generation", "u1"),
    ("overflowed", "u2"),
)
"""32 bytes: the client's address and both ports, ``owner`` (the service that stands for VIP and protocol; at an
agent the DIP), and ``target`` (the backend; at an agent the endpoint)."""

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
"""At an agent: one VIP and port, and the DIP and port behind it.  ``mss``: what a SYN-ACK may offer at most, in bytes
of payload, 0 for anything; ``asks``: whether the host's sockets are asked about connections that are not known."""

IDENTITY = layout(("value", "u8"))
"""What a service or a backend is called, hashed: so a later process finds the rows again.  Not for the data path."""

COUNT = layout(("packets", "u8"), ("bytes", "u8"))
TRAFFIC = layout(("packets", "u8"), ("bytes", "u8"), ("flows", "u8"), ("unused", "u8"))

WAYS = 4
BUCKET_BYTES = WAYS * FLOW.itemsize
"""Two cache lines."""

UNTRUSTED, TRUSTED, CLOSING = 1, 2, 3
"""States of a flow; 0 is an empty place."""

GONE, UP, DRAINING = 0, 1, 2
"""States of a backend: not used, used, used by the flows it has."""

VIP, DIP, MUX, TUNNEL_ADDRESS, SERVER_ID, ENTROPY_MUX, SOURCE = 1, 2, 3, 4, 5, 6, 7
"""Kinds of names: a service's address, a local backend's, a mux's (outer source), our own (outer destination); a
server id in QUIC connection ids (its service stands for the port), a mux's source without the flow's hash; a local
backend's address without its port, as fragments and ICMP errors show it."""

AGENT_MARK = 0x6C62  # "lb"
"""SO_MARK of packets that an agent sends itself, which it does not look at again."""

LOCAL, NAT = 0, 1
"""Modes of an endpoint: the VIP is on a local interface; or VIP is translated to DIP."""

LOOKUPS = {
    "hit": "found",
    "new": "not found, and entered",
    "evicted": "not found, and entered in place of a live untrusted flow",
    "full": "not found, and no place for it: the Maglev table alone decides",
    "gone": "found, but its backend is gone",
    "expired": "found, but idle for too long, so treated as new",
    "elsewhere": "found in another worker's part of the table, and entered in this worker's",
    "limited": "not found, and not entered: the service is over `new_flows_per_s`",
    "server_id": "a QUIC connection id named the backend",
    "previous": "not found, and entered with the backend that the slot had before the last change",
}
"""What a look-up in the flow table found, and what that means, in the order of the counters."""
HIT, NEW, EVICTED, FULL, LOST, EXPIRED, ELSEWHERE, LIMITED, BY_SERVER_ID, BY_PREVIOUS = range(len(LOOKUPS))
LOOKUP_ROWS = 16

PADDING = 64
"""Bytes behind every region, so that a bound that is rounded up stays inside."""

MAGIC = int.from_bytes(b"lbmux-01", "little")
LAYOUTS = (SETTINGS, ADDRESS_ENTRY, SERVICE, SLOT, RULE, RATE, BACKEND, FLOW, ENDPOINT, IDENTITY, COUNT, TRAFFIC)
HASHES = 3
"""Another number where rows are placed otherwise."""
VERSION = zlib.crc32(repr([HASHES, *(layout.descr for layout in LAYOUTS)]).encode())
"""Changes with any layout, and with the hashes: tables of another version are not adopted."""


@dataclass(frozen=True)
class Sizes:
    """How many rows each table has.  All but ``slots``, ``endpoints`` and ``workers`` are powers of two."""

    addresses: int = 4096
    services: int = 1024
    slots: int = 16 * 65537
    backends: int = 4096
    buckets: int = 1 << 19  # of one worker
    endpoints: int = 1
    workers: int = 1
    rules: int = 16

    @property
    def version(self) -> int:
        return VERSION << 32 | zlib.crc32(repr(astuple(self)).encode())

    def regions(self) -> dict[str, int]:
        """Bytes of each region."""
        return {
            "settings": SETTINGS.itemsize + PADDING,
            "addresses": 2 * self.addresses * ADDRESS_ENTRY.itemsize + PADDING,
            "services": 2 * self.services * SERVICE.itemsize + PADDING,
            "slots": self.slots * SLOT.itemsize + PADDING,
            "rules": self.rules * RULE.itemsize + PADDING,
            "rates": self.workers * self.services * RATE.itemsize + PADDING,
            "backends": self.backends * BACKEND.itemsize + PADDING,
            "flows": self.workers * self.buckets * BUCKET_BYTES + PADDING,
            "endpoints": self.endpoints * ENDPOINT.itemsize + PADDING,
            "identities": (self.services + self.backends) * IDENTITY.itemsize + PADDING,
            "verdicts": self.workers * VERDICTS * COUNT.itemsize + PADDING,
            "lookups": self.workers * LOOKUP_ROWS * 8 + PADDING,
            "traffic": self.workers * self.backends * TRAFFIC.itemsize + PADDING,
        }


settings_row, address_entry_row, service_row, slot_row = rows(SETTINGS), rows(ADDRESS_ENTRY), rows(SERVICE), rows(SLOT)
backend_row, flow_row, endpoint_row = rows(BACKEND), rows(FLOW), rows(ENDPOINT)
rule_row, rate_row = rows(RULE), rows(RATE)
count_row, traffic_row, lookup_row = rows(COUNT), rows(TRAFFIC), rows(layout(("count", "u8")))

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
}
"""The layout of each region's rows, for views from Python."""
