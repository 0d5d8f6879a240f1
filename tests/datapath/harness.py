"""The compiled data path, set up by hand from the plain twins' objects, and batches of frames for it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

import numpy as np

from lbmux.addresses import port_to_wire
from lbmux.datapath.encapsulate import constant_sum
from lbmux.datapath.tables import (
    DIP,
    ENTROPY,
    ENTROPY_MUX,
    HASH_DESTINATION,
    HASH_SOURCE,
    LOOKUPS,
    MUX,
    NAT,
    NONE,
    OUTER_IPV6,
    SOURCE,
    TUNNEL_ADDRESS,
    VIP,
    WAYS,
    Sizes,
)
from lbmux.datapath.verdicts import Verdict
from lbmux.tables.access_lists import access_rows
from lbmux.tables.address_map import Name, ServerId, fill
from lbmux.tables.mux_rows import TRACKING, is_special
from lbmux.targets.hash_keys import NAMES as KEYS
from lbmux.targets.native import HEADROOM_BYTES, Worker
from lbmux.targets.regions import Tables
from tests.datapath.plain_agent import Endpoint
from tests.datapath.plain_flows import LONGEST, Idle
from tests.datapath.plain_hash import halves
from tests.datapath.plain_mux import Backend, Service
from tests.datapath.plain_tunnel import KINDS

RARE = {"contended", "server_id", "base"}
SOURCES = 4
"""Lines of the sketch of known sources: so few that some strangers pass as known."""
GUARD = 0xA5
"""Fills the memory around frames, so that a byte written outside of one is seen."""


def allocated(sizes: Sizes) -> Tables:
    """Allocate tables whose keys are the same in every run, for tests that count flows."""
    tables, numbers = Tables.allocate(sizes), random.Random(1)
    for key in KEYS:
        tables.settings[0][key] = numbers.getrandbits(64) | 1
    return tables


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
        return [(Verdict(int(self.verdict[at])), int(self.target[at]), self._frame(at)) for at in range(self.count)]

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
        cls,
        buckets: int = 256,
        trusted_ways: int = WAYS - 1,
        untrusted_ways: int = WAYS,
        workers: int = 1,
        plain: bool = False,
    ) -> "Machine":
        """``plain``: doing only what the kernel does."""
        sizes = Sizes(
            256,
            services=16,
            slots=65536,
            backends=256,
            buckets=buckets,
            endpoints=16,
            workers=workers,
            rules=256,
            sources=SOURCES,
        )
        tables, pick = Tables.allocate(sizes), random.Random(4)
        for key in KEYS:  # the same in every run
            tables.settings[0][key] = pick.getrandbits(64) | 1
        tables.settings[0]["trusted_ways"], tables.settings[0]["untrusted_ways"] = trusted_ways, untrusted_ways
        tables.settings[0]["longest_idle"] = LONGEST
        return cls(tables, Worker(tables, plain=plain))

    def at(self, number: int) -> Worker:
        """Another worker on the same tables."""
        return Worker(self.tables, number)

    @property
    def keys(self) -> list[int]:
        return [int(self.tables.settings[0][key]) for key in KEYS]

    def lookups(self) -> dict[str, int]:
        """Look-ups of the first worker; rare ones only if there was one."""
        counts = {name: int(self.tables.lookups[0, at]) for at, name in enumerate(LOOKUPS)}
        return {name: count for name, count in counts.items() if count or name not in RARE}

    def verdicts(self) -> dict[Verdict, tuple[int, int]]:
        """(packets, bytes) of each verdict that was given."""
        rows = self.tables.verdicts[0]
        return {
            Verdict(at): (int(rows[at]["packets"]), int(rows[at]["bytes"])) for at in np.flatnonzero(rows["packets"])
        }

    def known_sources(self) -> dict[tuple[int, int], int]:
        """The times of the cells of known sources that were written, by line and cell."""
        lines, cells = np.nonzero(self.tables.sources)
        return {
            (line, cell): int(self.tables.sources[line, cell]) & 0x7FFF
            for line, cell in zip(lines.tolist(), cells.tolist(), strict=True)
        }

    def flows(self, state: int) -> int:
        return int((self.tables.flows["state"] == state).sum())

    def _name(self, names: Sequence[Name | ServerId]) -> None:
        copy, salt = fill(self.tables, names)
        self.tables.addresses[0], self.tables.settings[0]["salt0"] = copy, salt

    def install_mux(self, services: Sequence[Service], backends: Sequence[Backend]) -> None:
        tables, at, rules_at = self.tables, 0, 0
        names: list[Name | ServerId] = []
        for index, service in enumerate(services):
            bases = service.bases or service.slots
            tables.slots[at : at + len(service.slots)] = [*zip(service.slots, bases, strict=True)]
            tables.services[0, index]["changed"] = service.changed
            row = tables.services[0, index]
            row["slots"], row["size"], row["seed"] = at, len(service.slots), service.seed
            row["limited"], tables.service_rates["price"][:, index] = service.is_limited, service.prices
            row["former"], row["tracking"], row["rejects"] = NONE, TRACKING[service.tracking], service.rejects
            row["idle_untrusted"], row["idle_trusted"], row["idle_closing"] = _ticks(service.idle)
            row["hashed"] = HASH_SOURCE * ("source" in service.hashed) | HASH_DESTINATION * (
                "destination" in service.hashed
            )
            row["port_mask"] = 0xFFFF * ("source_port" in service.hashed) | 0xFFFF0000 * (
                "destination_port" in service.hashed
            )
            if service.rules or not service.otherwise:
                rules = access_rows(service.rules, service.otherwise)
                tables.rules[rules_at : rules_at + len(rules)] = rules
                row["rules"], row["rule_count"] = rules_at, len(rules)
                rules_at += len(rules)
            if service.quic:
                rotation, size, servers = service.quic
                row["quic_rotation"], row["quic_bytes"] = rotation, size
                names += [ServerId(identifier, index, backend) for identifier, backend in servers.items()]
            row["special"] = is_special(row)
            at += len(service.slots)
            if service.former:
                tables.slots[at : at + len(service.former)] = [*service.former]
                row["former"], row["former_size"] = at, len(service.former)
                at += len(service.former)
            names.append(Name(VIP, ip_address(service.vip), service.port, service.protocol, index))
        tables.settings[0]["any_port"] = any(service.port == 0 for service in services)
        self._name(names)
        self._install_backends(backends)

    def _install_backends(self, backends: Sequence[Backend]) -> None:
        for index, backend in enumerate(backends):
            row = self.tables.backends[index]
            row["local_high"], row["local_low"] = halves(backend.local)
            row["remote_high"], row["remote_low"] = halves(backend.remote)
            row["destination_mac"] = int.from_bytes(backend.destination_mac, "little")
            row["source_mac"] = int.from_bytes(backend.source_mac, "little")
            row["tunnel"] = KINDS.index(backend.kind) | ENTROPY * backend.spread
            if len(backend.remote) == 4:
                row["checksum"] = constant_sum(int.from_bytes(backend.local), int.from_bytes(backend.remote))
            else:
                row["tunnel"] |= OUTER_IPV6
            row["overhead_bytes"] = backend.overhead_bytes
            self.tables.backend_rates[index]["price"], row["service"] = backend.price, backend.service
            row["mtu"], row["state"], row["generation"] = backend.mtu, backend.state, backend.generation

    def install_agent(
        self,
        own: Sequence[bytes],
        muxes: Sequence[bytes],
        endpoints: Sequence[Endpoint],
        entropy_muxes: Sequence[bytes] = (),
    ) -> None:
        names = [Name(TUNNEL_ADDRESS, ip_address(address), 0, 0, 0) for address in own]
        names += [Name(MUX, ip_address(address), 0, 0, 0) for address in muxes]
        names += [Name(ENTROPY_MUX, ip_address(address), 0, 0, 0) for address in entropy_muxes]
        self.tables.settings[0]["entropy_muxes"] = bool(entropy_muxes)
        self.tables.settings[0]["any_port"] = any(e.vip_port == 0 for e in endpoints)
        self.tables.settings[0]["direct_endpoint"] = NONE
        for index, e in enumerate(endpoints):
            if e.is_direct:
                self.tables.settings[0]["direct_endpoint"] = index
            else:
                names.append(Name(VIP, ip_address(e.vip), e.vip_port, e.protocol, index))
            if e.mode == NAT:
                names.append(Name(DIP, ip_address(e.dip), e.dip_port, e.protocol, e.owner))
                names.append(Name(SOURCE, ip_address(e.dip), 0, 0, 0))
            self.tables.endpoints[index] = (
                *halves(e.vip), *halves(e.dip), port_to_wire(e.vip_port), port_to_wire(e.dip_port), e.mode,
                e.protocol, e.owner, *_ticks(e.idle), e.state, e.generation, e.mss, e.checks_sockets, 0, 0, 0,
            )  # fmt: skip
        self._name(list({(n.kind, n.address, n.port, n.protocol): n for n in names}.values()))


def _ticks(idle: Idle) -> tuple[int, int, int]:
    return idle.untrusted, idle.trusted, idle.closing
