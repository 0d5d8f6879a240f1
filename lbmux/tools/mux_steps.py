"""The steps of a mux in words and as data, in the order of the data path: what each did with a packet, and why."""

from collections.abc import Iterator
from ipaddress import IPv6Address
from typing import Any

import numpy as np

from lbmux.addresses import from_pair, mac_from_int
from lbmux.api.status_tables import STATES as BACKEND_STATES
from lbmux.backends.tracker import UNCHECKED
from lbmux.config.models import Service
from lbmux.datapath.headers import IPV4, IPV6
from lbmux.datapath.parse import PARSED
from lbmux.datapath.tables import NO_BASE, TRACK_ALL
from lbmux.datapath.verdicts import Verdict
from lbmux.tables.live_flows import STATES, TICK_S
from lbmux.tools.backend_states import BackendState, summary
from lbmux.tools.explanation import Step
from lbmux.tools.mux_run import MuxRun, Outcome
from lbmux.tracing.header_summary import HeaderSummary
from lbmux.wire.header_layouts import ETHERNET_BYTES
from lbmux.wire.numbers import IPIP_PROTOCOL, IPV6_PROTOCOL

NO_SELECTION = (Verdict.DENIED, Verdict.TTL)
"""Verdicts of packets that match a service but reach no backend selection."""
BY = {"server_id": "server_id", "hit": "flow", "base": "base"}
"""Maps a look-up result to what selected the backend. Without any of them the slot did."""
WHY = {
    "server_id": "by the server id in its connection id",
    "flow": "by its flow entry",
    "base": "by the backend that its slot had before it changed, since the connection may be older than the change",
    "slot": "by its slot",
}


