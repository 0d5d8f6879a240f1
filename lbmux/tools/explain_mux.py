"""Explain what a mux does with a packet, step by step, and why.

The packet runs through the data path itself, on a private copy of the tables (tools.table_copy), so nothing changes.
The result of each step comes from the data path's own functions (tools.dry_run).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import IPv6Address
from typing import Any

import numpy as np

from lbmux.addresses import from_pair, mac_from_int
from lbmux.api.answers import BackendHealth
from lbmux.api.channel import Place, place_name
from lbmux.api.control_client import ControlClient
from lbmux.api.requests import GetHealth
from lbmux.api.status_tables import STATES as BACKEND_STATES
from lbmux.backends.tracker import UNCHECKED
from lbmux.config.models import Config, Service
from lbmux.datapath.headers import IPV4, IPV6
from lbmux.datapath.parse import PARSED
from lbmux.datapath.tables import LOOKUPS, NO_BASE, TRACK_ALL
from lbmux.datapath.verdicts import Verdict
from lbmux.errors import SetupError
from lbmux.frames.batch import HEADROOM_BYTES, Batch
from lbmux.tables.live_flows import STATES, TICK_S
from lbmux.tables.row_identities import identity
from lbmux.tables.snapshot import Snapshot
from lbmux.targets.native import Worker
from lbmux.targets.regions import now_ticks
from lbmux.tools.backend_states import BackendState, states_of, summary, to_have_one
from lbmux.tools.dry_run import ENTRY, FOUND, bucket_offsets, dry_run
from lbmux.tools.packet_text import ClientPacket
from lbmux.tools.table_copy import LiveCopy, of_configuration
from lbmux.tracing.header_summary import HeaderSummary
from lbmux.wire.header_layouts import ETHERNET_BYTES
from lbmux.wire.numbers import IPIP_PROTOCOL, IPV6_PROTOCOL

TRIES = 3
"""How often to retry if the mux's configuration changes while it is read."""
ANY_WORKER = 0
"""The worker that is assumed for a flow without an entry."""

NO_SELECTION = (Verdict.DENIED, Verdict.TTL)
"""Verdicts of packets that match a service but reach no backend selection."""
BY = {"server_id": "server_id", "hit": "flow", "elsewhere": "flow", "base": "base"}
"""Maps a look-up result to what selected the backend. Without any of them the slot did."""
WHY = {
    "server_id": "by the server id in its connection id",
    "flow": "by its flow entry",
    "base": "by the backend that its slot had before it changed, since the connection may be older than the change",
    "slot": "by its slot",
}


@dataclass(frozen=True)
class Step:
    """The result of one step: ``found`` for people, ``data`` for programs."""

    step: str
    found: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Explanation:
    """The whole run.  ``hint``: what to do where the packet is not forwarded; ``outer``: the frame that leaves."""

    packet: ClientPacket
    source: str
    steps: list[Step]
    verdict: Verdict
    service: str | None
    backend: str | None
    hint: str
    outer: bytes = b""

    @property
    def has_flow(self) -> bool:
        """Whether the mux has a live entry of the packet's flow."""
        return any(entry["alive"] for step in self.steps for entry in step.data.get("entries", ()))

    def as_json(self) -> dict[str, Any]:
        packet = asdict(self.packet) | {"source": str(self.packet.source), "vip": str(self.packet.vip)}
        del packet["caught"]
        return {
            "version": 1,
            "packet": packet,
            "from": self.source,
            "steps": [{"step": step.step, "found": step.found, **step.data} for step in self.steps],
            "verdict": self.verdict.label,
            "kind": self.verdict.kind,
            "service": self.service,
            "backend": self.backend,
            "hint": self.hint or None,
        }


def explain_configuration(packet: ClientPacket, config: Config) -> Explanation:
    """Explain what a mux with this configuration and no flows would do."""
    return _Run(packet, of_configuration(config), 0).explanation("configuration", [])


def explain_live(packet: ClientPacket, place: Place) -> Explanation:
    """Explain what the mux at ``place`` would do now.

    Raise ControlError, or SetupError if its configuration keeps changing.
    """
    for _ in range(TRIES):
        copy = LiveCopy.of(place, str(packet.vip))
        copy.read_configuration()
        run = _Run(packet, copy.snapshot, now_ticks(), copy.interfaces)
        if run.service_row >= 0:
            copy.read_service(run.service_row, run.found("hash"), run.found("sources"))
            for at in run.buckets():
                copy.read_bucket(at)
            run.dry_run()
        health = ControlClient(place).whole(GetHealth()).health
        if copy.is_current():
            return run.explanation("mux", health)
    raise SetupError(str(place_name(place)), "its configuration kept changing while it was read", "try again later")


