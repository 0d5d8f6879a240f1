"""Muxes that announce their VIPs to a router that runs BIRD: real daemons, and the router's kernel looked at."""

import signal
import sys
from pathlib import Path

import pytest

from lbmux.bgp.session_log import NO_REASON
from lbmux.frames.xdp import detach
from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP, VIP6
from lbmux.tools.doctor import bgp_checks
from lbmux.tools.doctor.node_state import NodeState
from lbmux.tools.web.mux_status import poll
from lbmux.tools.web.pool_status import document
from tests.api.asking import ask
from tests.daemons.running_daemons import Daemon, running, service
from tests.lab.routed import NEEDS, PEER, SPEAKERS, WAY, announcing, routing, routing6, services, until, ways

pytestmark = NEEDS
PEER6, WAY6 = "2001:db8:0:1::1", "2001:db8:0:1::2"
WRONG_PASSWORD = {"bird": "the peer has another TCP MD5 password", "exabgp": NO_REASON}
"""The kernel counts segments with a wrong signature where BIRD listens; ExaBGP only connects, and is not answered."""


def rebuild(lab: Lab) -> None:
    """Cut the link between router and mux1, and make another one of the same names and addresses."""
    router = lab.namespace("router")
    for node, words in (
        ("mux1", "link del eth0"),
        ("mux1", f"link add eth0 type veth peer name to-mux1 netns {router}"),
        ("mux1", f"addr add {WAY['mux1']}/24 dev eth0"),
        ("mux1", "link set eth0 up"),
        ("router", f"addr add {PEER['mux1']}/24 dev to-mux1"),
        ("router", "link set to-mux1 up"),
        ("mux1", f"route add default via {PEER['mux1']}"),
    ):
        ran = lab.run(node, ["ip", *words.split()], capture_output=True, text=True)
        assert ran.returncode == 0, (words, ran.stderr)


@pytest.mark.parametrize("speaker", SPEAKERS)
def test_an_ipv6_vip_leads_to_the_muxs_own_ipv6_address(lab: Lab, speaker: str) -> None:
    """The IPv6 route comes over the same session: two muxes give two next hops, and a stopped mux gives none."""
    six = service("six", 80, [{"name": "h1", "dip": "2001:db8:1:1::2"}], vip=VIP6)
    lab.write_config(services(1) | {"services": [*services(1)["services"], six]})
    with routing(lab) as router, announcing(lab, "mux1", speaker):
        until(lambda: ways(router, "-6") == {VIP6: {"2001:db8:0:1::2"}})
        assert ways(router) == {VIP: {WAY["mux1"]}}
        with announcing(lab, "mux2", speaker):
            until(lambda: ways(router, "-6") == {VIP6: {"2001:db8:0:1::2", "2001:db8:0:2::2"}})
        until(lambda: ways(router, "-6") == {VIP6: {"2001:db8:0:1::2"}}, 2)


@pytest.mark.parametrize("speaker", SPEAKERS)
@pytest.mark.parametrize("peer", [f"{PEER6}", f"[{PEER6}]:64512"])
def test_a_session_over_an_ipv6_only_link(lab: Lab, speaker: str, peer: str) -> None:
    six = service("six", 80, [{"name": "h1", "dip": "2001:db8:1:1::2"}], vip=VIP6)
    lab.write_config(services(1) | {"muxes": [WAY6], "services": [six]})
    options = ("--bgp-peer", peer, "--bgp-speaker", speaker, "--drain", "0.1")
    with routing6(lab, "mux1", PEER6, WAY6) as router, running(lab, "mux1", "mux", *options) as mux:
        until(lambda: ways(router, "-6") == {VIP6: {WAY6}})
        (neighbour,) = ask(mux.control, "bgp")["neighbours"]
        assert (neighbour["address"], neighbour["state"], neighbour["prefixes"]) == (PEER6, "established", 1)
        mux.tell(signal.SIGKILL)
        until(lambda: not ways(router, "-6"), 2)
        mux.process.wait(2)


