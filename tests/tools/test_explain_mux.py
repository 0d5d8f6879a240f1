"""Explanations against the data path itself: the same backend and verdict, and nothing changed by asking."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lbmux.config.models import Config
from lbmux.datapath.tables import LOOKUPS
from lbmux.datapath.verdicts import Verdict
from lbmux.errors import ControlError
from lbmux.tools import explain_mux
from lbmux.tools.explain_mux import explain_configuration
from lbmux.tools.explanation import Explanation
from lbmux.tools.packet_text import ClientPacket, PacketError
from lbmux.tools.table_copy import LiveCopy
from tests.datapath.craft import ACK, SYN
from tests.linux.inside import CONFIG, Inside, client
from tests.tools.served import Served, step

READ = Config.model_validate(CONFIG)


@pytest.fixture
def mux(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path / "mux.sock")
    yield served
    served.close()


Stop = Callable[[Served], None]


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Stop:
    """Explaining is done at the time at which the mux sends: in between no rate lets another flow in."""
    return lambda mux: monkeypatch.setattr(explain_mux, "now_ticks", lambda: mux.now)


def asked(port: int, destination: str = "192.0.2.1:80/tcp") -> str:
    return f"198.51.100.7:{port} > {destination}"


def test_the_configuration_suffices_to_find_the_backend() -> None:
    inside = Inside()
    for port in range(2000, 2010):
        sent = inside.send(client(port))
        explanation = explain_configuration(ClientPacket.parse(asked(port)), READ)
        assert explanation.backend == inside.snapshot.owners[int(sent.target[0])][1].name
        assert step(explanation, "slot")["backend"] == explanation.backend
        assert explanation.verdict == Verdict.FORWARDED
        outer = step(explanation, "outer header")
        assert (outer["source"], outer["ttl"], outer["length"]) == ("10.0.1.2", 64, 60)


def test_a_live_flow_is_found_whichever_worker_entered_it(mux: Served) -> None:
    mux.send(client(3000), worker=1)
    entered = mux.tables.flows["state"] != 0
    row = mux.tables.flows["target"][entered]
    other = next(r for (s, _), r in mux.snapshot.rows.items() if s == "web" and r != row[0])
    mux.tables.flows["target"][entered] = other  # as after a change of the Maglev table
    explanation = mux.explain(asked(3000))
    assert explanation.backend == mux.snapshot.owners[other][1].name != step(explanation, "slot")["backend"]
    line = step(explanation, "flow")
    assert line["lookup"] == ["hit"]
    assert [entry["state"] for entry in line["entries"]] == ["untrusted"]  # type: ignore[attr-defined]
    assert step(explanation, "backend")["by"] == "flow"


def test_a_reload_during_the_explanation_is_noticed(mux: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    web, dns = CONFIG["services"]
    reloads, read = [CONFIG | {"services": [web | {"name": "new"}, dns]}], LiveCopy.read_configuration

    def read_late(copy: LiveCopy) -> None:
        if reloads:
            mux.reload(reloads.pop())
        read(copy)

    monkeypatch.setattr(LiveCopy, "read_configuration", read_late)
    assert mux.explain(asked(1)).service == "new"


def test_a_service_of_a_named_pool(mux: Served) -> None:
    web, dns = CONFIG["services"]
    pooled = {name: value for name, value in web.items() if name != "backends"} | {"pool": "front"}
    before = mux.explain(asked(1)).backend
    mux.reload(CONFIG | {"pools": {"front": web["backends"]}, "services": [pooled, dns]})
    explanation = mux.explain(asked(1))
    assert (explanation.verdict, explanation.backend) == (Verdict.FORWARDED, before)


def test_explaining_changes_nothing(mux: Served) -> None:
    mux.send(client(3000))
    before = {name: memory.tobytes() for name, memory in mux.tables.memory.items()}
    for text in (asked(3000), asked(3001), asked(1, "192.0.2.9:1/udp")):
        mux.explain(text)
    assert {name: memory.tobytes() for name, memory in mux.tables.memory.items()} == before


def test_a_flow_that_idled_too_long_no_longer_counts(mux: Served) -> None:
    mux.send(client(3000), before_ticks=4_000_000)
    line = step(mux.explain(asked(3000)), "flow")
    assert line["lookup"] == ["expired", "new"]
    assert line["entries"][0]["alive"] is False  # type: ignore[index]


def weighted(h1: int, h2: int, **fields: Any) -> dict[str, Any]:
    """The configuration with other weights, which make other Maglev tables."""
    web, dns = CONFIG["services"]
    backends = [backend | {"weight": weight} for backend, weight in zip(web["backends"], (h1, h2), strict=True)]
    return CONFIG | {"services": [web | fields | {"backends": backends}, dns]}


def without_h1() -> dict[str, Any]:
    web, dns = CONFIG["services"]
    return CONFIG | {"services": [web | {"backends": web["backends"][1:]}, dns]}


def with_changed_slots(mux: Served) -> list[int]:
    """Ports of flows without entries whose slots the first change has given from h1 to h2; another one left them."""
    before = {port: mux.explain(asked(port), opens=True).backend for port in range(2000, 2012)}
    mux.reload(weighted(1, 3))
    mux.reload(weighted(1, 5))
    after = {port: mux.explain(asked(port), opens=True).backend for port in before}
    return [port for port in before if (before[port], after[port]) == ("h1", "h2")]


def test_after_a_change_an_unknown_connection_goes_to_its_slot_s_base(mux: Served) -> None:
    ports = with_changed_slots(mux)
    assert ports
    for port in ports:
        explanation = mux.explain(asked(port))
        assert (explanation.backend, step(explanation, "slot")["backend"]) == ("h1", "h2")
        assert step(explanation, "flow")["lookup"] == ["base", "new"]
        backend_step = next(line for line in explanation.steps if line.step == "backend")
        assert backend_step.data["by"] == "base" and "its slot had before it changed" in backend_step.found
        assert int(mux.send(client(port)).target[0]) == mux.snapshot.rows["web", "h1"]


def test_a_removed_backend_is_not_a_base(mux: Served) -> None:
    """Rows of removed backends have no name: the packet goes to the slot's current backend."""
    ports = [port for port in range(2000, 2010) if mux.explain(asked(port)).backend == "h1"]
    assert ports
    mux.reload(without_h1())
    for port in ports:
        explanation = mux.explain(asked(port))
        assert (explanation.backend, step(explanation, "backend")["by"]) == ("h2", "slot")


