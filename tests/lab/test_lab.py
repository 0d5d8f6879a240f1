"""Labs that come up, are used, break, and go: real namespaces, under a name of their own."""

import hashlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import yaml
from pyroute2 import IPRoute, netns

from lbmux.errors import LabError
from lbmux.lab import namespaces, processes, topology_builder, topology_file
from lbmux.lab.lab import Lab
from lbmux.lab.systems.built_in import TOPOLOGIES
from lbmux.lab.test_server import PATTERN
from lbmux.lab.topology import ROUTER_SYSCTLS, VIP, Link, Node, Port, Program, Topology, ananta
from tests.frames.pair import Pair
from tests.lbmux_command import lbmux

pytestmark = pytest.mark.root

ETH_P_IP = 0x0800
WIRE_SCRIPT = Path(__file__).with_name("frame_socket.py")
FLOWS, PACKETS_A_FLOW = 30, 6
SLEEPER = Program("sleeper", "timeit", ("-n", "1", "import time; time.sleep(60)"), ready=False)
_numbers = count()


def fresh() -> Lab:
    """A lab that is not up yet, under an unused name."""
    return Lab(ananta(), f"t{os.getpid()}x{next(_numbers)}")


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = fresh()
    try:
        yield lab
    finally:
        lab.down()


@pytest.fixture(scope="module")
def network() -> Iterator[Lab]:
    """Namespaces, links and routes, but no programs."""
    lab = fresh()
    lab.up(programs=False)
    yield lab
    lab.down()


def names() -> set[str]:
    return set(netns.listnetns())


def own_names(lab: Lab) -> set[str]:
    """Other people's labs come and go meanwhile."""
    return {name for name in names() if name.startswith(f"{lab.name}-")}


def mtu(interface: str) -> int:
    with IPRoute() as ip:
        return int(ip.get_links(ip.link_lookup(ifname=interface)[0])[0].get_attr("IFLA_MTU"))


def reaches(lab: Lab, node: str, address: str) -> bool:
    """Whether TCP gets there: a refusal is an answer."""

    def connect() -> bool:
        try:
            socket.create_connection((address, 9), 2).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return True

    return lab.inside(node, connect)


def test_every_node_reaches_every_other(network: Lab) -> None:
    for node in network.topology.nodes:
        for other in network.topology.nodes:
            assert reaches(network, node.name, network.topology.port(other.name).ip), (node.name, other.name)


def test_interfaces_have_the_mtu_and_the_offloads_that_the_topology_says(network: Lab) -> None:
    from lbmux.linux.offloads import features

    for link in network.topology.links:
        for port in (link.a, link.b):
            seen = network.inside(port.node, lambda port=port: features(port.interface))  # type: ignore[misc]
            assert {name: seen[name] for name in port.offloads} == port.offloads, port
            assert network.inside(port.node, lambda port=port: mtu(port.interface)) == link.mtu  # type: ignore[misc]


def test_the_router_hashes_by_ports(network: Lab) -> None:
    def sysctls() -> dict[str, str]:
        return {name: Path("/proc/sys", *name.split(".")).read_text().strip() for name in ROUTER_SYSCTLS}

    seen = network.inside("router", sysctls)
    assert int(seen.pop("net.ipv4.fib_multipath_hash_fields"), 0) == 55
    assert seen == {"net.ipv4.ip_forward": "1", "net.ipv4.fib_multipath_hash_policy": "3"}


def test_only_the_router_forwards_whatever_the_machine_does(network: Lab) -> None:
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    seen = {node.name: network.inside(node.name, forward.read_text) for node in network.topology.nodes}
    assert seen == {node.name: "1\n" if node.role == "router" else "0\n" for node in network.topology.nodes}


def test_a_host_in_local_mode_has_the_vip_and_keeps_it_to_itself(network: Lab) -> None:
    def loopback() -> set[str]:
        with IPRoute() as ip:
            return {message.get_attr("IFA_LOCAL") for message in ip.get_addr(label="lo")}

    assert VIP in network.inside("host3", loopback)
    assert VIP not in network.inside("host1", loopback)
    assert network.inside("host3", lambda: Path("/proc/sys/net/ipv4/conf/all/arp_ignore").read_text()) == "1\n"


