"""A mux in the kernel whose process stops and starts loses no packet, moves no flow and leaves nothing behind."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from lbmux.datapath.tables import Sizes
from lbmux.errors import SetupError
from lbmux.frames.xdp import Kernel, detach
from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import inside, link_mac, set_neighbour, set_route
from lbmux.lab.topology import Link, Node, Port, Route, Topology
from lbmux.lab.topology_builder import PASS
from lbmux.linux.offloads import features, set_features
from lbmux.targets.bpf import pins, syscall
from lbmux.targets.bpf.syscall import Attach
from tests.api.asking import ask
from tests.daemons.running_daemons import READY, START_S, Daemon, configuration, running, service
from tests.daemons.stream import Stream
from tests.labs import built
from tests.lbmux_command import lbmux

pytestmark = pytest.mark.root
ALL_BUT_RAW = ("setpriv", "--bounding-set=-all,+net_raw,+dac_override", "--inh-caps=-all")
XDP = ("--driver", "xdp", "--xdp-mode", "native")
SENDER, MUX = "10.9.0.1", "10.9.0.2"


def topology() -> Topology:
    """A peer that sends and receives the packets of all backends, and a mux."""
    nodes = (Node("sender", "client"), Node("mux1", "mux", routes=(Route("10.1.0.0/16", (SENDER,)),)))
    ports = Port("sender", "eth0", f"{SENDER}/24", {"gro": False}, takes_xdp=True), Port("mux1", "eth0", f"{MUX}/24")
    return Topology("survival", nodes, (Link(*ports),), with_backends(2))


LIMIT = 65536
"""Many more flows than a stream has: with any keys each finds a free place in the flow table."""


def with_backends(count: int, limit: int = LIMIT) -> dict[str, Any]:
    backends = [{"name": f"b{n}", "dip": f"10.1.0.{n}"} for n in range(1, count + 1)]
    return configuration(service("web", 80, backends)) | {"flows": {"limit": limit}}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with built(topology(), f"v{os.getpid()}", programs=False) as lab:
        macs = {node: lab.inside(node, lambda: link_mac("eth0")) for node in ("sender", "mux1")}
        lab.inside("sender", lambda: set_neighbour("eth0", MUX, macs["mux1"]))
        yield lab


def ended(daemon: Daemon, number: signal.Signals) -> None:
    assert daemon.end(number) == (0 if number == signal.SIGTERM else -number)


def attached(lab: Lab) -> bool:
    def read() -> bool:
        with IPRoute() as ip:
            link = ip.get_links(ip.link_lookup(ifname="eth0")[0])[0]
        return bool(link.get_attr("IFLA_XDP").get_attr("IFLA_XDP_ATTACHED"))

    return lab.inside("mux1", read)


def directory(lab: Lab) -> Path:
    return lab.inside("mux1", lambda: pins.directory_of("eth0", "mux"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
@pytest.mark.parametrize("mode", ["native", "generic"])
def test_no_packet_is_lost_while_it_is_away_and_as_it_comes_back(lab: Lab, mode: str, number: signal.Signals) -> None:
    how = ("--driver", "xdp", "--xdp-mode", mode)
    with running(lab, "mux1", "mux", *how) as first, Stream(lab) as stream:
        stream.goes_on()
        ended(first, number)
        stream.goes_on()
        with running(lab, "mux1", "mux", *how) as second:
            assert "adopted the tables in force" in second.log
            assert ask(second.control, "runtime")["adopted"] is True
            stream.goes_on()
        stream.goes_on(0.2)
    stream.assert_nothing_is_lost()


@pytest.mark.parametrize("limit", [LIMIT, 2 * LIMIT], ids=["same-sizes", "other-sizes"])
def test_flows_keep_their_backends_though_the_file_has_changed(lab: Lab, limit: int) -> None:
    with running(lab, "mux1", "mux", *XDP) as first, Stream(lab) as stream:
        stream.goes_on()
        ended(first, signal.SIGTERM)
        lab.write_config(with_backends(6, limit))
        with running(lab, "mux1", "mux", *XDP) as second:
            said = r"adopted the tables in force: \d{3} flows" if limit == LIMIT else r"other size.*: \d{3} flows moved"
            assert re.search(said, second.log)
            stream.goes_on()
            with Stream(lab, first_port=50000) as other:
                other.goes_on(1.2)
    stream.assert_nothing_is_lost()
    other.assert_nothing_is_lost()
    ours = set[str]().union(*(backends for port, backends in stream.backends.items() if port < 50000))
    assert ours == {"10.1.0.1", "10.1.0.2"}
    new = set[str]().union(*(backends for port, backends in other.backends.items() if port >= 50000))
    assert new == {f"10.1.0.{n}" for n in range(1, 7)}


@pytest.mark.parametrize("limit", [LIMIT, 2 * LIMIT], ids=["same-sizes", "other-sizes"])
def test_a_next_hop_that_the_kernel_has_forgotten_meanwhile(lab: Lab, limit: int) -> None:
    """Only the kernel program uses the entry, so it may expire; ARP resolves it again."""

    def forget() -> None:
        with IPRoute() as ip:
            ip.neigh("del", dst=SENDER, ifindex=ip.link_lookup(ifname="eth0")[0])

    with running(lab, "mux1", "mux", *XDP) as first, Stream(lab) as stream:
        stream.goes_on()
        ended(first, signal.SIGTERM)
        lab.inside("mux1", forget)
        lab.write_config(with_backends(2, limit))
        with running(lab, "mux1", "mux", *XDP):
            stream.goes_on()
    stream.assert_nothing_is_lost()


def test_detach_on_exit_takes_it_off(lab: Lab) -> None:
    with running(lab, "mux1", "mux", *XDP, "--detach-on-exit"):
        assert attached(lab)
        assert directory(lab).exists()
    assert not attached(lab)
    assert not directory(lab).exists()


def test_detach_removes_programs_of_a_killed_daemon(lab: Lab) -> None:
    with running(lab, "mux1", "mux", *XDP) as mux:
        ended(mux, signal.SIGKILL)
    assert attached(lab)
    for said in ("eth0: detached\n", "eth0: no lbmux program is attached\n"):
        done = lbmux("detach", "-i", "eth0", namespace=lab.namespace("mux1"))
        assert (done.returncode, done.stdout) == (0, said)
        assert not attached(lab)
    assert not directory(lab).exists()


def test_frames_are_not_joined_while_it_runs_on_without_its_process(lab: Lab) -> None:
    def gro() -> bool:
        return lab.inside("mux1", lambda: features("eth0"))["gro"]

    lab.inside("mux1", lambda: set_features("eth0", {"gro": True}))
    with running(lab, "mux1", "mux", *XDP, "--detach-on-exit"):
        assert not gro()
    assert gro(), "put back"
    with running(lab, "mux1", "mux", *XDP), Stream(lab) as stream:
        assert not gro()
    assert not gro()
    with stream_through_restart(lab) as stream:
        assert not gro()
    stream.assert_nothing_is_lost()


@contextmanager
def stream_through_restart(lab: Lab) -> Iterator[Stream]:
    with running(lab, "mux1", "mux", *XDP) as first, Stream(lab) as stream:
        stream.goes_on()
        ended(first, signal.SIGTERM)
        yield stream
        with running(lab, "mux1", "mux", *XDP):
            stream.goes_on(0.7)


@pytest.mark.parametrize("driver", ["xdp", "auto", "packet"])
def test_a_second_mux_is_refused_and_does_not_harm_the_first(lab: Lab, driver: str) -> None:
    with running(lab, "mux1", "mux", *XDP), Stream(lab) as stream:
        more = ("--driver", driver, "--detach-on-exit", "--control", str(lab.directory / "other.sock"))
        second = Daemon(lab, "mux1", "mux", *more)
        assert second.process.wait(START_S) == 1
        hint = "stop that one first, or name another interface with -i"
        assert second.log == f"lbmux: interface eth0: another mux runs there ({hint})\n"
        assert attached(lab)
        stream.goes_on(1.1)
    stream.assert_nothing_is_lost()


def half_the_tables(pinned: Path) -> None:
    (generation,) = pinned.glob("[0-9]*")
    (generation / "flows").unlink()


def no_description(pinned: Path) -> None:
    (generation,) = pinned.glob("[0-9]*")
    (generation / "description").unlink()


def an_unfinished_generation(pinned: Path) -> None:
    (pinned / "7").mkdir()
    syscall.pin(pinned / "7" / "settings", syscall.create_array("settings", 100))


def names_that_are_none(pinned: Path) -> None:
    (pinned / "garbage" / "deeper").mkdir(parents=True)
    (pinned / "link-XDP-directory").mkdir()
    syscall.pin(pinned / "link-SOMEWHERE-native", syscall.create_array("x", 8))


@pytest.mark.parametrize("leave", [half_the_tables, no_description, an_unfinished_generation, names_that_are_none])
def test_a_start_copes_with_damaged_pins(lab: Lab, leave: Callable[[Path], None]) -> None:
    with running(lab, "mux1", "mux", *XDP) as first, Stream(lab) as stream:
        ended(first, signal.SIGKILL)
        leave(directory(lab))
        stream.goes_on(0.2)
        with running(lab, "mux1", "mux", *XDP):
            stream.goes_on(0.7)
    stream.assert_nothing_is_lost()
    with running(lab, "mux1", "mux", *XDP) as third:
        assert "adopted the tables in force" in third.log
    lab.inside("mux1", lambda: detach("eth0"))
    assert not attached(lab)
    assert not directory(lab).exists()


def test_a_pinned_link_of_a_removed_interface_is_not_reused(lab: Lab) -> None:
    with running(lab, "mux1", "mux", *XDP) as first:
        ended(first, signal.SIGKILL)

    def replace() -> None:
        with IPRoute() as ip:
            ip.link("del", index=ip.link_lookup(ifname="eth0")[0])

    lab.inside("mux1", replace)
    assert directory(lab).exists()
    kept = directory(lab)
    lab.inside("sender", lambda: connect(lab.namespace("mux1")))
    assert directory(lab) == kept
    assert not attached(lab)
    macs = lab.inside("mux1", lambda: link_mac("eth0"))
    lab.inside("sender", lambda: set_neighbour("eth0", MUX, macs))
    with running(lab, "mux1", "mux", *XDP), Stream(lab) as stream:
        assert attached(lab)
        stream.goes_on(1.1)
    stream.assert_nothing_is_lost()


def connect(mux_namespace: str) -> None:
    """Create the link again, under the same names."""
    with IPRoute() as ip:
        ip.link("add", ifname="eth0", kind="veth", peer={"ifname": "eth0", "net_ns_fd": mux_namespace})
    configure(f"{SENDER}/24")
    inside(mux_namespace, lambda: configure(f"{MUX}/24"))
    inside(mux_namespace, lambda: set_route(Route("10.1.0.0/16", (SENDER,))))


def configure(address: str) -> None:
    with IPRoute() as ip:
        index = ip.link_lookup(ifname="eth0")[0]
        ip.addr("add", index=index, address=address.split("/")[0], prefixlen=24)
        ip.link("set", index=index, state="up")
        if address.startswith(SENDER):
            program = syscall.load_program(Attach.XDP, PASS, "pass").descriptor
            ip.link("set", index=index, xdp_fd=program)
            os.close(program)


def test_a_start_in_user_space_detaches_leftover_programs(lab: Lab) -> None:
    with running(lab, "mux1", "mux", *XDP) as first:
        ended(first, signal.SIGKILL)
    lab.write_config(configuration(service("web", 80, [{"name": "b9", "dip": "10.1.0.9"}])))
    with running(lab, "mux1", "mux", "--driver", "packet") as mux, Stream(lab) as stream:
        assert not attached(lab)
        assert "detached the programs that an earlier mux had left" in mux.log
        stream.goes_on(1.1)
    stream.assert_nothing_is_lost()
    assert set[str]().union(*stream.backends.values()) == {"10.1.0.9"}


def without_rights(lab: Lab, driver: str) -> Daemon:
    """A mux that may open packet sockets, and no more."""
    lab.inside("mux1", lambda: set_features("eth0", {"gro": False}))  # the mux lacks the right to do it
    mac = lab.inside("sender", lambda: link_mac("eth0"))
    lab.inside("mux1", lambda: set_neighbour("eth0", SENDER, mac))
    return Daemon(lab, "mux1", "mux", "--driver", driver, prefix=ALL_BUT_RAW)


def test_without_the_right_xdp_by_name_says_so(lab: Lab) -> None:
    mux = without_rights(lab, "xdp")
    assert mux.process.wait(START_S) == 1
    assert mux.log.startswith("lbmux: ")
    assert "CAP_BPF" in mux.log
    assert "Traceback" not in mux.log


def test_without_the_right_auto_forwards_in_user_space(lab: Lab) -> None:
    mux = without_rights(lab, "auto")
    try:
        mux.wait_for(READY["mux"], START_S)
        assert "XDP is not available on eth0; falling back to driver packet: " in mux.log
        assert ask(mux.control, "runtime")["driver"] == "packet"
        with Stream(lab) as stream:
            stream.goes_on(1.1)
        stream.assert_nothing_is_lost()
        assert mux.end() == 0
    finally:
        mux.process.kill()


def test_a_mux_and_an_agent_do_not_take_each_others_tables(lab: Lab) -> None:
    """A common pin directory would let them."""
    sizes = Sizes(buckets=64, workers=3)

    def take() -> None:
        mux = Kernel("eth0", sizes, "mux")
        mux.attach({Attach.XDP: "mux_xdp"})
        agent = Kernel("eth0", sizes, "agent")
        assert (agent.adopted, agent.previous) == (False, None)
        with pytest.raises(SetupError, match="another XDP program is attached"):
            agent.attach({Attach.XDP: "agent_xdp"})
        agent.detach()
        mux.close()
        again = Kernel("eth0", sizes, "mux")
        assert again.adopted
        again.close()

    lab.inside("mux1", take)
    assert attached(lab)
