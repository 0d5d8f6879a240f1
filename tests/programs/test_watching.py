"""`lbmux trace` and `lbmux capture` at a mux that runs: frames come, and what they print of them."""

import base64
import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.utils import rdpcap

from lbmux.cli.trace import _steps
from lbmux.control.control_socket import ask
from lbmux.frames.xdp import detach
from lbmux.lab.lab import Lab

from .daemons import READY, START_S, Daemon, configuration, running, send, service, started
from .slow_lab import forget_path_mtus

pytestmark = pytest.mark.root

CLIENT, VIP = "198.51.100.2", "192.0.2.1"
H1 = {"name": "h1", "dip": "10.1.1.2", "port": 8080}


def syn(source_port: int, port: int = 80) -> bytes:
    return bytes(IP(src=CLIENT, dst=VIP) / TCP(sport=source_port, dport=port, flags="S"))


@pytest.fixture
def mux(lab: Lab) -> Iterator[Daemon]:
    """`web` is for all, `closed` not for our client."""
    closed = service("closed", 81, [H1], deny=[f"{CLIENT}/32"])
    lab.write_config(configuration(service("web", 80, [H1]), closed))
    with running(lab, "mux1", "mux") as daemon:
        yield daemon


@contextlib.contextmanager
def watching(daemon: Daemon, command: str, *options: str) -> "Iterator[subprocess.Popen[str]]":
    """A command that watches already; it is ended if it does not end."""
    line = [sys.executable, "-m", "lbmux.cli.main", command, "--control", str(daemon.control), *options]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr and f"watching the {daemon.program} on eth0" in process.stderr.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def trace(lab: Lab, daemon: Daemon, options: list[str], packets: list[bytes]) -> list[dict[str, Any]]:
    with watching(daemon, "trace", "-j", *options) as process:
        send(lab, "client", *packets)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    return [json.loads(line) for line in out.splitlines()]


def test_traces_a_forwarded_frame_with_its_steps(lab: Lab, mux: Daemon) -> None:
    (frame,) = trace(lab, mux, ["-n", "1", "tcp and src port 4001"], [syn(4000), syn(4001)])
    assert frame["line"] == f"{CLIENT}:4001 > {VIP}:80 tcp [S], 40 bytes"
    assert (frame["verdict"], frame["service"], frame["backend"]) == ("forwarded", "web", "h1")
    assert (frame["interface"], frame["left_by"]) == ("eth0", "eth0")
    assert time.time() - frame["time_ns"] / 1e9 < 60
    steps = {step["step"]: step["found"] for step in frame["steps"]}
    assert set(steps) == {"service", "backends", "flow", "slot", "backend", "next hop", "outer header"}
    assert steps["outer header"].startswith("10.0.1.2 > 10.1.1.2")


def test_traces_only_what_is_dropped(lab: Lab, mux: Daemon) -> None:
    (frame,) = trace(lab, mux, ["-n", "1", "drop"], [syn(4100), syn(4101, 81), syn(4102)])
    assert frame["line"].startswith(f"{CLIENT}:4101 > {VIP}:81")
    assert (frame["verdict"], frame["kind"], frame["service"], frame["left"]) == ("denied", "drop", "closed", None)
    assert f"keep {CLIENT} out" in frame["steps"][-1]["found"]


def test_traces_what_is_left_to_the_kernel_by_verdict(lab: Lab, mux: Daemon) -> None:
    dns = bytes(IP(src=CLIENT, dst=VIP) / UDP(sport=4200, dport=53))
    (frame,) = trace(lab, mux, ["-n", "1", "verdict", "not_vip", "and", "udp"], [syn(4200), dns])
    assert (frame["verdict"], frame["kind"], frame["service"]) == ("not_vip", "pass", None)