@pytest.mark.slow
def test_explains_random_packets_as_the_tables_then_take_them(mux: Served, stop: Stop) -> None:
    """Changes of every kind, for flows that either worker entered, and for those without an entry."""
    stop(mux)
    pick = random.Random(6)
    changes = [weighted(1, 5), weighted(5, 1), weighted(5, 1, new_flows_per_s=1), without_h1(), weighted(1, 1)]
    chosen = Counter[str]()
    for config in changes:
        for _ in range(20):
            mux.send(client(pick.randrange(5000, 5100)), worker=pick.randrange(2))
        mux.reload(config)
        for _ in range(10):
            port, opens = pick.randrange(5000, 5200), pick.random() < 0.2
            explanation = mux.explain(asked(port), opens=opens)
            lookups = mux.tables.lookups.sum(0)
            sent = mux.send(client(port, flags=SYN if opens else ACK))
            assert explanation.verdict == Verdict(int(sent.verdict[0]))
            assert explanation.backend == mux.snapshot.owners[int(sent.target[0])][1].name
            counted = {name for name, more in zip(LOOKUPS, mux.tables.lookups.sum(0) - lookups, strict=False) if more}
            assert counted == set(step(explanation, "flow")["lookup"])  # type: ignore[call-overload]
            chosen.update(counted)
    assert {"hit", "new", "base", "gone"} <= set(chosen), chosen


def test_a_packet_over_a_limit_is_explained_with_the_limit(tmp_path: Path, stop: Stop) -> None:
    mux = Served(tmp_path / "mux.sock", config=weighted(1, 2, new_flows_per_s=1), workers=1)
    stop(mux)
    try:
        assert mux.explain(asked(2), opens=True).verdict == Verdict.FORWARDED
        for port in range(1, 20):
            mux.send(client(port, flags=SYN))
        refused = mux.explain(asked(2), opens=True)
        assert refused.verdict in (Verdict.OVER_FLOW_RATE, Verdict.OVER_FLOW_SHARE)
        assert "raise the service's `new_flows_per_s`" in refused.hint
        assert mux.explain(asked(2)).verdict == Verdict.FORWARDED, "a later segment is not limited"
    finally:
        mux.close()


def test_next_hop_and_interface_are_the_mux_s_own(mux: Served) -> None:
    hop = step(mux.explain(asked(1)), "next hop")
    assert (hop["mac"], hop["interface"], hop["mtu"]) == ("02:00:00:00:00:09", "lo", 1500)


def test_a_neighbour_that_is_not_known_is_named(tmp_path: Path) -> None:
    mux = Served(tmp_path / "mux.sock", resolved=False)
    try:
        explanation = mux.explain("198.51.100.7:1 > 192.0.2.2:53/udp")
    finally:
        mux.close()
    assert explanation.verdict == Verdict.NO_NEIGHBOUR
    assert "10.1.1.2" in explanation.hint and "ARP" in explanation.hint


