"""Hosts, agents and servers that are not there, or are not to serve."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lbmux.lab.topology import VIP
from tests.api.asking import ask
from tests.lab.broken.broken import WEB, Broken, until

pytestmark = pytest.mark.root


def test_backend_down(either: Broken) -> None:
    up = "ip link set to-host2 up; ip address replace 2001:db8:1:2::1/64 dev to-host2"  # IPv6 addresses are lost
    with either.changed("router", "ip link set to-host2 down", up):
        assert either.doctor("mux1").says("backend", "web/h2 at 10.1.2.2: backend down: ")


def test_agent_not_running(either: Broken) -> None:
    with either.without("host1", "agent"):
        assert either.doctor("host1").says("daemon", "nothing listens there; is the daemon running?")
        assert either.command("host1", "detach", "-i", "eth0").returncode == 0  # or it keeps running, or holds replies
        report = either.doctor("mux1")
        assert report.says("backend", "web/h1 at 10.1.1.2: agent not running")
        assert report.says("backend", "web6/h1 at 2001:db8:1:1::2: agent not running")


FIREWALL = """nft -f - <<'END'
table inet stateful {
  chain input {
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept
  }
  chain output { type filter hook output priority 0; policy drop; ct state established,related accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept
  }
}
END"""


def test_a_stateful_firewall_on_the_mux_is_not_a_fault(either: Broken) -> None:
    """It knows neither the mux's packets to hosts nor the answers to them: frames pass it by."""
    with either.changed("mux1", FIREWALL, "nft delete table inet stateful"):
        report = either.doctor("mux1")
        assert report.faults == []
        assert "web/h1 at 10.1.1.2 answers through the tunnel" in {one.seen for one in report.findings}
        with either.without("host1", "server"):
            assert either.doctor("mux1").says("backend", "web/h1 at 10.1.1.2: port closed")


def test_a_host_that_the_mux_has_no_route_to(pool: Broken) -> None:
    def probed(config: dict[str, Any]) -> None:
        config["services"][0]["health"] = {"interval_s": 0.1, "timeout_s": 0.1, "fall": 2}

    without = pool.changed("mux1", "ip route add unreachable 10.1.1.2", "ip route del unreachable 10.1.1.2")
    with pool.config(probed, "mux1"), without:
        until(lambda: pool.doctor("mux1").says("health", "this mux has no route to 10.1.1.2"))
        report = pool.doctor("mux1")
        hints = [one.hint for one in report.faults if "web/h1" in one.seen]
        assert hints and all(hint.startswith("ip route add 10.1.1.2 via ROUTER") for hint in hints)


def test_services_of_udp(pool: Broken, tmp_path: Path) -> None:
    """The first host's server answers, the second has none, the third's says nothing, as it may."""
    path = tmp_path / "services.yaml"

    def with_datagrams(config: dict[str, Any]) -> None:
        backends = [{"name": f"h{n}", "dip": f"10.1.{n}.2", "port": 53} for n in (1, 2, 3)]
        config["services"].append({"name": "dns", "vip": VIP, "protocol": "udp", "port": 53, "backends": backends})
        path.write_text(json.dumps(config))

    def bound(address: str) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((address, 53))
        sock.settimeout(10)
        return sock

    with (
        pool.lab.inside("host1", lambda: bound("10.1.1.2")) as answering,
        pool.lab.inside("host3", lambda: bound(VIP)),
        pool.config(with_datagrams, "host1", "host2", "host3"),
        ThreadPoolExecutor(1) as threads,
    ):
        threads.submit(lambda: [answering.sendto(b"x", answering.recvfrom(2048)[1]) for _ in range(2)])
        report = pool.doctor("mux1", file=path)
        assert report.says("backend", "dns/h2 at 10.1.2.2: port closed")
        assert report.says(
            "backend", "dns/h3 at 10.1.3.2: no answer and no error to a datagram sent by IP in IP", "unchecked"
        )
        assert "dns/h1 at 10.1.1.2 answers through the tunnel" in {one.seen for one in report.findings}


def test_port_closed(pool: Broken) -> None:
    with pool.without("host1", "server"):
        assert pool.doctor("mux1").says("backend", "web/h1 at 10.1.1.2: port closed")


def test_no_backend_takes_new_flows(pool: Broken) -> None:
    def empty(config: dict[str, Any]) -> None:
        config["services"][0]["backends"] = []

    with pool.config(empty, "mux1"):
        assert (
            "add a backend in the file or with `lbmux add`; kept only for existing flows: h1, h2, h3"
            in pool.explain(WEB)
        )


def test_a_backend_that_was_taken_out_by_command(pool: Broken) -> None:
    ask(pool.socket("mux1"), "override", backend="h1", override="disable", service="web")
    try:
        report = pool.doctor("mux1")
        assert "h1 is disabled: by command" in pool.explain(WEB)
        assert report.says("health", "web/h1 is disabled: by command", "warning")
        assert ("in force", "ok") in {(one.check, one.state) for one in report.findings}
    finally:
        ask(pool.socket("mux1"), "override", backend="h1", override=None, service="web")


def test_a_backend_that_fails_its_probes(pool: Broken) -> None:
    def probed(config: dict[str, Any]) -> None:
        config["services"][0]["health"] = {"interval_s": 0.1, "timeout_s": 0.1, "fall": 2}

    with pool.config(probed, "mux1"), pool.without("host1", "server"):
        until(lambda: pool.doctor("mux1").says("health", "web/h1 is down"))
        assert "h1 is down: " in pool.explain(WEB)