def test_prints_a_line_a_step(lab: Lab, mux: Daemon) -> None:
    with watching(mux, "trace", "-n", "1", "src port 4300") as process:
        send(lab, "client", syn(4300))
        out, _ = process.communicate(timeout=60)
    first, *steps, last = out.splitlines()
    assert f" eth0 {CLIENT}:4300 > {VIP}:80 tcp [S], 40 bytes" in first
    assert len(steps) == 7 and all(step.endswith("(asked afterwards)") for step in steps)
    assert last.split() == ["verdict", "forwarded", "(send),", "web/h1"]


def test_asks_for_the_steps_of_ipv6_as_well(mux: Daemon) -> None:
    link = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    data = bytes(link / IPv6(src="2001:db8::7", dst="2001:db8::1") / TCP(sport=4000, dport=80, flags="S"))
    frame = {"program": "mux", "verdict": "not_vip", "slowpath": None, "frame": base64.b64encode(data).decode()}
    assert [step["step"] for step in _steps(mux.control, frame)] == ["service", "to mend it"]


def test_says_where_a_filter_is_wrong(mux: Daemon) -> None:
    line = [sys.executable, "-m", "lbmux.cli.main", "trace", "--control", str(mux.control), "verdict lost"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "there is no verdict 'lost'" in done.stderr


def capture(lab: Lab, daemon: Daemon, file: Path, options: list[str], packets: list[bytes]) -> None:
    with watching(daemon, "capture", "-w", str(file), *options) as process:
        send(lab, "client", *packets)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors


def tshark(file: Path, *fields: str) -> list[list[str]]:
    names = [word for field in fields for word in ("-e", field)]
    line = ["tshark", "-r", str(file), "-T", "fields", *names]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_captures_frames_with_verdict_interface_and_time(lab: Lab, mux: Daemon, tmp_path: Path) -> None:
    file, before = tmp_path / "x.pcapng", time.time()
    capture(lab, mux, file, ["-n", "2", "tcp", "port", "4400"], [syn(4400), syn(4400, 81)])
    fields = ("frame.comment", "frame.interface_name", "frame.time_epoch")
    lines = tshark(file, *fields)
    assert [(line[0], line[1]) for line in lines] == [
        ("in: verdict forwarded (send), service web, backend h1", "eth0"),
        ("out: verdict forwarded (send), service web, backend h1", "eth0"),
        ("in: verdict denied (drop), service closed", "eth0"),
    ]
    assert all(before <= float(line[2]) <= time.time() for line in lines)
    came, left, denied = rdpcap(str(file))
    assert (came[IP].dst, left[IP].dst, left[IP].payload.dst, denied[TCP].dport) == (VIP, H1["dip"], VIP, 81)


DRIVERS = pytest.mark.parametrize("driver", ["packet", "xdp"])


@contextlib.contextmanager
def mux_with(lab: Lab, driver: str, *options: str, **more: Any) -> Iterator[Daemon]:
    """`web` is for all, `dns` for datagrams, `closed` not for our client; the next hop is known."""
    closed = service("closed", 81, [H1], deny=[f"{CLIENT}/32"])
    dns = service("dns", 53, [H1], protocol="udp")
    lab.write_config(configuration(service("web", 80, [H1]), dns, closed) | more)
    detach_on_exit = ["--detach-on-exit"] if driver == "xdp" else []
    forget_path_mtus(lab)
    with running(lab, "mux1", "mux", "--driver", driver, *detach_on_exit, *options) as daemon:
        send(lab, "client", syn(3999))
        yield daemon


PAUSE_S = 0.005


@DRIVERS
def test_each_frame_has_the_time_when_it_came_and_when_it_left(lab: Lab, driver: str, tmp_path: Path) -> None:
    file, ports = tmp_path / "x.pcapng", range(4410, 4420)
    with mux_with(lab, driver) as mux, watching(mux, "capture", "-w", str(file), "-n", "10", "src", "portrange",
                                                "4410-4419") as process:  # fmt: skip
        sent_ns = list[int]()
        for port in ports:
            sent_ns.append(time.time_ns())
            send(lab, "client", syn(port))
            time.sleep(PAUSE_S)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    lines = tshark(file, "frame.comment", "frame.time_epoch")
    came, left = (
        [int(at.replace(".", "")) for said, at in lines if said.startswith(place)] for place in ("in:", "out:")
    )
    assert len(came) == len(left) == 10 and came == sorted(came) and left == sorted(left)
    assert all(sent < at for sent, at in zip(sent_ns, came, strict=True))
    assert all(at < next_sent for at, next_sent in zip(came[:-1], sent_ns[1:], strict=True))
    assert all(0 < after - before < 1e9 for before, after in zip(came, left, strict=True))


@DRIVERS
def test_a_frame_of_which_only_the_beginning_is_kept_has_its_length(lab: Lab, driver: str, tmp_path: Path) -> None:
    """Over links that carry larger frames, to a service that drops it: so no tunnel needs to be larger still."""
    links = [("client", "eth0"), ("router", "to-client"), ("router", "to-mux1"), ("mux1", "eth0")]

    def set_mtus(mtu: int) -> None:
        for node, interface in links:
            lab.run(node, ["ip", "link", "set", interface, "mtu", str(mtu)], check=True, timeout=10)

    file = tmp_path / "x.pcapng"
    set_mtus(3100)
    try:
        with mux_with(lab, driver) as mux:
            large = bytes(IP(src=CLIENT, dst=VIP, flags="DF") / TCP(sport=4430, dport=81, flags="S") / bytes(2960))
            capture(lab, mux, file, ["-n", "1", "src port 4430"], [large])
    finally:
        set_mtus(1500)
    ((said, captured, length),) = tshark(file, "frame.comment", "frame.cap_len", "frame.len")
    assert said == "in: verdict denied (drop), service closed"
    assert (int(captured), int(length)) == (2048 if driver == "xdp" else 3014, 3014)


def way(frame: dict[str, Any]) -> list[tuple[str, str]]:
    return [(step["step"], step["found"]) for step in frame["steps"]]


@DRIVERS
def test_traces_a_ping_and_its_answer(lab: Lab, driver: str, tmp_path: Path) -> None:
    ping = bytes(IP(src=CLIENT, dst=VIP) / ICMP(id=9) / b"to whom?")
    with mux_with(lab, driver) as mux:
        (frame,) = trace(lab, mux, ["-n", "1", "icmp"], [ping])
        capture(lab, mux, tmp_path / "x", ["-n", "1", "icmp"], [ping])
        capture(lab, mux, tmp_path / "y", ["-n", "1", "--at", "out", "icmp"], [ping])
    assert (frame["verdict"], frame["kind"]) == ("icmp", "pass")
    assert way(frame) == [
        ("parse", "ICMP has no ports, so it is the slow path's"),
        ("slow path", "echo_answered"),
        ("sent", f"{VIP} > {CLIENT} icmp, 36 bytes, eth0"),
    ]
    fields = ("frame.comment", "frame.interface_name", "icmp.type", "frame.packet_flags_direction")
    came, answer = tshark(tmp_path / "x", *fields)
    said = "verdict icmp (pass), slow path: echo_answered"
    assert came == [f"in: {said}", "eth0", "8", "0x00000001"]
    assert answer[:3] == [f"out: {said}, in answer to {CLIENT} > {VIP} icmp, 36 bytes", "eth0", "0"]
    assert tshark(tmp_path / "y", *fields) == [answer], "what was sent is out, also alone"


@DRIVERS
def test_traces_an_error_about_a_flow_and_a_packet_that_is_too_big(lab: Lab, driver: str, tmp_path: Path) -> None:
    quote = bytes(IP(src=VIP, dst=CLIENT) / TCP(sport=80, dport=4700))
    error = bytes(IP(src=CLIENT, dst=VIP) / ICMP(type=3, code=1) / quote)
    large = bytes(IP(src=CLIENT, dst=VIP, flags="DF") / TCP(sport=4701, dport=80) / bytes(1460))
    with mux_with(lab, driver) as mux:
        (forwarded,) = trace(lab, mux, ["-n", "1", "icmp"], [error])
        (too_big,) = trace(lab, mux, ["-n", "1", "src port 4701"], [large])
        capture(lab, mux, tmp_path / "x", ["-n", "1", "--inner", "--at", "out", "icmp"], [error])
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
        capture(lab, mux, tmp_path / "x", ["-n", "1", "--inner", "--at", "out", "icmp"], [bytes(error)])
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
    """And not what waits, nor what is answered."""
    file = tmp_path / "x.pcapng"
    ping = bytes(IP(src=CLIENT, dst=VIP) / ICMP(id=9) / b"to whom?")
    about_nothing = bytes(IP(src=CLIENT, dst=VIP) / ICMP(type=3, code=1) / IP(src=VIP, dst=CLIENT) / TCP(sport=99))
    _, last = map(bytes, fragment(IP(src=CLIENT, dst=VIP, id=81) / UDP(sport=4850, dport=53) / bytes(2000), 1400))
    over = bytes(IP(src=CLIENT, dst=VIP, id=81, proto=17, frag=180) / bytes(64))
    packets = [ping, about_nothing, last, over]
    with mux_with(lab, driver) as mux:
        dropped = trace(lab, mux, ["-n", "2", "drop"], packets)
        capture(lab, mux, file, ["-n", "2", "--at", "drop", f"src host {CLIENT}"], packets)
    assert [(frame["verdict"], frame["kind"], frame["dropped"], way(frame)[-1][1]) for frame in dropped] == [
        ("icmp", "pass", True, "icmp_no_flow: dropped"), ("fragment", "pass", True, "fragment_overlap: dropped"),
    ]  # fmt: skip
    said = [line[0] for line in tshark(file, "frame.comment")]
    assert said[0] == "drop: verdict icmp (pass), slow path: icmp_no_flow: dropped"
    assert [one.split(", ")[0] for one in said[1:]] == ["drop: verdict fragment (pass)"]


def test_captures_only_what_was_dropped(lab: Lab, mux: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "x.pcapng"
    capture(lab, mux, file, ["-n", "1", "--at", "drop", "src port 4500"], [syn(4500), syn(4500, 81)])
    assert tshark(file, "frame.comment") == [["drop: verdict denied (drop), service closed"]]


def test_captures_what_left_without_its_tunnel(lab: Lab, mux: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "x.pcapng"
    capture(lab, mux, file, ["-n", "1", "--at", "out", "--inner", "src port 4600"], [syn(4600)])
    (left,) = rdpcap(str(file))
    assert (left[IP].src, left[IP].dst, left[TCP].sport, left[IP].ttl) == (CLIENT, VIP, 4600, 62)
    assert len(left[IP]) == 40


@pytest.fixture
def kernel_mux(lab: Lab) -> Iterator[Daemon]:
    """As ``mux``, and its packets are forwarded and dropped in the kernel."""
    closed = service("closed", 81, [H1], deny=[f"{CLIENT}/32"])
    lab.write_config(configuration(service("web", 80, [H1]), closed))
    with running(lab, "mux1", "mux", "--driver", "xdp") as daemon:
        yield daemon


def test_traces_what_the_kernel_forwards_and_drops(lab: Lab, kernel_mux: Daemon) -> None:
    send(lab, "client", syn(3999))  # the flow of a slot whose next hop is known
    (frame,) = trace(lab, kernel_mux, ["-n", "1", "tcp and src port 4001"], [syn(4000), syn(4001), syn(4002, 81)])
    assert frame["line"] == f"{CLIENT}:4001 > {VIP}:80 tcp [S], 40 bytes"
    assert (frame["verdict"], frame["service"], frame["backend"]) == ("forwarded", "web", "h1")
    assert (frame["interface"], frame["left_by"]) == ("eth0", "eth0")
    assert 0 < time.time() - frame["time_ns"] / 1e9 < 60
    (dropped,) = trace(lab, kernel_mux, ["-n", "1", "drop"], [syn(4100), syn(4101, 81)])
    assert (dropped["line"].split()[0], dropped["verdict"]) == (f"{CLIENT}:4101", "denied")
    counted = {row["verdict"]: row["packets"] for row in ask(kernel_mux.control, "counters")["verdicts"]}
    assert counted["denied"] == 2, "by the programs that record, too"


def test_captures_what_the_kernel_forwards(lab: Lab, kernel_mux: Daemon, tmp_path: Path) -> None:
    send(lab, "client", syn(3999))
    file = tmp_path / "x.pcapng"
    capture(lab, kernel_mux, file, ["-n", "2", f"host {CLIENT}"], [syn(4400), syn(4400, 81)])
    assert [line[0].split(",")[0] for line in tshark(file, "frame.comment")] == [
        "in: verdict forwarded (send)", "out: verdict forwarded (send)", "in: verdict denied (drop)",
    ]  # fmt: skip
    came, left, denied = rdpcap(str(file))
    assert bytes(left[IP].payload)[-20:] == bytes(came[IP])[-20:]
    assert (left[IP].dst, left[IP].payload.dst, denied[TCP].dport) == (H1["dip"], VIP, 81)


def test_puts_the_usual_programs_back(lab: Lab, kernel_mux: Daemon) -> None:
    """And a watcher that is killed is not missed."""

    def program() -> int:
        done = lab.run("mux1", ["ip", "-d", "link", "show", "eth0"], capture_output=True, text=True)
        found = re.search(r"prog/xdp id (\d+)", done.stdout)
        assert found, done.stdout
        return int(found[1])

    usual = program()
    with watching(kernel_mux, "trace", "drop"):
        assert program() != usual
    deadline = time.monotonic() + 5
    while program() != usual:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_programs_may_be_taken_off_meanwhile(lab: Lab, kernel_mux: Daemon) -> None:
    with watching(kernel_mux, "trace", "drop"):
        assert lab.inside("mux1", lambda: detach("eth0"))
    with watching(kernel_mux, "trace", "-n", "1", "src port 4001") as process:  # in user space all are seen now
        send(lab, "client", syn(4001))
        out, _ = process.communicate(timeout=60)
    assert "forwarded (send), web/h1" in out
    assert "internal error" not in kernel_mux.log and "failed" not in kernel_mux.log


@pytest.mark.parametrize("driver", ["tun", "xdp"])
def test_traces_and_captures_both_ways_of_an_agent(lab: Lab, driver: str, tmp_path: Path) -> None:
    lab.write_config(configuration(service("web", 80, [H1])))
    with started(lab, "mux1", "mux") as mux, started(lab, "host1", "agent", "--driver", driver) as agent:
        mux.wait_for(READY["mux"], START_S)
        agent.wait_for(READY["agent"], START_S)
        # Nobody listens at the backend: its host answers with a reset.
        came, reply = trace(lab, agent, ["-n", "2", f"host {CLIENT} and port 4700"], [syn(4699), syn(4700)])
        for options in ([], ["--inner"]):
            capture(lab, agent, tmp_path / f"x{len(options)}", ["-n", "2", *options, "port 4800"], [syn(4800)])
    outer, inner = (rdpcap(str(tmp_path / f"x{number}")) for number in (0, 1))
    assert [packet[IP].dst for packet in outer] == ["10.1.1.2", "10.1.1.2", CLIENT, CLIENT]
    assert [packet[IP].dst for packet in inner] == [VIP, "10.1.1.2", CLIENT, CLIENT]
    assert (came["line"], came["verdict"]) == (f"{CLIENT}:4700 > {VIP}:80 tcp [S], 40 bytes", "delivered")
    assert (reply["line"], reply["verdict"]) == (f"{VIP}:80 > {CLIENT}:4700 tcp [R.], 40 bytes", "replied")
    assert [(frame["service"], frame["backend"]) for frame in (came, reply)] == [("web", "h1")] * 2
    (first, *there, last), (first_back, *back, last_back) = (
        [(step["step"], step["found"]) for step in frame["steps"]] for frame in (came, reply)
    )
    assert [found.partition(",")[0] for _, found in (first, last, first_back, last_back)] == [
        "10.0.1.2 > 10.1.1.2 protocol 4", f"{CLIENT}:4700 > 10.1.1.2:8080 tcp [S]",
        f"10.1.1.2:8080 > {CLIENT}:4700 tcp [R.]", f"{VIP}:80 > {CLIENT}:4700 tcp [R.]",
    ]  # fmt: skip
    assert [step for step, _ in there] == ["outer header", "match", "endpoint", "flow", "translation"]
    found, found_back = dict(there), dict(back)
    assert found["outer header"].endswith("10.0.1.2 is a mux, 10.1.1.2 is this host's")
    assert "idle for" in found["flow"] and "(web/h1)" in found["flow"]
    assert found["translation"] == f"{VIP}:80 to 10.1.1.2:8080"
    assert found_back["match"].startswith("DIP 10.1.1.2:8080/tcp is a backend's")
    assert found_back["translation"] == f"10.1.1.2:8080 to {VIP}:80"


@pytest.mark.parametrize("driver", ["tun", "xdp"])
def test_traces_what_the_slow_path_of_an_agent_sends(lab: Lab, driver: str) -> None:
    """A connection that no host has goes back to the mux, which resets it; fragments are put together for the stack."""
    lab.write_config(configuration(service("web", 80, [H1]), service("dns", 53, [H1], protocol="udp")))
    ack = bytes(IP(src=CLIENT, dst=VIP) / TCP(sport=4900, dport=80, flags="A", ack=77))
    parts = fragment(IP(src=CLIENT, dst=VIP, id=80) / UDP(sport=4901, dport=53) / bytes(2000), 1400)
    with started(lab, "mux1", "mux") as mux, started(lab, "host1", "agent", "--driver", driver) as agent:
        mux.wait_for(READY["mux"], START_S)
        agent.wait_for(READY["agent"], START_S)
        with watching(mux, "trace", "-j", "-n", "1", "src host 10.1.1.2") as at_mux:
            (asked,) = trace(lab, agent, ["-n", "1", "verdict unknown"], [ack])
            returned = json.loads(at_mux.communicate(timeout=60)[0])
        one, other = trace(lab, agent, ["-n", "2", f"src host {CLIENT} and udp"], [bytes(part) for part in parts])
    assert way(asked)[-2:] == [
        ("slow path", "unknown_returned"), ("sent", "10.1.1.2 > 10.0.1.2 protocol 4, 60 bytes, route"),
    ]  # fmt: skip
    assert dict(way(asked))["flow"] == "no entry"
    assert (returned["verdict"], [step for step, _ in way(returned)]) == ("protocol", ["parse", "slow path", "sent"])
    assert way(returned)[1:] == [
        ("slow path", "returned_reset"), ("sent", f"{VIP}:80 > {CLIENT}:4900 tcp [R], 40 bytes, route"),
    ]  # fmt: skip
    assert way(one)[-1] == ("slow path", "nothing yet: a fragment that waits for others, or left to the kernel's stack")
    assert [step for step, _ in way(other)[-2:]] == ["slow path", "sent"]
    assert way(other)[-1][1].startswith(f"{CLIENT}:4901 > 10.1.1.2:8080 udp, 2028 bytes, lbmux")