def packets_by_flow(lab: Lab, packets_a_flow: int) -> dict[int, dict[str, int]]:
    """How many packets of each of 30 flows to the VIP came to which mux; waits for all of them."""
    command = [sys.executable, str(WIRE_SCRIPT), "flows", VIP, "80", str(FLOWS), str(packets_a_flow)]
    seen: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    with ExitStack() as stack:
        muxes = {stack.enter_context(lab.inside(node, listener)): node for node in ("mux1", "mux2")}
        lab.run("client", command, check=True)
        left, deadline = FLOWS * packets_a_flow, time.monotonic() + 20
        while left and time.monotonic() < deadline:
            for sock in select.select([*muxes], [], [], 0.1)[0]:
                packet, origin = sock.recvfrom(65536)
                if origin[2] == socket.PACKET_HOST and packet[9] == socket.IPPROTO_TCP:
                    seen[struct.unpack_from("!H", packet, 20)[0]][muxes[sock]] += 1
                    left -= 1
    return {port: dict(by_mux) for port, by_mux in seen.items()}


def listener() -> socket.socket:
    """Receives the IPv4 packets that arrive by eth0, without Ethernet headers."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)  # 0: nothing before bind
    sock.bind(("eth0", ETH_P_IP))
    return sock


def test_a_seed_makes_the_routers_choice_repeatable(network: Lab) -> None:
    setting = "net.ipv4.fib_multipath_hash_seed"
    if not network.inside("router", Path("/proc/sys", *setting.split(".")).exists):
        pytest.skip("this kernel has no fib_multipath_hash_seed (6.11)")

    def choice(seed: str) -> dict[int, list[str]]:
        network.inside("router", lambda: namespaces.set_sysctls({setting: seed}))
        return {port: list(by_mux) for port, by_mux in packets_by_flow(network, 1).items()}

    first, other, again = choice("1"), choice("2"), choice("1")
    assert len(first) == FLOWS
    assert first == again != other


def test_an_upload_arrives_at_a_mux_as_on_a_wire(network: Lab) -> None:
    """The client sends super-frames with unfinished checksums, as TCP does over veth; the router's port cuts them."""
    mux = network.topology.port("mux1").ip
    arguments = ("--name", "m", "--address", mux, "--web-port", "8080", "--echo-port", "8007")
    server = network.start(network.topology.node("mux1"), Program("server", "lbmux.lab.test_server", arguments))
    watch = [sys.executable, str(WIRE_SCRIPT), "arrive", "eth0"]
    watcher = network.popen("mux1", watch, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert watcher.stdout is not None and watcher.stdout.readline() == "ready\n"
    command = ["curl", "--silent", "--fail", "--upload-file", "-", f"http://{mux}:8080/digest"]
    body = PATTERN * 80  # 5 MB
    sent = network.run("client", command, input=body, capture_output=True, check=True)
    processes.end([server])
    seen = json.loads(watcher.communicate()[0])
    assert sent.stdout.decode() == hashlib.sha256(body).hexdigest()
    assert seen["packets"] >= len(body) / 1500
    assert (seen["longest"], seen["unfinished"]) == (1500, 0)


def test_flows_with_retransmissions_spread_over_both_muxes_and_each_stays_on_one(network: Lab) -> None:
    seen = packets_by_flow(network, PACKETS_A_FLOW)
    assert len(seen) == FLOWS
    assert all(sum(by_mux.values()) == PACKETS_A_FLOW for by_mux in seen.values()), seen
    assert all(len(by_mux) == 1 for by_mux in seen.values()), seen
    assert {node for by_mux in seen.values() for node in by_mux} == {"mux1", "mux2"}


def test_exec_passes_output_and_exit_code(network: Lab) -> None:
    ran = lbmux("lab", "exec", "--name", network.name, "mux1", "sh", "-c", "ip -o -4 address show eth0; exit 41")
    assert ran.returncode == 41
    assert "10.0.1.2/24" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("absent", "true"), "lbmux: absent: no such node; nodes are client, router,"),
        (("client", "no-such-command"), "lbmux: client: no-such-command: not found"),
    ],
)
def test_exec_reports_a_missing_program_in_one_line(network: Lab, arguments: tuple[str, ...], said: str) -> None:
    ran = lbmux("lab", "exec", "--name", network.name, *arguments)
    assert ran.returncode == 1
    assert ran.stderr.startswith(said) and ran.stderr.count("\n") == 1


