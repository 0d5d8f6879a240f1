"""Commands that ask nodes through the pool's manager: which nodes, merged answers, errors, explain and the doctor."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lbmux.cli.main import run
from tests.linux.inside import CONFIG, client
from tests.manager.running import Running, running_manager, wait_for
from tests.tools.served import Served
from tests.tools.test_explain_agent import AgentHost

Out = pytest.CaptureFixture[str]
FLOW = "198.51.100.7:3000 > 192.0.2.1:80/tcp"
FIRST = 1
"""The revision that is applied."""


class Pool:
    """Two muxes and one agent that a manager relays to; ``mux2`` has a flow."""

    def __init__(self, manager: Running, muxes: dict[str, Served], out: Out) -> None:
        self.manager, self.muxes, self._out, self._access = manager, muxes, out, manager.options()

    def said(self) -> str:
        return self._out.readouterr().out

    def fails(self, *words: str) -> str:
        assert run([*words, *self._access]) == 1
        return self._out.readouterr().err

    def table(self, *words: str) -> str:
        assert run([*words, *self._access]) == 0, self._out.readouterr().err
        return self._out.readouterr().out

    def json(self, *words: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.table(*words, "-j").splitlines()]


@pytest.fixture
def pool(tmp_path: Path, capsys: Out) -> Iterator[Pool]:
    muxes = {name: Served(tmp_path / f"{name}.sock") for name in ("mux1", "mux2")}
    host = AgentHost(tmp_path / "host1.sock")
    with running_manager(tmp_path / "manager") as manager, contextlib.ExitStack() as stack:
        for name, mux in muxes.items():
            stack.enter_context(manager.joined(name, "mux", mux.answers))
        stack.enter_context(manager.joined("host1", "agent", host.answers))
        muxes["mux2"].send(client(3000))
        started = Pool(manager, muxes, capsys)
        file = tmp_path / "services.yaml"
        file.write_text(yaml.safe_dump(CONFIG))
        started.table("apply", str(file))
        reports = manager.manager.reports
        wait_for(lambda: all(one.in_force == FIRST for one in reports.values()))
        yield started
    for served in (*muxes.values(), host):
        served.close()


def test_answers_of_all_muxes_are_merged(pool: Pool) -> None:
    table = pool.table("show", "services", "--service", "web").splitlines()
    assert [line.split()[:2] for line in table if " web " in line] == [["mux1", "web"], ["mux2", "web"]]
    listed = pool.json("show", "services")
    assert [(one["node"], len(one["services"])) for one in listed] == [("mux1", 2), ("mux2", 2)]
    assert [(one["node"], one["flows"]) for one in pool.json("show", "flows", "--count")] == [("mux1", 0), ("mux2", 1)]
    (flow,) = pool.json("show", "flows")
    assert (flow["node"], flow["source_port"]) == ("mux2", 3000)
    assert "mux2" in pool.table("show", "flows") and "mux1" not in pool.table("show", "flows")
    assert [one["program"] for one in pool.json("show", "runtime", "--node", "*")] == ["agent", "mux", "mux"]
    assert pool.table("show", "counters").count("mux") == 2
    assert [one["node"] for one in pool.json("show", "backends", "--node", "mux2")] == ["mux2"]


def test_nodes_are_listed_with_their_states(pool: Pool) -> None:
    nodes = {one["node"]: one for one in pool.json("show", "nodes")[0]["nodes"]}
    assert [(name, one["role"], one["in_force"]) for name, one in nodes.items()] == [
        ("host1", "agent", 1), ("mux1", "mux", 1), ("mux2", "mux", 1),
    ]  # fmt: skip
    assert all(one["manager"] == pool.manager.url and one["certificate_until"] > one["seen"] for one in nodes.values())
    assert "mux1" in pool.table("show", "muxes") and "host1" not in pool.table("show", "muxes")
    assert "host1" in pool.table("show", "agents") and "host1" not in pool.table("show", "edges")


def test_nodes_that_cannot_be_meant(pool: Pool) -> None:
    assert "no node 'x*' is connected to the manager; `lbmux show nodes` lists them" in pool.fails(
        "show", "services", "--node", "x*"
    )
    assert "name one node with --node: mux1, mux2" in pool.fails("trace")


def test_a_socket_of_this_machine_comes_first(pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    socket = str(tmp_path / "mux1.sock")
    assert "node" not in pool.json("show", "runtime", "--control", socket)[0]  # both on the command line
    monkeypatch.setenv("LBMUX_CONTROL", socket)
    assert pool.json("show", "runtime")[0]["node"] == "mux1"  # the option takes precedence over the variable


def test_top_adds_up_all_muxes(pool: Pool) -> None:
    (reading,) = pool.json("top", "--once", "--interval", "0.1")
    assert [one["service"] for one in reading["services"]] == ["web", "dns"] and not reading["unknown"]


def test_a_packet_is_explained_at_every_mux_and_at_the_agent(pool: Pool) -> None:
    (explanation,) = pool.json("explain", FLOW)
    steps = {one["step"]: one for one in explanation["steps"]}
    backend = explanation["backend"]
    assert steps["muxes"]["muxes"] == {"mux1": backend, "mux2": backend}
    assert steps["muxes"]["found"] == f"mux1 and mux2: {backend} (steps of mux2, which has the flow)"
    agent = steps["agent"]
    if backend == "h1":
        assert agent["agent"] == "host1" and "10.1.1.2:8080" in steps["agent endpoint"]["found"]
    else:
        assert agent["found"] == "no agent of 10.1.2.2 is connected to the manager"
    assert [*steps][-1] == "verdict"


def test_the_doctor_checks_the_whole_pool(pool: Pool) -> None:
    (report,) = pool.json("doctor")
    assert {(one["check"], one["state"]) for one in report["findings"]} == {
        (check, "ok") for check in ("manager", "nodes", "revision", "certificate", "tables")
    }  # fmt: skip
    pool.muxes["mux1"].reload({**CONFIG, "services": CONFIG["services"][:1]})
    with pool.manager.joined("mux3", "mux", pool.muxes["mux2"].answers):
        pass
    assert run(["doctor", "-q", "-j", *pool.manager.options()]) == 1
    faults = json.loads(pool.said())["findings"]
    assert [one["seen"] for one in faults] == [
        "mux mux3 is not connected", "mux1 and mux2 have different tables for dns (192.0.2.2 udp 53)",
    ]  # fmt: skip
