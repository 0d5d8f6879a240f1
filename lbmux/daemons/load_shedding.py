"""Keeps the VIPs of a mux in user space from harming each other: while packets exceed ``capacity_pps``, each VIP is
admitted its fair share, and the kernel drops the rest at random before the packet ring, new flows first.

Which VIP gets how much is estimated from samples of each batch, and what was dropped from what was admitted. If more
VIPs are over their share than the kernel's filter has space for, those with the largest excess are held to it.
"""

import ctypes
import logging
import random
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping
from errno import ENOMEM
from itertools import islice
from typing import NamedTuple

from lbmux.addresses import Address
from lbmux.config.models import Config
from lbmux.frames.admission_filter import MOST_VIPS, admission
from lbmux.frames.batch import Batch
from lbmux.frames.socket_filters import RETURN, WHOLE, Line
from lbmux.metrics.fair_shares import LEAST, Admitted, admitted, fair_shares, weights_of
from lbmux.wire.header_layouts import ETHERNET_BYTES, IPV4, IPV6, IPV6_BYTES, PROTOCOL_AT, TCP
from lbmux.wire.numbers import ACK, ETHERTYPE_IPV4, ETHERTYPE_IPV6, SYN, TCP_PROTOCOL
from lbmux.wire.packet import ethertype, ipv4_header_bytes

WINDOW_S = 0.1
SAMPLES, SAMPLED_BYTES = 32, 128
"""The most frames of a batch, and the most bytes of a frame, that are examined."""
AVERAGED_S = 1.0
"""The time over which rates are averaged: frames that waited for the process to get a CPU are no burst."""
log = logging.getLogger(__name__)
EVERYTHING: tuple[Line, ...] = ((RETURN, 0, 0, WHOLE),)


class Window(NamedTuple):
    """A time, the packets to other addresses in it, and by VIP the packets of new flows and others that were sent."""

    seconds: float
    elsewhere: float
    sent: Mapping[Address, tuple[float, float]]


