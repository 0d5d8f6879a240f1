"""The compiled data path, set up by hand from the plain twins' objects, and batches of frames for it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

import numpy as np

from lbmux.addresses import port_to_wire
from lbmux.control.names import Name, fill
from lbmux.datapath.encapsulate import constant_sum
from lbmux.datapath.tables import DIP, LOOKUPS, MUX, NAT, OWN, VIP, WAYS, Sizes
from lbmux.datapath.verdicts import Verdict
from lbmux.targets.native import HEADROOM_BYTES, Worker
from lbmux.targets.regions import KEYS, Tables

from .plain_agent import Endpoint
from .plain_flows import LONGEST, Idle
from .plain_mux import Backend, Service

GUARD = 0xA5
"""Fills the memory around frames, so that a byte written outside of one is seen."""


class Frames:
    """A batch with each frame in a place of its own, headroom before it and guard bytes on both sides."""

    def __init__(self, frames: Sequence[bytes], flags: Sequence[int] = ()) -> None:
        self.count = len(frames)
        self._stride = 2 * HEADROOM_BYTES + max(map(len, frames), default=0) + 64
        self._memory = np.full((self.count, self._stride), GUARD, np.uint8)
        for row, frame in zip(self._memory, frames, strict=True):
            row[2 * HEADROOM_BYTES : 2 * HEADROOM_BYTES + len(frame)] = np.frombuffer(frame, np.uint8)
        self._base = self._memory.ctypes.data + self._stride * np.arange(self.count, dtype=np.uint64)
        self.address = self._base + np.uint64(2 * HEADROOM_BYTES)
        self.length = np.array([len(frame) for frame in frames], np.uint32)
        self._end = 2 * HEADROOM_BYTES + self.length
        self.verdict = np.full(self.count, 255, np.uint8)
        self.flags = np.array(flags if len(flags) else [0] * self.count, np.uint8)
        self.interface = np.zeros(self.count, np.uint32)
        self.target = np.full(self.count, -2, np.int32)

    def results(self) -> list[tuple[Verdict, int, bytes]]:
        """(verdict, target, the frame then) of each."""
        return [
            (Verdict(int(self.verdict[at])), int(self.target[at]), self._frame(at)) for at in range(self.count)
        ]

    def _frame(self, at: int) -> bytes:
        start = int(self.address[at] - self._base[at])
        return self._memory[at, start : start + int(self.length[at])].tobytes()

    def untouched_around(self) -> bool:
        """Whether nothing was written behind a frame's end or before the room that it may grow into."""
        return all(
            (row[:HEADROOM_BYTES] == GUARD).all() and (row[end:] == GUARD).all()
            for row, end in zip(self._memory, self._end, strict=True)
        )


@dataclass
class Machine:
    """A mux or an agent: tables and one worker."""

    tables: Tables
    worker: Worker

    @classmethod
    def make(
        cls, buckets: int = 256, trusted_ways: int = WAYS - 1, untrusted_ways: int = WAYS, workers: int = 1
    ) -> "Machine":
        sizes = Sizes(64, services=16, slots=65536, backends=256, buckets=buckets, endpoints=16, workers=workers)
        tables, pick = Tables.allocate(sizes), random.Random(4)
        for key in KEYS:  # the same in every run
            tables.settings[0][key] = pick.getrandbits(64) | 1
        tables.settings[0]["trusted_ways"], tables.settings[0]["untrusted_ways"] = trusted_ways, untrusted_ways
        tables.settings[0]["idle_longest"] = LONGEST
        return cls(tables, Worker(tables))

    def at(self, number: int) -> Worker:
        """Another worker on the same tables."""
        return Worker(self.tables, number)

    @property
    def keys(self) -> list[int]:
        return [int(self.tables.settings[0][key]) for key in KEYS]

    def lookups(self) -> dict[str, int]:
        """Of the first worker; "elsewhere" only where there was any, as it takes a second worker."""
        counts = {name: int(self.tables.lookups[0, at]) for at, name in enumerate(LOOKUPS)}
        return {name: count for name, count in counts.items() if count or name != "elsewhere"}

    def verdicts(self) -> dict[Verdict, tuple[int, int]]:
        """(packets, bytes) of each verdict that was given."""
        rows = self.tables.verdicts[0]
        return {
            Verdict(at): (int(rows[at]["packets"]), int(rows[at]["bytes"])) for at in np.flatnonzero(rows["packets"])
        }

    def flows(self, state: int) -> int:
        return int((self.tables.flows["state"] == state).sum())

    def _name(self, names: list[Name]) -> None:
        copy, salt = fill(self.tables, names)
        self.tables.names[0], self.tables.settings[0]["salt0"] = copy, salt

    def install_mux(self, services: Sequence[Service], backends: Sequence[Backend]) -> None:
        tables, at = self.tables, 0
        for index, service in enumerate(services):
            tables.slots[at : at + len(service.slots)] = service.slots
            tables.services[0, index] = (at, len(service.slots), *_ticks(service.idle), service.seed, 0, 0)
            at += len(service.slots)
        self._name([Name(VIP, _ip(s.vip), s.port, s.protocol, index) for index, s in enumerate(services)])
        for index, backend in enumerate(backends):
            row = tables.backends[index]
            row["local_low"], row["remote_low"] = _mapped(backend.local), _mapped(backend.remote)
            row["destination_mac"] = int.from_bytes(backend.destination_mac, "little")
            row["source_mac"] = int.from_bytes(backend.source_mac, "little")
            row["checksum"] = constant_sum(int.from_bytes(backend.local), int.from_bytes(backend.remote))
            row["mtu"], row["state"], row["generation"] = backend.mtu, backend.state, backend.generation

    def install_agent(self, own: Sequence[bytes], muxes: Sequence[bytes], endpoints: Sequence[Endpoint]) -> None:
        names = [Name(OWN, _ip(address), 0, 0, 0) for address in own]
        names += [Name(MUX, _ip(address), 0, 0, 0) for address in muxes]
        for index, e in enumerate(endpoints):
            names.append(Name(VIP, _ip(e.vip), e.vip_port, e.protocol, index))
            if e.mode == NAT:
                names.append(Name(DIP, _ip(e.dip), e.dip_port, e.protocol, e.owner))
            self.tables.endpoints[index] = (
                0, _mapped(e.vip), 0, _mapped(e.dip), port_to_wire(e.vip_port), port_to_wire(e.dip_port), e.mode,
                e.protocol, e.owner, *_ticks(e.idle), e.state, e.generation, 0, 0,
            )  # fmt: skip
        self._name(list({(n.kind, n.address, n.port, n.protocol): n for n in names}.values()))


def _ip(address: bytes) -> IPv4Address:
    return IPv4Address(address)


def _mapped(address: bytes) -> int:
    return int.from_bytes(b"\0\0\xff\xff" + address, "little")


def _ticks(idle: Idle) -> tuple[int, int, int]:
    return idle.untrusted, idle.trusted, idle.closing