def test_exec_in_a_lab_that_is_down_says_so() -> None:
    ran = lbmux("lab", "exec", "--name", fresh().name, "client", "true")
    assert (ran.returncode, ran.stderr) == (1, "lbmux: client: the lab is not up: lbmux lab up\n")


def test_up_status_down_as_commands_are_idempotent(lab: Lab) -> None:
    first = json.loads(lbmux("lab", "up", "--name", lab.name, "--json").stdout)
    print(f"lab up: {first['seconds']} s")
    assert first["built"] and first["up"]
    second = json.loads(lbmux("lab", "up", "--name", lab.name, "--json").stdout)
    assert not second["built"] and second["up"]
    assert second["nodes"] == first["nodes"]
    programs = [program for node in second["nodes"] for program in node["programs"]]
    assert sorted(program["name"] for program in programs) == ["agent"] * 3 + ["mux"] * 2 + ["server"] * 3
    assert all(program["alive"] for program in programs)
    shown = lbmux("lab", "status", "--name", lab.name)
    assert shown.returncode == 0 and "host3" in shown.stdout
    assert own_names(lab) == {f"{lab.name}-{node.name}" for node in lab.topology.nodes}
    assert json.loads(lbmux("lab", "down", "--name", lab.name, "--json").stdout) == {"removed": True}
    assert json.loads(lbmux("lab", "down", "--name", lab.name, "--json").stdout) == {"removed": False}
    assert own_names(lab) == set()
    assert not lab.directory.exists()
    assert [program for program in programs if processes.start_time(program["pid"]) == program["started"]] == []
    assert lbmux("lab", "status", "--name", lab.name).returncode == 1


def test_down_keeps_other_namespaces_and_processes(lab: Lab) -> None:
    other = f"{lab.name}-other"
    netns.create(other)
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        lab.up(programs=False)
        guest = lab.popen("client", ["sleep", "60"])
        lab.down()
        assert other in names()
        assert stranger.poll() is None and guest.poll() is None
        guest.kill()
        guest.wait()
    finally:
        stranger.kill()
        stranger.wait()
        netns.remove(other)


def test_a_recycled_process_id_is_left_alone(lab: Lab) -> None:
    lab.up(programs=False)
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        started = processes.start_time(stranger.pid)
        assert started is not None
        state = json.loads((lab.directory / "state.json").read_text())
        state["processes"] = [{"node": "client", "name": "old", "pid": stranger.pid, "started": started - 1}]
        (lab.directory / "state.json").write_text(json.dumps(state))
        assert lab.down()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_down_ends_what_another_process_started(lab: Lab) -> None:
    elsewhere = Lab(ananta(), lab.name)
    elsewhere.up(programs=False)
    sleeper = elsewhere.start(elsewhere.topology.node("client"), SLEEPER)
    assert lab.is_up
    lab.down()
    assert not sleeper.alive
    assert own_names(lab) == set()


def test_a_program_started_by_another_process_stays_recorded(lab: Lab) -> None:
    elsewhere = Lab(ananta(), lab.name)
    elsewhere.up(programs=False)
    started = {elsewhere.start(elsewhere.topology.node("client"), SLEEPER)}
    started.add(lab.start(lab.topology.node("client"), SLEEPER))
    assert set(Lab(ananta(), lab.name).processes) == started


def test_an_existing_namespace_is_refused_and_stays(lab: Lab) -> None:
    foreign = lab.namespace("mux1")
    netns.create(foreign)
    try:
        with pytest.raises(LabError, match=f"{foreign} exists and is not part of this lab"):
            lab.up()
        assert foreign in names()
        assert lab.namespace("client") not in names()
    finally:
        netns.remove(foreign)


def test_a_pair_of_namespaces_that_exist_is_refused() -> None:
    pair = Pair()
    try:
        with pytest.raises(LabError, match=rf"{pair.namespace('a')}: no network namespace: .*File exists"):
            Pair()
    finally:
        pair.remove()