class LoadShedding:
    """``restrict`` sets the program of the mux's ring.  ``admitted``: the VIPs over their share, and what they get.

    Of VIPs that are black holes LEAST of the packets passes, which the data path counts and drops.
    """

    limited: Mapping[Address, Admitted] = {}
    """What is not dropped behind the gate: everything."""

    def __init__(self, restrict: Callable[[tuple[Line, ...]], None]) -> None:
        self._restrict = restrict
        self.otherwise = EVERYTHING
        """The ring's program while nothing is shed."""
        self.admitted: Mapping[Address, Admitted] = {}
        self.dropped = 0.0
        """Packets dropped since the start, as estimated."""
        self._isolated: Mapping[Address, Admitted] = {}
        self._dropped_isolated, self._in_force = 0.0, False
        self._most_vips = MOST_VIPS
        """The most VIPs that the ring's program has space for."""
        self._capacity: int | None = None
        self._weights: dict[Address, int] = {}
        self._vips: dict[bytes, Address] = {}
        self._counts = _no_counts()
        self._windows = deque[Window]()
        self._begun: float | None = None

    @property
    def unseen(self) -> int:
        """Packets that no verdict counts, without those to black holes."""
        return int(self.dropped - self._dropped_isolated)

    @property
    def thinned(self) -> Mapping[Address, Admitted]:
        """What gets to the gate of VIPs that packets are dropped of before it, by the ring's program."""
        return dict(islice({**self._isolated, **self.admitted}.items(), self._most_vips))

    @property
    def wanted(self) -> bool:
        return self._capacity is not None

    def configure(self, config: Config) -> None:
        self._capacity, self._weights = config.capacity_pps, weights_of(config)
        self._vips = {vip.packed: vip for vip in self._weights}
        if not self.wanted:
            self._admit({})

    def isolate(self, vips: Collection[Address]) -> None:
        """Make exactly these VIPs black holes."""
        if vips != self._isolated.keys():
            self._isolated = dict.fromkeys(vips, Admitted(LEAST, LEAST))
            self._windows.clear()
            self._counts = _no_counts()
            self._admit({vip: share for vip, share in self.admitted.items() if vip not in self._isolated})

    def take(self, batch: Batch) -> None:
        """Sample a batch as it was received: every frame of a short one."""
        step = -(-batch.count // SAMPLES)
        sampled = range(random.randrange(step), batch.count, step)
        for index in sampled:
            length = min(int(batch.length[index]), SAMPLED_BYTES)
            destination, is_new = _sample(ctypes.string_at(int(batch.address[index]), length))
            self._counts[self._vips.get(destination)][is_new] += batch.count / len(sampled)

    def read(self, now: float) -> None:
        """Decide again what is admitted, if a window has passed since the last time (monotonic seconds)."""
        self._begun = self._begun or now
        seconds = now - self._begun
        if self._capacity is None or seconds < WINDOW_S:
            return
        counts, self._counts, self._begun = self._counts, _no_counts(), now
        elsewhere, sent = sum(counts.pop(None, [0.0])), dict[Address, tuple[float, float]]()
        for vip, (others, new) in counts.items():
            assert vip is not None
            share = self.thinned.get(vip, Admitted())
            sent[vip] = new / share.new, others / share.others
            self.dropped += sum(sent[vip]) - new - others
            if vip in self._isolated:
                self._dropped_isolated += sum(sent.pop(vip)) - new - others
        self._windows.append(Window(seconds, elsewhere, sent))
        while sum(window.seconds for window in self._windows) - self._windows[0].seconds >= AVERAGED_S:
            self._windows.popleft()
        self._decide(self._capacity)

    def _decide(self, capacity: int) -> None:
        seconds = sum(window.seconds for window in self._windows)
        elsewhere = sum(window.elsewhere for window in self._windows) / seconds
        new, others = defaultdict[Address, float](float), defaultdict[Address, float](float)
        for window in self._windows:
            for vip in window.sent.keys() & self._weights.keys():
                new[vip] += window.sent[vip][0] / seconds
                others[vip] += window.sent[vip][1] / seconds
        demands = {vip: new[vip] + others[vip] for vip in new}
        shares = fair_shares(demands, self._weights, capacity - elsewhere)
        excess = {vip: demands[vip] - share for vip, share in shares.items() if share < demands[vip]}
        over = {vip: shares[vip] for vip in sorted(excess, key=lambda vip: excess[vip], reverse=True)}
        self._admit({vip: admitted(new[vip], others[vip], share) for vip, share in over.items()})

    def _admit(self, shares: Mapping[Address, Admitted]) -> None:
        before, self.admitted = self._in_force, shares
        if self.thinned:
            self._thin()
        elif before:
            self._restrict(self.otherwise)
        self._in_force = bool(self.thinned)

    def _thin(self) -> None:
        """Set the ring's program, for fewer VIPs if the kernel has no memory for all of them."""
        while True:
            try:
                self._restrict(admission(self.thinned, self.otherwise) if self.thinned else self.otherwise)
                return
            except OSError as error:
                if error.errno != ENOMEM or not self.thinned:
                    raise
                self._most_vips = len(self.thinned) // 2
                log.warning(
                    "the kernel has no memory for the filter of more than %d VIPs; raise net.core.optmem_max to hold "
                    "more of them to their share", self._most_vips,
                )  # fmt: skip


def _no_counts() -> dict[Address | None, list[float]]:
    """Return counts of other packets and of new flows, by VIP; None: of packets to other addresses."""
    return defaultdict(lambda: [0.0, 0.0])


def _sample(frame: bytes) -> tuple[bytes, bool]:
    """Return a frame's destination address and whether it begins a TCP connection; no address if it is not IP."""
    kind = ethertype(frame[:ETHERNET_BYTES])
    if kind == ETHERTYPE_IPV4 and len(frame) > ETHERNET_BYTES:
        version, at, length, end = 4, IPV4.at("destination"), 4, ipv4_header_bytes(frame[ETHERNET_BYTES:])
    elif kind == ETHERTYPE_IPV6:
        version, at, length, end = 6, IPV6.at("destination"), 16, IPV6_BYTES
    else:
        return b"", False
    packet = frame[ETHERNET_BYTES:]
    flags = packet[end + TCP.at("flags") :][:1] if packet[PROTOCOL_AT[version] :][:1] == bytes([TCP_PROTOCOL]) else b""
    return packet[at : at + length], bool(flags) and flags[0] & (SYN | ACK) == SYN
