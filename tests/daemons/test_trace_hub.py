"""`lbmux trace` and `lbmux capture` at a mux that runs: frames come, and what they print of them."""

import base64
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.utils import rdpcap

from lbmux.api.answers import TracedFrame
from lbmux.cli.inspect.trace_command import _steps
from lbmux.frames.xdp import detach
from lbmux.lab.lab import Lab
from tests.api.asking import ask
from tests.daemons.running_daemons import READY, START_S, Daemon, configuration, running, send, service, started
from tests.daemons.trace_client import CLIENT, DRIVERS, H1, VIP, capture, mux_with, syn, trace, trace_hub, tshark
from tests.lbmux_command import lbmux

pytestmark = pytest.mark.root

PAUSE_S = 0.005


@pytest.fixture
def mux(lab: Lab) -> Iterator[Daemon]:
    """`web` is for all, `closed` not for our client."""
    closed = service("closed", 81, [H1], deny=[f"{CLIENT}/32"])
    lab.write_config(configuration(service("web", 80, [H1]), closed))
    with running(lab, "mux1", "mux") as daemon:
        yield daemon


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
    (frame,) = trace(lab, mux, ["-n", "1", f"drop and src host {CLIENT}"], [syn(4100), syn(4101, 81), syn(4102)])
    assert frame["line"].startswith(f"{CLIENT}:4101 > {VIP}:81")
    assert (frame["verdict"], frame["kind"], frame["service"], frame["left"]) == ("denied", "drop", "closed", None)
    assert f"exclude {CLIENT}" in frame["steps"][-1]["found"]


def test_traces_passed_frames_by_verdict(lab: Lab, mux: Daemon) -> None:
    dns = bytes(IP(src=CLIENT, dst=VIP) / UDP(sport=4200, dport=53))
    (frame,) = trace(lab, mux, ["-n", "1", "verdict", "not_vip", "and", "udp"], [syn(4200), dns])
    assert (frame["verdict"], frame["kind"], frame["service"]) == ("not_vip", "pass", None)


def test_prints_a_line_a_step(lab: Lab, mux: Daemon) -> None:
    with trace_hub(mux, "trace", "-n", "1", "src port 4300") as client:
        send(lab, "client", syn(4300))
        first, *steps, last = client.completed().stdout.splitlines()
    assert f" eth0 {CLIENT}:4300 > {VIP}:80 tcp [S], 40 bytes" in first
    assert len(steps) == 7 and all(step.endswith("(asked afterwards)") for step in steps)
    assert last.split() == ["verdict", "forwarded", "(send),", "web/h1"]


def test_asks_for_the_steps_of_ipv6_as_well(mux: Daemon) -> None:
    link = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    data = bytes(link / IPv6(src="2001:db8::7", dst="2001:db8::1") / TCP(sport=4000, dport=80, flags="S"))
    frame = TracedFrame(
        program="mux", time_ns=0, interface="eth0", line="", frame=base64.b64encode(data).decode(), length=len(data),
        verdict="not_vip", kind="pass", dropped=False, service=None, backend=None, left=None, left_by=None,
        left_ns=None, left_length=None, is_reply=False, tunnel_ports={}, slowpath=None,
    )  # fmt: skip
    assert [step["step"] for step in _steps(mux.control, frame)] == ["service", "hint"]


def test_says_where_a_filter_is_wrong(mux: Daemon) -> None:
    done = lbmux("trace", "--control", str(mux.control), "verdict lost")
    assert done.returncode == 1
    assert "unknown verdict 'lost'" in done.stderr


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


@DRIVERS
def test_each_frame_has_the_time_when_it_came_and_when_it_left(lab: Lab, driver: str, tmp_path: Path) -> None:
    file, ports = tmp_path / "x.pcapng", range(4410, 4420)
    with mux_with(lab, driver) as mux, trace_hub(mux, "capture", "-w", str(file), "-n", "10", "src", "portrange",
                                                "4410-4419") as client:  # fmt: skip
        sent_ns = list[int]()
        for port in ports:
            sent_ns.append(time.time_ns())
            send(lab, "client", syn(port))
            time.sleep(PAUSE_S)
        ran = client.completed()
        assert ran.returncode == 0, ran.stderr
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
    """The frame crosses links with a larger MTU, to a service that drops it, so no tunnel has to carry it."""
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
    """Like ``mux``, but the kernel forwards and drops its packets."""
    closed = service("closed", 81, [H1], deny=[f"{CLIENT}/32"])
    lab.write_config(configuration(service("web", 80, [H1]), closed))
    with running(lab, "mux1", "mux", "--driver", "xdp") as daemon:
        yield daemon


def test_traces_what_the_kernel_forwards_and_drops(lab: Lab, kernel_mux: Daemon) -> None:
    send(lab, "client", syn(3999))  # a flow whose backend's next hop is known
    (frame,) = trace(lab, kernel_mux, ["-n", "1", "tcp and src port 4001"], [syn(4000), syn(4001), syn(4002, 81)])
    assert frame["line"] == f"{CLIENT}:4001 > {VIP}:80 tcp [S], 40 bytes"
    assert (frame["verdict"], frame["service"], frame["backend"]) == ("forwarded", "web", "h1")
    assert (frame["interface"], frame["left_by"]) == ("eth0", "eth0")
    assert 0 < time.time() - frame["time_ns"] / 1e9 < 60
    (dropped,) = trace(lab, kernel_mux, ["-n", "1", f"drop and src host {CLIENT}"], [syn(4100), syn(4101, 81)])
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
    """A trace client that is killed leaves no programs behind."""

    def program() -> int:
        done = lab.run("mux1", ["ip", "-d", "link", "show", "eth0"], capture_output=True, text=True)
        match = re.search(r"prog/xdp id (\d+)", done.stdout)
        assert match, done.stdout
        return int(match[1])

    usual = program()
    with trace_hub(kernel_mux, "trace", "drop"):
        assert program() != usual
    deadline = time.monotonic() + 5
    while program() != usual:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_programs_may_be_detached_meanwhile(lab: Lab, kernel_mux: Daemon) -> None:
    with trace_hub(kernel_mux, "trace", "drop"):
        assert lab.inside("mux1", lambda: detach("eth0"))
    with trace_hub(kernel_mux, "trace", "-n", "1", "src port 4001") as client:  # user space sees all frames now
        send(lab, "client", syn(4001))
        assert "forwarded (send), web/h1" in client.completed().stdout
    assert "internal error" not in kernel_mux.log and "failed" not in kernel_mux.log


@pytest.mark.parametrize("driver", ["tun", "xdp"])
def test_traces_and_captures_both_directions_of_an_agent(lab: Lab, driver: str, tmp_path: Path) -> None:
    lab.write_config(configuration(service("web", 80, [H1])))
    with started(lab, "mux1", "mux") as mux, started(lab, "host1", "agent", "--driver", driver) as agent:
        mux.wait_for(READY["mux"], START_S)
        agent.wait_for(READY["agent"], START_S)
        # The backend's host does not listen and answers with a reset.
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
    assert [line.partition(",")[0] for _, line in (first, last, first_back, last_back)] == [
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