BREAKABLE = """
import sys
from pathlib import Path
from lbmux.daemons.packet_loop import PacketLoop
turn, flag = PacketLoop.turn, Path(sys.argv.pop(1))
def breakable(self):
    if flag.exists():
        raise RuntimeError("broken")
    return turn(self)
PacketLoop.turn = breakable
from lbmux.cli.main import main
main()
"""


def test_a_packet_loop_that_raises_is_withdrawn_and_comes_back(lab: Lab, tmp_path: Path) -> None:
    """The event loop runs, but packets are no longer forwarded."""
    flag, control = tmp_path / "broken", tmp_path / "mux.sock"
    options = ["mux", "-c", str(lab.config), "-i", "eth0", "--driver", "packet", "--control", str(control)]
    options += ["--bgp-peer", PEER["mux1"], "--bgp-speaker", "bird", "--drain", "0.1"]
    with routing(lab) as router, (tmp_path / "log").open("wb") as log:
        mux = lab.popen("mux1", [sys.executable, "-c", BREAKABLE, str(flag), *options], stdout=log, stderr=log)
        try:
            until(lambda: bool(ways(router)), 60)
            flag.touch()
            lab.run("client", ["ping", "-c", "1", "-W", "1", VIP], capture_output=True)
            until(lambda: not ways(router), 2)
            assert mux.poll() is None
            flag.unlink()
            until(lambda: bool(ways(router)))
        finally:
            mux.terminate()
            assert mux.wait(10) == 0


@pytest.mark.parametrize("speaker", SPEAKERS)
def test_a_password_must_be_the_routers(lab: Lab, speaker: str) -> None:
    right, wrong = lab.directory / "right", lab.directory / "wrong"
    right.write_text("secret\n")
    wrong.write_text("other\n")
    with (
        routing(lab, "--password", "secret") as router,
        announcing(lab, "mux2", speaker, "--bgp-password-file", str(right)),
    ):
        until(lambda: ways(router) == {VIP: {WAY["mux2"]}})
        with announcing(lab, "mux1", speaker, "--bgp-password-file", str(wrong)) as mux:
            mux.wait_for(f"): {WRONG_PASSWORD[speaker]}", 30)
            assert ask(mux.control, "bgp")["neighbours"][0]["reason"] == WRONG_PASSWORD[speaker]
            assert ways(router) == {VIP: {WAY["mux2"]}}


@pytest.mark.parametrize("speaker", SPEAKERS)
def test_a_wrong_as_is_reported_everywhere(lab: Lab, speaker: str) -> None:
    with routing(lab), announcing(lab, "mux1", speaker, "--bgp-as", "65009") as mux:

        def reason() -> str:
            return str(ask(mux.control, "bgp")["neighbours"][0]["reason"])

        until(lambda: "bad peer as" in reason().lower())
        mux.wait_for(f"BGP session with {PEER['mux1']} (AS 64512) is not established")
        assert "bad peer as" in mux.log.lower()
        known = NodeState("mux", mux.control)
        (finding,) = bgp_checks.sessions(known)
        assert finding.state == "fault" and "bad peer as" in finding.seen.lower()
        (session,) = document([poll("mux1", mux.control)], [])["sessions"]
        assert not session["up"] and "bad peer as" in session["reason"].lower()


@pytest.mark.parametrize("speaker", SPEAKERS)
def test_a_router_that_does_not_listen_is_reported_until_it_does(lab: Lab, speaker: str) -> None:
    with announcing(lab, "mux1", speaker) as mux:
        mux.wait_for("is not established", 15)
        until(lambda: "refused" in ask(mux.control, "bgp")["neighbours"][0]["reason"])
        with routing(lab):
            mux.wait_for(f"BGP session with {PEER['mux1']} (AS 64512) is established", 15)
            (neighbour,) = ask(mux.control, "bgp")["neighbours"]
            assert (neighbour["state"], neighbour["reason"]) == ("established", "")
            (finding,) = bgp_checks.sessions(NodeState("mux", mux.control))
            assert finding.state == "ok"