class MuxSteps:
    """The steps of one packet.  ``states``: the states of the backends of the service that it matched."""

    def __init__(self, run: MuxRun, outcome: Outcome, states: list[BackendState]) -> None:
        self._run, self._packet, self._snapshot = run, run.packet, run.snapshot
        self._outcome, self._states, self._service = outcome, states, run.service()

    def steps(self) -> Iterator[Step]:
        """Yield the steps, the verdict last."""
        verdict = self._outcome.verdict
        yield Step("packet", f"{self._packet}, {self._run.length_bytes - ETHERNET_BYTES} bytes")
        if self._run.result("parsed") == PARSED:
            yield from self._service_steps()
        if self._service is not None and verdict not in NO_SELECTION:
            yield from self._choice_steps()
        if verdict == Verdict.FORWARDED:
            yield _outer_step(self._outcome.frame)
        yield Step("verdict", f"{verdict.label} ({verdict.kind})")

    def _service_steps(self) -> Iterator[Step]:
        run, service = self._run, self._service
        if service is None:
            yield Step("service", "no service matches this address, protocol and port")
            return
        where = f"{service.vip} {service.protocol} {service.port_text}"
        yield Step("service", f"{service.name} ({where})", {"service": service.name, "row": run.service_row})
        if service.allow or service.deny:
            yield self._access_step(service)
        if run.result("allowed"):
            unless = " (only a live mux has health checks)" if service.health and not run.is_live else ""
            text, data = summary(self._states)
            yield Step("backends", text + unless, data)

    def _access_step(self, service: Service) -> Step:
        """Return why the data path allows or denies the source: the longest matching prefix decides."""
        rules = [("allow", prefix) for prefix in service.allow] + [("deny", prefix) for prefix in service.deny]
        matching = [(rule, prefix) for rule, prefix in rules if self._packet.source in prefix]
        rule, prefix = max(matching, key=lambda one: (one[1].prefixlen, one[0]), default=(None, None))
        result = "allowed" if self._run.result("allowed") else "denied"
        default = "allow" if service.allow else "deny"
        why = f"by {prefix} in `{rule}`" if rule else f"since no prefix in `{default}` matches"
        data = {"allowed": result == "allowed", "list": rule, "prefix": None if prefix is None else str(prefix)}
        return Step("access", f"{self._packet.source} is {result}, {why}", data)

    def _choice_steps(self) -> Iterator[Step]:
        if "server_id" not in self._outcome.lookups:
            yield self._flow_step()
            yield self._slot_step()
        if self._outcome.target >= 0:
            yield self._backend_step()
            yield self._next_hop_step()

    def _flow_step(self) -> Step:
        run, lookups = self._run, self._outcome.lookups
        entries = [
            {
                "state": STATES[entry["state"]],
                "idle_s": round(max(0, entry["idle"]) * TICK_S, 3),
                "backend": run.backend_name(entry["target"]),
                "alive": bool(entry["alive"]),
            }
            for entry in run.entries()
        ]
        data = {"lookup": lookups, "entries": entries}
        if not entries:
            if self._service_row()["tracking"] != TRACK_ALL:
                return Step("flow", "no entry: the service tracks only flows of changed slots", data)
            missing = "no entry" if run.is_live else "no entry: only a live mux has flows"
            return Step("flow", f"{missing}, so the slot decides", data)
        text = "; ".join(
            f"{entry['state']}, idle for {entry['idle_s']:.1f} s, backend {entry['backend']}"
            + ("" if entry["alive"] else ", expired")
            for entry in entries
        )
        return Step("flow", f"{text}: {' and '.join(lookups) or 'not used'}", data)

    def _slot_step(self) -> Step:
        run, row = self._run, self._service_row()
        size, slot, hashed = run.result("size"), run.result("slot"), run.result("hash")
        data = {"hash": hashed, "seed": int(row["seed"]), "slot": slot if size else None, "slots": size}
        if not size:
            return Step("slot", "no Maglev table: no backend takes new flows", data)
        name = run.backend_name(run.result("selected"))
        pair = self._snapshot.tables.slots[int(row["slots"]) + slot]
        state = "steady" if pair["base"] == pair["backend"] else "exceptions" if pair["base"] == NO_BASE else "changing"
        text = f"hash {hashed:#010x} (seed {data['seed']}) is slot {slot} of {size}, backend {name}"
        text += f", {state}" if row["tracking"] != TRACK_ALL else ""
        return Step("slot", text, data | {"backend": name, "state": state})

    def _backend_step(self) -> Step:
        target = self._outcome.target
        row, owner = self._snapshot.tables.backends[target], self._snapshot.owners.get(target)
        state, name = BACKEND_STATES[int(row["state"])], self._run.backend_name(target)
        by = next((BY[lookup] for lookup in self._outcome.lookups if lookup in BY), "slot")
        if owner is None:
            return Step("backend", f"row {target}, {state}, {WHY[by]}", {"backend": None, "state": state, "by": by})
        backend = owner[1]
        why = next((s.reason if s.state != "down" else f"down: {s.reason}" for s in self._states if s.name == name), "")
        meaning = {"up": "takes new flows", "draining": "keeps only its existing flows"}.get(state, "")
        if why and not why.startswith(UNCHECKED):
            meaning += f"; {why}"
        data = {
            "backend": name, "dip": str(backend.dip), "port": backend.port, "weight": backend.weight, "state": state,
            "by": by, "reason": why,
        }  # fmt: skip
        port = backend.port or self._packet.port
        return Step("backend", f"{name} {WHY[by]}: {backend.dip}:{port}, {state} ({meaning})", data)

    def _next_hop_step(self) -> Step:
        row = self._snapshot.tables.backends[self._outcome.target]
        host = from_pair(int(row["remote_high"]), int(row["remote_low"]))
        mac, mtu = int(row["destination_mac"]), int(row["mtu"])
        if not self._run.is_live:
            return Step("next hop", f"{host}: only a live mux knows it; MTU {mtu} is assumed", {"host": str(host)})
        data: dict[str, Any] = {"host": str(host), "mac": mac_from_int(mac) if mac else None, "mtu": mtu}
        if not mac:
            return Step("next hop", f"{host}: its MAC address is not known", data)
        data["interface"] = self._run.interfaces.get(int(row["interface"]), str(row["interface"]))
        return Step("next hop", f"{host}: {data['mac']} on {data['interface']}, MTU {mtu}", data)

    def _service_row(self) -> Any:
        return self._snapshot.tables.services[self._snapshot.tables.active][self._run.service_row]


def _outer_step(frame: bytes) -> Step:
    outer = HeaderSummary.read(frame)
    is_ipv6 = isinstance(outer.source, IPv6Address)
    ip = np.frombuffer(frame, IPV6 if is_ipv6 else IPV4, 1, outer.start)[0]
    data = {
        "source": str(outer.source), "destination": str(outer.destination), "protocol": outer.protocol,
        "ttl": int(ip["hops" if is_ipv6 else "ttl"]), "length": outer.length,
    }  # fmt: skip
    kind = "IP in IP" if outer.protocol in (IPIP_PROTOCOL, IPV6_PROTOCOL) else outer.name
    ends = f"{outer.source} > {outer.destination}"
    return Step("outer header", f"{ends}, {kind}, TTL {data['ttl']}, {outer.length} bytes", data)
