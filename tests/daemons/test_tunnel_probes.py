"""Probes through the tunnel: faults of servers, agents and paths that they find, and the backends that they reach."""

import contextlib
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lbmux.config.models import Config
from lbmux.daemons.probe_tables import ProbeTables
from lbmux.lab.lab import Lab
from lbmux.linux.probe_routes import PRIORITY
from tests.api.asking import ask
from tests.daemons.running_daemons import Daemon, running
from tests.daemons.slow_lab import DIPS, HOSTS, PORT, SERVER, VIPS, balanced, configuration, served, to_one_mux

pytestmark = pytest.mark.root
PROBES = {"through": "tunnel", "interval_s": 0.2, "timeout_s": 0.15}
KINDS = {"tcp": {"kind": "http", "body": "well"}, "udp": {"kind": "udp", "expect": "well"}}


def service(family: int = 4, protocol: str = "tcp", **more: Any) -> dict[str, Any]:
    backends = [{"name": f"h{n}", "dip": DIPS[family].format(n), "port": SERVER[protocol]} for n in HOSTS]
    named = {"name": "web", "vip": VIPS[family], "protocol": protocol, "port": PORT[protocol], "backends": backends}
    return named | {"health": PROBES | KINDS[protocol]} | more


def page(sock: socket.socket, _: int) -> None:
    while True:
        connection, _ = sock.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nall is well")


def answer(sock: socket.socket, _: int) -> None:
    while (peer := sock.recvfrom(4096)[1]) is not None:  # as after shutdown
        sock.sendto(b"all is well", peer)


SERVE: dict[str, Callable[[socket.socket, int], None]] = {"tcp": page, "udp": answer}


def lines(mux: Daemon) -> dict[str, dict[str, Any]]:
    return {line["backend"]: line for line in ask(mux.control, "health")["health"]}


def wait_for(mux: Daemon, *expected: str) -> dict[str, dict[str, Any]]:
    """Wait until probes have given the backends these states."""
    deadline = time.monotonic() + 15
    while True:
        states = lines(mux)
        probed = all(line["reason"] != "not probed yet" for line in states.values())
        if probed and tuple(states[f"h{n}"]["state"] for n in HOSTS) == expected:
            return states
        assert time.monotonic() < deadline, f"{states}\n{mux.log}"
        time.sleep(0.02)


@contextlib.contextmanager
def probed(lab: Lab, options: tuple[str, ...] = (), **more: Any) -> Iterator[Daemon]:
    """A mux with agents and servers on both hosts."""
    family, protocol = more.get("family", 4), more.get("protocol", "tcp")
    with (
        served(lab, family, protocol, SERVE[protocol]),
        balanced(lab, options=options, agent_options=options, services=[service(**more)]) as mux,
    ):
        yield mux


@pytest.mark.parametrize("driver", ["packet", "xdp"])
@pytest.mark.parametrize(("family", "protocol"), [(4, "tcp"), (6, "tcp"), (4, "udp"), (6, "udp")])
def test_whole_backends_are_up(lab: Lab, driver: str, family: int, protocol: str) -> None:
    drivers = {"packet": ("--driver", "packet"), "xdp": ("--driver", "xdp")}
    agent = {"packet": ("--driver", "tun"), "xdp": ("--driver", "xdp")}
    with (
        served(lab, family, protocol, SERVE[protocol]),
        balanced(
            lab, options=drivers[driver], agent_options=agent[driver], services=[service(family, protocol)]
        ) as mux,
    ):
        states = wait_for(mux, "up", "up")
        assert all(line["reason"].endswith(", through the tunnel") for line in states.values())


@pytest.mark.parametrize("tunnel", ["gue1", "gre", "geneve"])
def test_probes_pass_through_any_encapsulation(lab: Lab, tunnel: str) -> None:
    with probed(lab, tunnel=tunnel) as mux:
        wait_for(mux, "up", "up")


def test_a_host_without_an_agent_is_down_though_its_server_answers(lab: Lab) -> None:
    lab.write_config({"muxes": ["10.0.1.2"], "flows": {"limit": 4096}, "services": [service()]})
    to_one_mux(lab)
    with (
        served(lab, 4, "tcp", page),
        running(lab, "mux1", "mux") as mux,
        running(lab, "host1", "agent") as agent,
        running(lab, "host2", "agent"),
    ):
        wait_for(mux, "up", "up")
        agent.tell(signal.SIGKILL)
        # The host's kernel reports the unknown tunnel, within its rate limit; the mux turns that into an error.
        reason = wait_for(mux, "down", "up")["h1"]["reason"]
        assert "No route to host" in reason or "no answer within" in reason
        with running(lab, "host1", "agent"):
            wait_for(mux, "up", "up")


def test_a_dead_server_is_down_and_the_others_probes_do_not_reach_another(lab: Lab) -> None:
    with balanced(lab, services=[service()]) as mux:
        with served(lab, 4, "tcp", page, hosts=(2,)):
            states = wait_for(mux, "down", "up")
            assert "refused" in states["h1"]["reason"].lower()
            with served(lab, 4, "tcp", page, hosts=(1,)):
                wait_for(mux, "up", "up")
        wait_for(mux, "down", "down")


def test_a_reload_brings_probes_through_the_tunnel_and_takes_them_away(lab: Lab) -> None:
    with served(lab, 4, "tcp", page), balanced(lab, services=[service(health=None)]) as mux:
        for health in (PROBES | KINDS["tcp"], None, PROBES | KINDS["tcp"]):
            lab.write_config(configuration(services=[service(health=health)]))
            ask(mux.control, "reload")
            if health:
                wait_for(mux, "up", "up")
            else:
                assert not lines(mux) or all(line["state"] == "up" for line in lines(mux).values())


def rules(lab: Lab) -> list[dict[str, Any]]:
    said = lab.run("mux1", ["ip", "-j", "rule"], check=True, timeout=10, capture_output=True).stdout
    return [rule for rule in json.loads(said) if rule["priority"] == PRIORITY]


def test_leftovers_of_a_killed_mux_are_taken_over_and_removed(lab: Lab) -> None:
    with probed(lab) as mux:
        wait_for(mux, "up", "up")
        mux.tell(signal.SIGKILL)
        mux.process.wait(5)
    assert len(rules(lab)) == 1
    with probed(lab) as mux:
        wait_for(mux, "up", "up")
        assert len(rules(lab)) == 1
    assert not rules(lab)


def test_an_unchanged_service_has_the_same_rows_in_the_tables_of_probes() -> None:
    services = [service(), service(name="other", port=81)]
    config, tables = Config.model_validate({"services": services}), ProbeTables(())
    web, other = tables.bare(config.services)
    changed = config.services[1].model_copy(update={"port": 82})
    again, new = tables.bare((config.services[0], changed))
    assert again is web and (other.port, new.port) == (81, 82)
