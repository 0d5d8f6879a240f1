"""`lbmux trace` and `lbmux capture`: frames that go the slow path, and what it sends for them."""

import json
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.utils import rdpcap

from lbmux.lab.lab import Lab
from tests.daemons.running_daemons import READY, START_S, configuration, service, started
from tests.daemons.trace_client import CLIENT, DRIVERS, H1, VIP, capture, mux_with, trace, trace_hub, tshark, way

pytestmark = pytest.mark.root
ICMP_OF_CLIENT = f"icmp and src host {CLIENT}"
"""A host without an agent sends ICMP errors about the probes of its mux."""


@DRIVERS
def test_traces_a_ping_and_its_answer(lab: Lab, driver: str, tmp_path: Path) -> None:
    ping = bytes(IP(src=CLIENT, dst=VIP) / ICMP(id=9) / b"payload!")
    with mux_with(lab, driver) as mux:
        (frame,) = trace(lab, mux, ["-n", "1", ICMP_OF_CLIENT], [ping])
        capture(lab, mux, tmp_path / "x", ["-n", "1", ICMP_OF_CLIENT], [ping])
        capture(lab, mux, tmp_path / "y", ["-n", "1", "--at", "out", ICMP_OF_CLIENT], [ping])
    assert (frame["verdict"], frame["kind"]) == ("icmp", "pass")
    assert way(frame) == [
        ("parse", "ICMP has no ports, so the slow path handles it"),
        ("slow path", "echo_answered"),
        ("sent", f"{VIP} > {CLIENT} icmp, 36 bytes, eth0"),
    ]
    fields = ("frame.comment", "frame.interface_name", "icmp.type", "frame.packet_flags_direction")
    came, answer = tshark(tmp_path / "x", *fields)
    said = "verdict icmp (pass), slow path: echo_answered"
    assert came == [f"in: {said}", "eth0", "8", "0x00000001"]
    assert answer[:3] == [f"out: {said}, in response to {CLIENT} > {VIP} icmp, 36 bytes", "eth0", "0"]
    assert tshark(tmp_path / "y", *fields) == [answer], "what was sent is out, also alone"


@DRIVERS
def test_traces_an_error_about_a_flow_and_a_packet_that_is_too_big(lab: Lab, driver: str, tmp_path: Path) -> None:
    quote = bytes(IP(src=VIP, dst=CLIENT) / TCP(sport=80, dport=4700))
    error = bytes(IP(src=CLIENT, dst=VIP) / ICMP(type=3, code=1) / quote)
    large = bytes(IP(src=CLIENT, dst=VIP, flags="DF") / TCP(sport=4701, dport=80) / bytes(1460))
    with mux_with(lab, driver) as mux:
        (forwarded,) = trace(lab, mux, ["-n", "1", ICMP_OF_CLIENT], [error])
        (too_big,) = trace(lab, mux, ["-n", "1", "src port 4701"], [large])
        capture(lab, mux, tmp_path / "x", ["-n", "1", "--inner", "--at", "out", ICMP_OF_CLIENT], [error])
    assert dict(way(forwarded))["backend"].startswith("h1 by its slot: 10.1.1.2"), "of the flow that is meant"
    assert way(forwarded)[-2:] == [
        ("slow path", "icmp_forwarded"), ("sent", "10.0.1.2 > 10.1.1.2 protocol 4, 88 bytes, eth0"),
    ]  # fmt: skip
    (inner,) = rdpcap(str(tmp_path / "x"))
    assert (inner[IP].src, inner[IP].dst, inner[ICMP].code) == (CLIENT, VIP, 1)
    assert (too_big["verdict"], way(too_big)[-2]) == ("too_big", ("slow path", "too_big_answered"))
    assert way(too_big)[-1] == ("sent", f"{VIP} > {CLIENT} icmp, 576 bytes, eth0")
    assert "outer header" not in dict(way(too_big)) and "service" in dict(way(too_big))


def test_captures_what_the_slow_path_sent_without_its_tunnel(lab: Lab, tmp_path: Path) -> None:
    error = IP(src=CLIENT, dst=VIP) / ICMP(type=3, code=1) / IP(src=VIP, dst=CLIENT) / TCP(sport=80, dport=4700)
    with mux_with(lab, "packet", tunnel={"kind": "gue1", "gue_port": 7000}) as mux:
        capture(lab, mux, tmp_path / "x", ["-n", "1", "--inner", "--at", "out", ICMP_OF_CLIENT], [bytes(error)])
    (inner,) = rdpcap(str(tmp_path / "x"))
    assert (inner[IP].src, inner[IP].dst, inner[IP].ttl) == (CLIENT, VIP, 62) and len(inner[IP]) == len(error)
    assert bytes(inner[ICMP]) == bytes(error[ICMP])