def test_an_address_that_is_not_a_vip_and_a_vip_with_other_ports() -> None:
    stranger, other = (
        explain_configuration(ClientPacket.parse(asked(1, to)), READ)
        for to in ("203.0.113.1:80/tcp", "192.0.2.1:443/tcp")
    )
    assert (stranger.verdict, other.verdict) == (Verdict.NOT_VIP, Verdict.NOT_VIP)
    assert "no service has the VIP 203.0.113.1" in stranger.hint
    assert "only for tcp 80:" in other.hint


def test_a_packet_that_does_not_fit_the_tunnel() -> None:
    fits, too_big = (
        explain_configuration(ClientPacket.parse(asked(1), length=length), READ) for length in (1480, 1481)
    )
    assert fits.verdict == Verdict.FORWARDED
    assert too_big.verdict == Verdict.TOO_BIG and "1480 bytes" in too_big.hint


@pytest.mark.parametrize("ports", [{"port": "any"}, {"port": 1000, "port_to": 1999}])
def test_a_service_of_many_ports_is_named(mux: Served, ports: dict[str, Any]) -> None:
    web, dns = CONFIG["services"]
    mux.reload(CONFIG | {"services": [web | ports, dns | {"vip": web["vip"], "port": 100}]})
    assert mux.wanted is not None
    text = asked(1, "192.0.2.1:1234/tcp")
    for explanation in (mux.explain(text), explain_configuration(ClientPacket.parse(text), mux.wanted)):
        assert (explanation.service, step(explanation, "service")["service"]) == ("web", "web")
        assert explanation.verdict == Verdict.FORWARDED
    said = "any" if ports["port"] == "any" else "1000-1999"
    assert f"(192.0.2.1 tcp {said})" in explanation.steps[1].found
    other = mux.explain(asked(1, "192.0.2.1:1234/udp"))
    assert (other.service, other.verdict) == (None, Verdict.NOT_VIP)
    assert f"but only for tcp {said}, udp 100:" in other.hint


PROBED = {"kind": "tcp", "fall": 1, "rise": 1}


def backends_step(explanation: Explanation) -> str:
    return next(line.found for line in explanation.steps if line.step == "backends")


def test_a_backend_that_is_down_is_named_with_the_reason(mux: Served) -> None:
    mux.reload(weighted(1, 1, health=PROBED))
    assert backends_step(mux.explain(asked(1))) == "2 of 2 take new flows"
    mux.tracker.record(("web", "h1"), False, "connection refused")
    mux.tracker.record(("web", "h2"), True, "connected")
    mux.refresh()
    explanation = mux.explain(asked(1))
    assert backends_step(explanation).startswith("1 of 2 take new flows; h1 is down: connection refused, since 20")
    backend_step = next(line for line in explanation.steps if line.step == "backend")
    assert (explanation.backend, backend_step.data["reason"]) == ("h2", "connected")
    assert "up (takes new flows; connected)" in backend_step.found


def test_a_backend_that_the_watermark_keeps_is_shown_as_down(mux: Served) -> None:
    mux.reload(weighted(1, 1, health=PROBED | {"watermark": 1.0}))
    for name in ("h1", "h2"):
        mux.tracker.record(("web", name), False, "timed out")
    mux.refresh()
    explanation = mux.explain(asked(1))
    assert explanation.verdict == Verdict.FORWARDED
    assert backends_step(explanation).startswith("2 of 2 take new flows; h1 is down: timed out; kept: fewer")
    assert "down: timed out; kept" in next(line.found for line in explanation.steps if line.step == "backend")


def test_without_a_backend_that_serves_the_hint_covers_each_reason(mux: Served) -> None:
    web, dns = CONFIG["services"]
    more = [{"name": name, "dip": f"10.1.{number}.2"} for number, name in ((3, "h3"), (4, "h4"))]
    idle = {"name": "h5", "dip": "10.1.5.2", "weight": 0}
    mux.reload(CONFIG | {"services": [web | {"health": PROBED, "backends": [*web["backends"], *more, idle]}, dns]})
    mux.override("disable", "h1")
    mux.override("drain", "h2")
    for name in ("h3", "h4"):
        mux.tracker.record(("web", name), False, "connection refused")
    mux.tracker.record(("web", "h5"), True, "connected")
    mux.refresh()
    explanation = mux.explain(asked(1), opens=True)
    assert explanation.verdict == Verdict.NO_BACKEND
    assert backends_step(explanation).startswith("0 of 5 take new flows; h1 is disabled: by command")
    assert explanation.hint == (
        "run `lbmux enable h1`: taken out by command: h1, h2; or find out why health checks of h3, h4 fail (connection"
        " refused): check server, agent and path; or give h5 a weight above 0, then run `lbmux reload`"
    )


def test_a_configuration_alone_says_what_it_cannot_know() -> None:
    explanation = explain_configuration(
        ClientPacket.parse(asked(1)), Config.model_validate(weighted(0, 1, health=PROBED))
    )
    assert backends_step(explanation) == (
        "1 of 2 take new flows; h1 is draining: weight 0 (only a live mux has health checks)"
    )


