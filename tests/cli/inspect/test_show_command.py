"""`lbmux show` and `lbmux explain` as people run them: on a socket with set answers, and on a live lab."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lbmux.cli import main
from lbmux.lab.lab import Lab
from lbmux.lab.systems.built_in import TOPOLOGIES
from tests.labs import built

REQUESTS = 24
"""Enough for the router to give each of two muxes some."""


@pytest.fixture(scope="module", params=["xdp", "packet"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The lab, after some requests by the client."""
    with built(TOPOLOGIES["ananta"](), f"show-{request.param}-{os.getpid()}", request.param) as lab:
        assert shutil.which("curl")
        for _ in range(REQUESTS):
            done = lab.run("client", ["curl", "-s", "-m", "5", "-o", "/dev/null", "http://192.0.2.1/"])
            assert done.returncode == 0
        yield lab


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main.run(arguments) == 0
    return capsys.readouterr().out


def socket_of(lab: Lab, node: str) -> Path:
    return lab.directory / f"{node}.sock"


@pytest.mark.root
def test_live_mux_and_agent(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    def shown(node: str, *what: str) -> Any:
        return json.loads(said(capsys, "show", *what, "-j", "--control", str(socket_of(lab, node))))

    muxes = ["mux1", "mux2"]

    def digests(mux: str) -> dict[str, str]:
        return {line["service"]: line["digest"] for line in shown(mux, "services")["services"]}

    deadline = time.monotonic() + 10  # a mux that started before an agent was ready leaves its host out at first
    while digests("mux1") != digests("mux2") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert digests("mux1") == digests("mux2") and digests("mux1")["web"]
    new = [sum(line["new_flows"] for line in shown(mux, "backends")["backends"]) for mux in muxes]
    assert sum(new) >= REQUESTS  # a flow whose packets arrive on another CPU is new there as well
    runtime = shown("mux1", "runtime")
    assert (runtime["version"], runtime["program"], runtime["driver"]) == (1, "mux", lab.driver)
    assert bool(runtime["instructions"].get("mux_xdp")) == bool(runtime["modes"]) == (lab.driver == "xdp")
    assert (runtime["interface"], runtime["config"]) == ("eth0", str(lab.config))
    counters = [shown(mux, "counters") for mux in muxes]
    forwarded = [line["packets"] for each in counters for line in each["verdicts"] if line["verdict"] == "forwarded"]
    packets = sum(line["packets"] for mux in muxes for line in shown(mux, "backends")["backends"])
    assert sum(forwarded) == packets > 4 * REQUESTS
    assert {line["interface"] for line in shown("mux1", "neighbours")["neighbours"]} == {"eth0"}
    hosts = [shown(host, "counters")["verdicts"] for host in ("host1", "host2", "host3")]
    for verdict in ("delivered", "replied"):
        assert sum(line["packets"] for host in hosts for line in host if line["verdict"] == verdict) >= 2 * REQUESTS
    assert shown("host1", "runtime")["program"] == "agent"


@pytest.mark.root
def test_live_flows_are_listed_counted_and_explained(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    seen = 0
    for mux in ("mux1", "mux2"):
        control = ("--control", str(socket_of(lab, mux)))
        flows = [json.loads(line) for line in said(capsys, "show", "flows", "-j", *control, "tcp").splitlines()]
        for flow in flows[:3]:
            text = f"198.51.100.2:{flow['source_port']} > 192.0.2.1:80/tcp"
            explained = json.loads(said(capsys, "explain", "-j", *control, text))
            assert (explained["verdict"], explained["service"]) == ("forwarded", "web")
            entries = next(step["entries"] for step in explained["steps"] if step["step"] == "flow")
            assert explained["backend"] == flow["backend"] or not any(entry["alive"] for entry in entries)
            seen += any(entry["alive"] for entry in entries)
        count = json.loads(said(capsys, "show", "flows", "--count", "-j", *control, "service", "web"))
        assert count["flows"] <= len(flows)
    assert seen


@pytest.mark.root
def test_flows_of_backends_that_a_new_file_lacks_are_counted(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, control = tmp_path / "new.yaml", ("--control", str(socket_of(lab, "mux1")))
    config = copy.deepcopy(lab.config_in_force)
    backends = json.loads(said(capsys, "show", "backends", "-j", *control))["backends"]
    busiest = max(backends, key=lambda line: line["live_flows"])
    for service in config["services"]:
        if service["name"] == busiest["service"]:
            service["backends"] = [one for one in service["backends"] if one["name"] != busiest["backend"]]
    new.write_text(yaml.safe_dump(config))
    changes = json.loads(said(capsys, "config", "diff", str(new), "-c", str(lab.config), *control, "-j"))["live_flows"]
    assert 0 < changes["remain"] <= changes["all"], "they stay as long as they are there"
    words = said(capsys, "config", "diff", str(new), "-c", str(lab.config), *control).splitlines()[-1]
    shape = r"\d+ of \d+ live flows? moves? \(\d+\.\d%\); \d+ remains? with removed backends"
    assert re.fullmatch(shape, words), "one may have gone meanwhile"


@pytest.mark.root
def test_tables_for_people(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    control = ("--control", str(socket_of(lab, "mux1")))
    for what, word in [("services", "192.0.2.1"), ("backends", "10.1.3.2"), ("flows", "destination"),
                       ("counters", "forwarded"), ("neighbours", "10.1.1.2"), ("runtime", "memory_bytes")]:  # fmt: skip
        assert word in said(capsys, "show", what, *control)
    lines = said(capsys, "show", "services", "--ipvs", *control).splitlines()
    assert lines[1:4:2] == ["Prot LocalAddress:Port Scheduler Flags", "TCP  192.0.2.1:80 mh"]
    assert lines[4].split()[:4] == ["->", "10.1.1.2:8080", "Tunnel", "1"]
    health = json.loads(said(capsys, "show", "health", "-j", *control))
    assert (health["version"], health["program"]) == (1, "mux")
    assert {line["tunnel"] for line in health["health"]} == {"ipip"}
    for words in (["show", "bgp"], ["withdraw"], ["announce", "-j"]):
        assert main.run([*words, *control]) == 1
        out, err = capsys.readouterr()
        assert "this mux does not use BGP" in err
        assert not out or "this mux does not use BGP" in json.loads(out)["error"]
        assert bool(out) == ("-j" in words)
    assert main.run(["show", "bgp", "--control", str(socket_of(lab, "host1"))]) == 1
    assert "use --control with the socket of a mux" in capsys.readouterr().err


@pytest.mark.root
def test_the_last_seconds_have_traffic_and_the_log(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """The requests before were counted by both muxes, which have points of whole seconds; a mux logs its start."""

    def history(node: str) -> Any:
        return json.loads(
            said(capsys, "show", "history", "--seconds", "900", "-j", "--control", str(socket_of(lab, node)))
        )

    def new_flows() -> float:
        return sum(point["new_flows"] for answer in map(history, ("mux1", "mux2")) for point in answer["points"])

    deadline = time.monotonic() + 10
    while new_flows() < REQUESTS and time.monotonic() < deadline:
        time.sleep(0.1)
    assert new_flows() >= REQUESTS
    answers = [history("mux1"), history("mux2")]
    assert all(any("mux 10.0." in event["text"] for event in answer["events"]) for answer in answers)
    shown = said(capsys, "show", "history", "--seconds", "900", "--control", str(socket_of(lab, "mux1")))
    assert shown.split()[:4] == ["time", "packets/s", "Mbit/s", "new"]
    assert re.search(r"^\d\d:\d\d:\d\d info: mux 10\.0\.1\.2", shown, re.MULTILINE)
    agent = history("host1")
    assert sum(point["packets"] for point in agent["points"]) > 0
    assert all(point["new_flows"] is None for point in agent["points"]), "an agent does not count new flows"


@pytest.mark.root
def test_top_talkers_are_vips_with_their_rates(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("show", "top-talkers", "--seconds", "0.2", "--control", str(socket_of(lab, "mux1")))
    talkers = json.loads(said(capsys, *words, "-j"))["vips"]
    assert {one["vip"] for one in talkers} == {"192.0.2.1", "2001:db8:192::1"}
    assert all(one["packets"] is not None for one in talkers)
    assert len(json.loads(said(capsys, *words, "-j", "--limit", "1"))["vips"]) == 1
    assert said(capsys, *words).split()[:3] == ["VIP", "services", "packets/s"]


@pytest.mark.root
def test_an_invalid_filter_is_reported_with_its_position(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["show", "flows", "--control", str(socket_of(lab, "mux1")), "port http"]) == 1
    assert "'http' is not a number" in capsys.readouterr().err


@pytest.mark.root
def test_explain_asks_muxes_only(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    control = str(socket_of(lab, "host1"))
    assert main.run(["explain", "--control", control, "198.51.100.2:1 > 192.0.2.1:80"]) == 1
    assert "give a mux's socket" in capsys.readouterr().err


def test_explain_of_a_configuration_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "services.yaml"
    service = "{name: web, vip: 192.0.2.1, protocol: tcp, port: 80, backends: [{dip: 10.0.0.1}]}"
    path.write_text(f"services:\n  - {service}\n")
    out = said(capsys, "explain", "-c", str(path), "198.51.100.7:4000 > 192.0.2.1:80/tcp")
    assert "10.0.0.1:80 by its slot" in out and "forwarded (send)" in out


def test_a_missing_daemon_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["show", "services"], ["show", "flows"], ["explain", "1.2.3.4:1 > 1.2.3.5:2"]):
        assert main.run([*command, "--control", str(tmp_path / "none.sock")]) == 1
        assert "is the daemon running?" in capsys.readouterr().err


def test_help_of_show_imports_nothing_heavy() -> None:
    code = "import sys\nfrom lbmux.cli.main import run\nrun(['show', 'flows', '--help'])\nprint(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert not {"numpy", "numba", "rich"} & set(ran.stdout.split())