def test_an_interrupted_lab_start_is_repaired(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(topology_builder, "_address_and_route", lambda node: os.kill(os.getpid(), signal.SIGINT))
        patched.setattr(lab, "down", lambda: False)  # as after kill -9: nothing is cleaned up
        lab.up(programs=False)
    again = Lab(ananta(), lab.name)
    assert namespaces.exists(again.namespace("client")) and not again.is_up
    assert again.up(programs=False)
    assert again.is_up
    assert reaches(again, "client", again.topology.port("host1").ip)


def test_a_lab_that_lost_a_program_is_rebuilt(lab: Lab) -> None:
    lab.up(programs=False)
    process = lab.start(lab.topology.node("client"), SLEEPER)
    assert lab.is_up and Lab(ananta(), lab.name).is_up
    processes.kill(process, signal.SIGKILL)
    processes.end([process])
    assert not Lab(ananta(), lab.name).is_up
    assert lab.up(programs=False)


def test_a_program_that_cannot_start_takes_the_lab_down_and_says_why(lab: Lab) -> None:
    broken = Program("broken", "lbmux.cli.main", ("mux", "-c", "{config}", "-i", "eth9"))
    client = lab.topology.node("client")
    lab.topology = type(lab.topology)(
        lab.topology.name, (type(client)("client", "client", programs=(broken,)),), (), lab.topology.config
    )
    with pytest.raises(LabError, match=r"(?s)client: broken ended with 1:.*eth9: not found"):
        lab.up()
    assert not namespaces.exists(lab.namespace("client"))
    assert not lab.directory.exists()


def test_a_lab_from_a_file_is_used_and_taken_down_by_its_name_alone(lab: Lab, tmp_path: Path) -> None:
    left, right = Port("left", "eth0", "10.9.9.1/24"), Port("right", "eth0", "10.9.9.2/24")
    pair = Topology("pair", (Node("left", "host"), Node("right", "host")), (Link(left, right),), ananta().config)
    path = tmp_path / "pair.yaml"
    path.write_text(yaml.safe_dump(topology_file.plain(pair)))
    up = json.loads(lbmux("lab", "up", str(path), "--name", lab.name, "--json").stdout)
    assert (up["built"], up["topology"]) == (True, "pair")
    ran = lbmux("lab", "exec", "--name", lab.name, "right", "ip", "-o", "-4", "address", "show", "eth0")
    assert ran.returncode == 0 and "10.9.9.2/24" in ran.stdout
    assert lbmux("lab", "status", "--name", lab.name).returncode == 0
    assert lbmux("lab", "down", "--name", lab.name).returncode == 0
    assert own_names(lab) == set()


def test_a_running_lab_of_another_driver_or_topology_is_refused(lab: Lab) -> None:
    lab.up(programs=False)
    for other in (Lab(lab.topology, lab.name, "packet"), Lab(replace(lab.topology, name="other"), lab.name)):
        with pytest.raises(LabError, match="is up with another topology or driver"):
            other.up(programs=False)
    assert not Lab(ananta(), lab.name).up(programs=False)


def test_a_lab_of_another_topology_that_broke_is_removed_whole(lab: Lab) -> None:
    lab.up(programs=False)
    namespaces.remove(lab.namespace("mux2"))
    lone = Lab(Topology("lone", (Node("client", "client"),), (), ananta().config), lab.name)
    assert lone.up()
    assert own_names(lab) == {lab.namespace("client")}


def test_an_unknown_topology_is_wrong_usage() -> None:
    ran = lbmux("lab", "up", "moebius")
    assert ran.returncode == 2
    assert ", ".join(TOPOLOGIES) in ran.stderr


@pytest.mark.parametrize("name", ["", ".", "..", "../../etc", "/etc", "a/b", "-a", "a b", "a" * 65])
def test_a_name_that_leads_out_of_the_directory_is_refused(name: str) -> None:
    with pytest.raises(LabError, match="is not a valid lab name"):
        Lab(ananta(), name)


def test_down_touches_no_directory_but_the_labs(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    ran = lbmux("lab", "down", "--name", str(tmp_path))
    assert ran.returncode == 1 and "is not a valid lab name" in ran.stderr
    assert (tmp_path / "precious").exists()