def test_the_prefix_is_the_one_that_the_data_path_uses() -> None:
    """Nested prefixes of both lists, the same one in both, and sources in and beside all of them."""
    pick = random.Random(7)
    prefixes = ["198.51.0.0/16", "198.51.0.0/17", "198.51.100.0/22", "198.51.100.0/24", "198.51.100.7/32"]
    for _ in range(12):
        allow, deny = (pick.sample(prefixes, pick.randrange(4)) for _ in range(2))
        config = Config.model_validate(weighted(1, 1, allow=allow, deny=deny))
        for source in ("198.51.100.7", "198.51.100.8", "198.51.1.1", "203.0.113.1"):
            explanation = explain_configuration(ClientPacket.parse(f"{source}:1 > 192.0.2.1:80/tcp"), config)
            if not allow and not deny:
                assert "access" not in [line.step for line in explanation.steps]
                continue
            access_step = step(explanation, "access")
            assert access_step["allowed"] == (explanation.verdict == Verdict.FORWARDED)
            assert access_step["allowed"] == (access_step["list"] == "allow" if access_step["list"] else not allow)


def test_a_service_without_backends_drops() -> None:
    services = [{**CONFIG["services"][0], "backends": []}]
    explanation = explain_configuration(
        ClientPacket.parse(asked(1)), Config.model_validate(CONFIG | {"services": services})
    )
    assert explanation.verdict == Verdict.NO_BACKEND and "the service has no backend: add one" in explanation.hint


def test_a_live_access_list_denies_the_listed_clients(tmp_path: Path) -> None:
    web, dns = CONFIG["services"]
    config = CONFIG | {"services": [web | {"deny": ["198.51.100.7/32"]}, dns | {"deny": ["203.0.113.0/24"]}]}
    served = Served(tmp_path / "mux.sock", config=config)
    try:
        denied = served.explain(asked(4000))
        assert denied.verdict == Verdict.DENIED
        assert "`allow` and `deny` exclude 198.51.100.7" in denied.hint
        assert step(denied, "access") == {"allowed": False, "list": "deny", "prefix": "198.51.100.7/32"}
        assert [line.step for line in denied.steps] == ["packet", "service", "access", "verdict"]
        for allowed in ("198.51.100.8:4000 > 192.0.2.1:80/tcp", asked(4000, "192.0.2.2:53/udp")):
            assert served.explain(allowed).verdict == Verdict.FORWARDED
    finally:
        served.close()


@pytest.mark.parametrize("host", ["2001:db8:1::2", "10.1.1.2"])
def test_an_ipv6_packet(host: str) -> None:
    backend = {"name": "h1", "dip": "2001:db8:1::9", "host": host}
    web = CONFIG["services"][0] | {"vip": "2001:db8::1", "backends": [backend]}
    config = Config.model_validate(CONFIG | {"muxes": ["10.0.1.2", "2001:db8:0:1::2"], "services": [web]})
    packet = ClientPacket.parse("[2001:db8:7::7]:4000 > [2001:db8::1]:80/tcp", opens=True)
    explanation = explain_configuration(packet, config)
    assert (explanation.verdict, explanation.service, explanation.backend) == (Verdict.FORWARDED, "web", "h1")
    assert step(explanation, "next hop")["host"] == step(explanation, "outer header")["destination"] == host
    assert str(packet) == "[2001:db8:7::7]:4000 > [2001:db8::1]:80/tcp"


def test_json_is_versioned_and_plain() -> None:
    data = explain_configuration(ClientPacket.parse(asked(1)), READ).as_json()
    assert (data["version"], data["verdict"], data["kind"], data["hint"]) == (1, "forwarded", "send", None)
    assert [line["step"] for line in data["steps"]] == [
        "packet", "service", "backends", "flow", "slot", "backend", "next hop", "outer header", "verdict",
    ]  # fmt: skip


def test_an_agent_or_another_version_is_not_read(mux: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbmux.tools.table_copy.VERSION", 1)
    with pytest.raises(ControlError, match="another version"):
        mux.explain(asked(1))


@pytest.mark.parametrize(
    "text",
    ["", "1.2.3.4:1", "1.2.3.4:1 > 1.2.3.4", "1.2.3.4:1 > 1.2.3:4", "1.2.3.4:65536 > 1.2.3.4:1",
     "[::1]:1 > 1.2.3.4:1", "1.2.3.4:1 > 1.2.3.4:1/icmp"],
)  # fmt: skip
def test_a_text_that_names_no_packet(text: str) -> None:
    with pytest.raises(PacketError):
        ClientPacket.parse(text)


def test_a_length_that_no_packet_has() -> None:
    with pytest.raises(PacketError, match="40 to 65535"):
        ClientPacket.parse(asked(1), length=39)
