"""Backends that are drained, disabled, added, weighed and removed by command."""

import pytest

from lbmux.lab.lab import Lab
from tests.api.asking import ask
from tests.daemons.running_daemons import running
from tests.daemons.slow_lab import DIPS, SERVER, balanced, configuration
from tests.daemons.web_lab import (
    DRIVERS,
    SHORT,
    agent,
    echo,
    hosts,
    in_kernel,
    line,
    rows,
    server,
    states,
    tell,
    to_host,
    wait,
    web,
)

pytestmark = pytest.mark.root


def test_drained_backend_keeps_its_connections_over_a_restart(lab: Lab) -> None:
    idle = {"idle": {"fin_s": 1, "untrusted_s": 1, "tcp_s": 4}}
    with server(lab, 1), server(lab, 2), balanced(lab, services=[web() | idle]) as mux:
        kept = to_host(lab, 1)
        done = tell(mux, "drain", "h1")
        assert (done.returncode, done.stdout) == (0, "web/h1: draining: by command\n"), done.stderr
        assert hosts(lab) == {2}
        kept.sendall(b"still here")
        assert kept.recv(100) == b"still here"
        assert "is drained" not in mux.log
        kept.close()
        mux.wait_for("backend h1 of service web is drained: no flow left", 15)
        assert mux.end() == 0
        with running(lab, "mux1", "mux") as again:
            assert states(again) == {"h1": "draining", "h2": "up"}
            assert hosts(lab) == {2}
            assert tell(again, "enable", "h1").returncode == 0
            assert hosts(lab) == {1, 2}


def test_drained_by_configuration_says_so(lab: Lab) -> None:
    both = web() | SHORT
    with server(lab, 1), server(lab, 2), balanced(lab, services=[both]) as mux:
        kept = to_host(lab, 1)
        assert not line(mux.control, "h1")["drained"]
        first, second = both["backends"]
        lab.write_config(configuration(services=[both | {"backends": [first | {"weight": 0}, second]}]))
        ask(mux.control, "reload")
        assert hosts(lab) == {2}
        echo(kept, 1.5)
        status = line(mux.control, "h1")
        assert (status["state"], status["reason"]) == ("draining", "weight 0 in the configuration")
        assert not status["drained"]
        kept.close()
        wait(lambda: bool(line(mux.control, "h1")["drained"]), mux)
        assert not line(mux.control, "h2")["drained"]


def test_disabled_backend_is_out_at_once(lab: Lab) -> None:
    with server(lab, 1), server(lab, 2), balanced(lab, services=[web()]) as mux:
        assert tell(mux, "disable", "h2", "--service", "web").returncode == 0
        assert rows(mux.control) == {"h1"} and hosts(lab) == {1}
        shown = tell(mux, "show", "health").stdout.splitlines()
        assert any(line.split()[:5] == ["web", "h2", "disabled", "by", "command"] for line in shown), shown
        assert tell(mux, "enable", "h2").returncode == 0
        assert hosts(lab) == {1, 2}


def test_unknown_backend(lab: Lab) -> None:
    with balanced(lab, services=[web()]) as mux:
        done = tell(mux, "drain", "h9")
        assert done.returncode == 1 and "no backend h9" in done.stderr


@DRIVERS
def test_backend_is_added_weighed_and_removed_by_command(lab: Lab, kernel: bool) -> None:
    both = web() | SHORT
    one = both | {"backends": both["backends"][:1]}
    with server(lab, 1), server(lab, 2), balanced(lab, services=[one], **in_kernel(kernel)) as mux:
        assert hosts(lab) == {1}
        where = ("--control", str(agent(lab, 2)))
        done = tell(mux, "add", "web", f"{DIPS[4].format(2)}:{SERVER['tcp']}", "--name", "h2", "--weight", "3", *where)
        at_agent, at_mux = done.stdout.splitlines()
        assert at_agent == f"{agent(lab, 2)}: web/h2: up: not probed; added by command", done.stderr
        assert at_mux.startswith(f"{mux.control}: web/h2: up: no health check; host 10.1.2.2 ")
        assert at_mux.endswith("; added by command")
        assert hosts(lab) == {1, 2}
        ask(mux.control, "reload")
        ask(agent(lab, 2), "reload")
        assert hosts(lab) == {1, 2}
        assert tell(mux, "weight", "h1", "0").stdout == "web/h1: draining: weight 0 by command\n"
        assert hosts(lab) == {2}
        assert mux.end() == 0
        with running(lab, "mux1", "mux", *in_kernel(kernel)["options"]) as again:
            assert hosts(lab) == {2}
            wait(lambda: bool(line(again.control, "h1")["drained"]), again)
            reason = "no health check; host 10.1.1.2 answers through the tunnel"
            assert tell(again, "weight", "h1").stdout == f"web/h1: up: {reason}\n"
            assert hosts(lab) == {1, 2}
            assert not line(again.control, "h1")["drained"]
            assert tell(again, "remove", "h2", *where).returncode == 0
            assert hosts(lab) == {1}
            wait(lambda: rows(again.control) == {"h1"} and not rows(agent(lab, 2)), again)
            assert states(again) == {"h1": "up"}


def test_a_refused_override_says_why_and_changes_nothing(lab: Lab) -> None:
    with balanced(lab, services=[web()]) as mux:
        refused = {
            ("add", "mail", "10.1.3.2"): "mail: there is no such service",
            ("add", "web", "10.1.3.2", "--name", "h1"): "another backend has the name h1",
            ("add", "web", "10.1.2.2:81"): "cannot share a host address",
            ("add", "web", "2001:db8::1"): "is IPv6, but the VIP is IPv4",
            ("add", "web", "10.1.3.2:99999"): "web: port: ",
            ("weight", "h9", "3"): "no backend h9",
        }
        for words, why in refused.items():
            done = tell(mux, *words)
            assert done.returncode == 1 and why in done.stderr, done
        done = tell(mux, "drain", "h1", "--control", str(agent(lab, 1)))
        assert done.returncode == 1 and "drain: is for muxes" in done.stderr
        assert done.stdout == f"{mux.control}: web/h1: draining: by command\n"  # reported nevertheless
        assert states(mux) == {"h1": "draining", "h2": "up"}