@DRIVERS
def test_traces_fragments_that_wait_for_the_first_one(lab: Lab, driver: str) -> None:
    whole = IP(src=CLIENT, dst=VIP, id=79) / UDP(sport=4800, dport=53) / bytes(2000)
    first, last = map(bytes, fragment(whole, 1400))
    with mux_with(lab, driver) as mux:
        waits, decides = trace(lab, mux, ["-n", "2", f"src host {CLIENT} and udp"], [last, first])
    assert [frame["verdict"] for frame in (waits, decides)] == ["fragment"] * 2
    assert way(waits)[0][0] == "parse" and way(waits)[0][1].startswith("a fragment")
    assert way(waits)[1][1].startswith("nothing yet") and len(way(waits)) == 2
    *_, slow_path, waited, came = way(decides)
    sent = [waited, came]
    assert slow_path == ("slow path", "fragment_forwarded")
    assert [said.partition(",")[0] for _, said in sent] == ["10.0.1.2 > 10.1.1.2 protocol 4"] * 2, "the one that waited"


@DRIVERS
def test_traces_and_captures_what_the_slow_path_drops(lab: Lab, driver: str, tmp_path: Path) -> None:
    """Fragments that wait and pings that are answered are not drops."""
    file = tmp_path / "x.pcapng"
    ping = bytes(IP(src=CLIENT, dst=VIP) / ICMP(id=9) / b"payload!")
    about_nothing = bytes(IP(src=CLIENT, dst=VIP) / ICMP(type=3, code=1) / IP(src=VIP, dst=CLIENT) / TCP(sport=99))
    _, last = map(bytes, fragment(IP(src=CLIENT, dst=VIP, id=81) / UDP(sport=4850, dport=53) / bytes(2000), 1400))
    over = bytes(IP(src=CLIENT, dst=VIP, id=81, proto=17, frag=180) / bytes(64))
    packets = [ping, about_nothing, last, over]
    with mux_with(lab, driver) as mux:
        dropped = trace(lab, mux, ["-n", "2", f"drop and src host {CLIENT}"], packets)
        capture(lab, mux, file, ["-n", "2", "--at", "drop", f"src host {CLIENT}"], packets)
    assert [(frame["verdict"], frame["kind"], frame["dropped"], way(frame)[-1][1]) for frame in dropped] == [
        ("icmp", "pass", True, "icmp_no_flow: dropped"), ("fragment", "pass", True, "fragment_overlap: dropped"),
    ]  # fmt: skip
    said = [line[0] for line in tshark(file, "frame.comment")]
    assert said[0] == "drop: verdict icmp (pass), slow path: icmp_no_flow: dropped"
    assert [one.split(", ")[0] for one in said[1:]] == ["drop: verdict fragment (pass)"]


@pytest.mark.parametrize("driver", ["tun", "xdp"])
def test_traces_packets_sent_by_an_agents_slow_path(lab: Lab, driver: str) -> None:
    """A connection that no host has goes back to the mux, which resets it; fragments are put together for the stack."""
    lab.write_config(configuration(service("web", 80, [H1]), service("dns", 53, [H1], protocol="udp")))
    ack = bytes(IP(src=CLIENT, dst=VIP) / TCP(sport=4900, dport=80, flags="A", ack=77))
    parts = fragment(IP(src=CLIENT, dst=VIP, id=80) / UDP(sport=4901, dport=53) / bytes(2000), 1400)
    with started(lab, "mux1", "mux") as mux, started(lab, "host1", "agent", "--driver", driver) as agent:
        mux.wait_for(READY["mux"], START_S)
        agent.wait_for(READY["agent"], START_S)
        with trace_hub(mux, "trace", "-j", "-n", "1", "src host 10.1.1.2") as at_mux:
            (asked,) = trace(lab, agent, ["-n", "1", "verdict unknown_connection"], [ack])
            returned = json.loads(at_mux.completed().stdout)
        one, other = trace(lab, agent, ["-n", "2", f"src host {CLIENT} and udp"], [bytes(part) for part in parts])
    assert way(asked)[-2:] == [
        ("slow path", "unknown_returned"), ("sent", "10.1.1.2 > 10.0.1.2 protocol 4, 60 bytes, route"),
    ]  # fmt: skip
    assert dict(way(asked))["flow"] == "no entry"
    assert (returned["verdict"], [step for step, _ in way(returned)]) == ("protocol", ["parse", "slow path", "sent"])
    assert way(returned)[1:] == [
        ("slow path", "returned_reset"), ("sent", f"{VIP}:80 > {CLIENT}:4900 tcp [R], 40 bytes, route"),
    ]  # fmt: skip
    assert way(one)[-1] == ("slow path", "nothing yet: a fragment is held, or the packet is left to the kernel's stack")
    assert [step for step, _ in way(other)[-2:]] == ["slow path", "sent"]
    assert way(other)[-1][1].startswith(f"{CLIENT}:4901 > 10.1.1.2:8080 udp, 2028 bytes, lbmux")