class _Run:
    """One packet on one private copy of the tables."""

    def __init__(
        self, packet: ClientPacket, snapshot: Snapshot, now: int, interfaces: dict[int, str] | None = None
    ) -> None:
        """``interfaces``: the mux's interface names by index; None for a configuration without a mux."""
        self.packet, self.snapshot, self.now = packet, snapshot, now
        self.is_live, self.interfaces = interfaces is not None, interfaces or {}
        self._context = Worker(snapshot.tables)
        frame = packet.frame()
        self._memory = np.zeros(HEADROOM_BYTES + len(frame), np.uint8)
        self._memory[HEADROOM_BYTES:] = np.frombuffer(frame, np.uint8)
        self._length = len(frame)
        self.dry_run()

    def dry_run(self) -> None:
        """Run the steps without side effects."""
        self._found = np.full(len(FOUND), -1, np.int64)
        self._entries = np.full((self.snapshot.tables.sizes.workers, len(ENTRY)), -1, np.int64)
        address = np.uint64(self._memory.ctypes.data + HEADROOM_BYTES)
        dry_run(self._context.address, address, self._length, self.now, self._found, self._entries)

    def buckets(self) -> list[int]:
        """Byte offsets in the flow table of the flow's two candidate buckets, for each worker."""
        found = np.zeros((self.snapshot.tables.sizes.workers, 2), np.int64)
        bucket_offsets(self._context.address, self._found[FOUND.index("flow_hash")], found)
        return [int(place) for place in found.reshape(-1)]

    def found(self, name: str) -> int:
        return int(self._found[FOUND.index(name)])

    @property
    def service_row(self) -> int:
        return self.found("service")

    def entries(self) -> list[dict[str, Any]]:
        """The flow's entries of all workers, the most recently used first."""
        found = [
            {"worker": worker, **dict(zip(ENTRY, line.tolist(), strict=True))}
            for worker, line in enumerate(self._entries)
            if line[0] > 0
        ]
        return sorted(found, key=lambda entry: (not entry["alive"], entry["idle"]))

    def explanation(self, source: str, health: Sequence[BackendHealth]) -> Explanation:
        """``health``: the mux's health list of all backends."""
        service = self._service()
        states = states_of(service, self.snapshot, health) if service else []
        entries = self.entries()
        worker = entries[0]["worker"] if entries else ANY_WORKER
        verdict, target, frame = self._run(worker)
        counts = self.snapshot.tables.lookups[worker]
        # In reverse, so that the result of an old entry comes before the packet's own.
        looked_up = [name for at, name in reversed(list(enumerate(LOOKUPS))) if counts[at]]
        owner = self.snapshot.owners.get(target)
        steps = [Step("packet", f"{self.packet}, {self._length - ETHERNET_BYTES} bytes")]
        if self.found("parsed") == PARSED:
            steps += self._service_steps(service, states)
        if service is not None and verdict not in NO_SELECTION:
            steps += self._choice_steps(entries, looked_up, target, states)
        steps += self._outer(verdict, frame)
        steps.append(Step("verdict", f"{verdict.label} ({verdict.kind})"))
        hint = "" if verdict.kind == "send" else self._hint(verdict, target, states)
        names = (service.name if service else None, owner[1].name if owner else None)
        return Explanation(self.packet, source, steps, verdict, *names, hint, frame if verdict.kind == "send" else b"")

    def _service(self) -> Service | None:
        """The service that the packet matched."""
        if self.service_row < 0:
            return None
        owner = int(self.snapshot.tables.service_identities[self.service_row])
        return next((s for s in self.snapshot.services if identity(s.vip, s.protocol, s.port) == owner), None)

    def _run(self, worker: int) -> tuple[Verdict, int, bytes]:
        """Run the whole data path: the verdict, the backend's row and the frame."""
        batch = Batch(1)
        batch.address[0], batch.length[0] = self._memory.ctypes.data + HEADROOM_BYTES, self._length
        batch.count = 1
        Worker(self.snapshot.tables, worker).forward(batch, self.now)
        start = int(batch.address[0]) - self._memory.ctypes.data
        frame = self._memory[start : start + int(batch.length[0])].tobytes()
        return Verdict(int(batch.verdict[0])), int(batch.target[0]), frame

    def _service_steps(self, service: Service | None, states: list[BackendState]) -> Iterator[Step]:
        if service is None:
            yield Step("service", "no service matches this address, protocol and port")
            return
        where = f"{service.vip} {service.protocol} {service.port_text}"
        yield Step("service", f"{service.name} ({where})", {"service": service.name, "row": self.service_row})
        if service.allow or service.deny:
            yield self._access_step(service)
        if self.found("allowed"):
            unless = " (only a live mux has health checks)" if service.health and not self.is_live else ""
            found, data = summary(states)
            yield Step("backends", found + unless, data)

    def _access_step(self, service: Service) -> Step:
        """Why the data path allows or denies the source: the longest matching prefix decides."""
        lists = [("allow", prefix) for prefix in service.allow] + [("deny", prefix) for prefix in service.deny]
        having = [(which, prefix) for which, prefix in lists if self.packet.source in prefix]
        which, prefix = max(having, key=lambda one: (one[1].prefixlen, one[0]), default=(None, None))
        word = "allowed" if self.found("allowed") else "denied"
        asked = "allow" if service.allow else "deny"
        why = f"by {prefix} in `{which}`" if which else f"since no prefix in `{asked}` matches"
        data = {"allowed": word == "allowed", "list": which, "prefix": None if prefix is None else str(prefix)}
        return Step("access", f"{self.packet.source} is {word}, {why}", data)

    def _choice_steps(
        self, entries: list[dict[str, Any]], looked_up: list[str], target: int, states: list[BackendState]
    ) -> Iterator[Step]:
        if "server_id" not in looked_up:
            yield self._flow_step(entries, looked_up)
            yield self._slot_step()
        if target >= 0:
            yield self._backend_step(target, looked_up, states)
            yield self._next_hop_step(target)

    def _flow_step(self, entries: list[dict[str, Any]], looked_up: list[str]) -> Step:
        described = [
            {
                "worker": entry["worker"],
                "state": STATES[entry["state"]],
                "idle_s": round(max(0, entry["idle"]) * TICK_S, 3),
                "backend": self._name(entry["target"]),
                "alive": bool(entry["alive"]),
            }
            for entry in entries
        ]
        data = {"lookup": looked_up, "entries": described}
        if not entries:
            if self.snapshot.tables.services[self.snapshot.tables.active][self.service_row]["tracking"] != TRACK_ALL:
                return Step("flow", "no entry: the service tracks only flows of changed slots", data)
            said = "no entry" if self.is_live else "no entry: only a live mux has flows"
            return Step("flow", f"{said}, so the slot decides", data)
        said = "; ".join(
            f"{entry['state']}, idle for {entry['idle_s']:.1f} s, backend {entry['backend']}, worker {entry['worker']}"
            + ("" if entry["alive"] else ", expired")
            for entry in described
        )
        return Step("flow", f"{said}: {' and '.join(looked_up) or 'not used'}", data)

    def _slot_step(self) -> Step:
        size, slot, hashed = self.found("size"), self.found("slot"), self.found("hash")
        row = self.snapshot.tables.services[self.snapshot.tables.active][self.service_row]
        data = {"hash": hashed, "seed": int(row["seed"]), "slot": slot if size else None, "slots": size}
        if not size:
            return Step("slot", "no Maglev table: no backend takes new flows", data)
        name = self._name(self.found("selected"))
        pair = self.snapshot.tables.slots[int(row["slots"]) + slot]
        state = "steady" if pair["base"] == pair["backend"] else "exceptions" if pair["base"] == NO_BASE else "changing"
        said = f"hash {hashed:#010x} (seed {data['seed']}) is slot {slot} of {size}, backend {name}"
        said += f", {state}" if row["tracking"] != TRACK_ALL else ""
        return Step("slot", said, data | {"backend": name, "state": state})

    def _backend_step(self, target: int, looked_up: list[str], states: list[BackendState]) -> Step:
        row = self.snapshot.tables.backends[target]
        state, name, owner = BACKEND_STATES[int(row["state"])], self._name(target), self.snapshot.owners.get(target)
        by = next((BY[what] for what in looked_up if what in BY), "slot")
        if owner is None:
            return Step("backend", f"row {target}, {state}, {WHY[by]}", {"backend": None, "state": state, "by": by})
        backend = owner[1]
        why = next((s.reason if s.state != "down" else f"down: {s.reason}" for s in states if s.name == name), "")
        meaning = {"up": "takes new flows", "draining": "keeps only its existing flows"}.get(state, "")
        if why and not why.startswith(UNCHECKED):
            meaning += f"; {why}"
        data = {
            "backend": name, "dip": str(backend.dip), "port": backend.port, "weight": backend.weight, "state": state,
            "by": by, "reason": why,
        }  # fmt: skip
        port = backend.port or self.packet.port
        return Step("backend", f"{name} {WHY[by]}: {backend.dip}:{port}, {state} ({meaning})", data)

    def _next_hop_step(self, target: int) -> Step:
        row = self.snapshot.tables.backends[target]
        host = from_pair(int(row["remote_high"]), int(row["remote_low"]))
        mac, mtu = int(row["destination_mac"]), int(row["mtu"])
        if not self.is_live:
            return Step("next hop", f"{host}: only a live mux knows it; MTU {mtu} is assumed", {"host": str(host)})
        data: dict[str, Any] = {"host": str(host), "mac": mac_from_int(mac) if mac else None, "mtu": mtu}
        if not mac:
            return Step("next hop", f"{host}: its MAC address is not known", data)
        data["interface"] = self.interfaces.get(int(row["interface"]), str(row["interface"]))
        return Step("next hop", f"{host}: {data['mac']} on {data['interface']}, MTU {mtu}", data)

    def _outer(self, verdict: Verdict, frame: bytes) -> Iterator[Step]:
        if verdict != Verdict.FORWARDED:
            return
        outer = HeaderSummary.read(frame)
        is_ipv6 = isinstance(outer.source, IPv6Address)
        ip = np.frombuffer(frame, IPV6 if is_ipv6 else IPV4, 1, outer.start)[0]
        data = {
            "source": str(outer.source), "destination": str(outer.destination), "protocol": outer.protocol,
            "ttl": int(ip["hops" if is_ipv6 else "ttl"]), "length": outer.length,
        }  # fmt: skip
        kind = "IP in IP" if outer.protocol in (IPIP_PROTOCOL, IPV6_PROTOCOL) else outer.name
        ends = f"{outer.source} > {outer.destination}"
        yield Step("outer header", f"{ends}, {kind}, TTL {data['ttl']}, {outer.length} bytes", data)

    def _name(self, target: int) -> str | None:
        owner = self.snapshot.owners.get(target)
        return owner[1].name if owner else None

    def _hint(self, verdict: Verdict, target: int, states: list[BackendState]) -> str:
        packet, row = self.packet, self.snapshot.tables.backends[max(0, target)]
        host = from_pair(int(row["remote_high"]), int(row["remote_low"]))
        if verdict == Verdict.NOT_VIP:
            others = [f"{s.protocol} {s.port_text}" for s in self.snapshot.services if s.vip == packet.vip]
            if others:
                return (
                    f"{packet.vip} is a VIP, but only for {', '.join(others)}: add a service, then run `lbmux reload`"
                )
            return f"no service has the VIP {packet.vip}: add one to the configuration, then run `lbmux reload`"
        return {
            Verdict.NO_BACKEND: to_have_one(states),
            Verdict.DENIED: (
                f"the service's `allow` and `deny` exclude {packet.source}: change them, then run `lbmux reload`"
            ),
            Verdict.OVER_PACKET_RATE: "raise the service's `packets_per_s`, or find who sends this much: `lbmux top`",
            Verdict.OVER_FLOW_RATE: "raise the service's `new_flows_per_s`; established flows are not affected",
            Verdict.OVER_FLOW_SHARE: (
                f"raise the service's `new_flows_per_s` or the weight of {self._name(target)}, whose share it is"
            ),
            Verdict.TTL: "the packet passed too many routers: its sender should use a larger TTL",
            Verdict.NO_NEIGHBOUR: f"the next hop (`ip route get {host}`) does not answer ARP or ND: is it up?",
            Verdict.TOO_BIG: (
                f"packets to {host} may have {int(row['mtu']) - int(row['overhead_bytes'])} bytes: advertise a "
                "smaller MSS (advmss 1440 on the hosts' routes), or raise the underlay's MTU to 1520"
            ),
        }.get(verdict, "")