def test_a_stalled_mux_keeps_its_routes_for_a_time_while_the_kernel_forwards(lab: Lab) -> None:
    options = ("--driver", "xdp", "--detach-on-exit", "--bgp-stall", "2")
    with routing(lab) as router, announcing(lab, "mux1", "bird", *options) as mux:
        until(lambda: bool(ways(router)))
        mux.tell(signal.SIGSTOP)
        try:
            assert until(lambda: not ways(router), 10) > 1.5
        finally:
            mux.tell(signal.SIGCONT)
        until(lambda: bool(ways(router)))


DEAD = {"name": "s", "vip": VIP, "protocol": "tcp", "port": 80, "on_no_backend": "withdraw"}


def announced(mux: Daemon) -> tuple[list[str], list[str]]:
    """Return what a mux announces, and what of it as a last resort."""
    answer = ask(mux.control, "bgp")
    return answer["prefixes"], answer["last_resort"]


@pytest.mark.parametrize("speaker", SPEAKERS)
def test_a_mux_without_backends_is_a_last_resort_and_never_withdraws_for_that(lab: Lab, speaker: str) -> None:
    """If two muxes announce the VIP, the router uses the one with a backend; if there is one mux, it uses that."""
    lab.write_config(services(1) | {"services": [DEAD | {"backends": [{"name": "h1", "dip": "10.1.1.2"}]}]})
    with routing(lab) as router, announcing(lab, "mux1", speaker) as mux:
        until(lambda: ways(router) == {VIP: {WAY["mux1"]}})
        with announcing(lab, "mux2", speaker):
            until(lambda: ways(router) == {VIP: set(WAY.values())})
            ask(mux.control, "override", override="disable", backend="h1")
            until(lambda: ways(router) == {VIP: {WAY["mux2"]}})
            until(lambda: announced(mux) == ([f"{VIP}/32"], [f"{VIP}/32"]))
        until(lambda: ways(router) == {VIP: {WAY["mux1"]}})
        with announcing(lab, "mux2", speaker):
            until(lambda: ways(router) == {VIP: {WAY["mux2"]}})
            ask(mux.control, "override", override=None, backend="h1")
            until(lambda: ways(router) == {VIP: set(WAY.values())})
            assert ask(mux.control, "bgp")["last_resort"] == []


def test_an_interface_without_carrier_is_withdrawn_everywhere(lab: Lab) -> None:
    with routing(lab) as router, announcing(lab, "mux1", "exabgp") as mux:
        until(lambda: bool(ways(router)))
        router.set_link("to-mux1", "down")
        until(lambda: not ways(router), 5)
        until(lambda: ask(mux.control, "bgp")["prefixes"] == [], 2)
        router.set_link("to-mux1", "up")
        until(lambda: bool(ways(router)))


def test_a_recreated_interface_is_announced_by_again(lab: Lab) -> None:
    """The mux announces its VIPs again once the ring is bound to the new interface."""
    with routing(lab) as router, announcing(lab, "mux1", "bird") as mux:
        until(lambda: bool(ways(router)))
        rebuild(lab)
        until(lambda: "eth0 was recreated: opened again" in mux.log)
        until(lambda: bool(ways(router)))


def test_a_mux_that_insists_on_its_program_is_withdrawn_without_it(lab: Lab) -> None:
    with routing(lab) as router, announcing(lab, "mux1", "bird", "--driver", "xdp", "--detach-on-exit") as mux:
        until(lambda: bool(ways(router)))
        lab.inside("mux1", lambda: detach("eth0"))
        until(lambda: not ways(router), 2)
        assert "the program was detached from interface eth0" in mux.log


def test_a_speaker_that_is_not_installed_is_one_clear_line(lab: Lab, tmp_path: Path) -> None:
    code = "import sys; sys.modules['exabgp'] = None; from lbmux.cli.main import main; main()"
    options = ["mux", "-c", str(lab.config), "-i", "eth0", "--driver", "packet", "--bgp-peer", PEER["mux1"]]
    command = [sys.executable, "-c", code, *options, "--control", str(tmp_path / "mux.sock")]
    ran = lab.run("mux1", command, capture_output=True, text=True, timeout=30)
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [
        "lbmux: BGP speaker exabgp: not installed (pip install 'lbmux[bgp]', or --bgp-speaker bird)"
    ]
