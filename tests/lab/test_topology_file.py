"""Topologies in files: what is written is what is read, and every mistake is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lbmux.errors import LabError
from lbmux.lab import topology_file
from lbmux.lab.systems.built_in import TOPOLOGIES
from lbmux.lab.topology import Topology, ananta


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lab.yaml"


@pytest.fixture(params=TOPOLOGIES)
def topology(request: pytest.FixtureRequest) -> Topology:
    return TOPOLOGIES[request.param]()


def test_a_topology_survives_a_round_trip_through_yaml_and_json(topology: Topology, path: Path) -> None:
    data = topology_file.plain(topology)
    path.write_text(yaml.safe_dump(data))
    assert topology_file.load(path) == topology
    assert topology_file.parse(json.loads(json.dumps(data))) == topology


def test_numbers_of_settings_may_stand_without_quotes(path: Path) -> None:
    data = topology_file.plain(ananta())
    data["nodes"][1]["sysctls"]["net.ipv4.fib_multipath_hash_seed"] = 7
    path.write_text(yaml.safe_dump(data))
    assert topology_file.load(path).node("router").sysctls["net.ipv4.fib_multipath_hash_seed"] == "7"


def rename(data: dict[str, Any], name: str) -> None:
    data["nodes"][0]["name"] = name


MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "an unknown field": (lambda d: d["nodes"][0].update(colour="red"), "nodes.0.colour: "),
    "a missing field": (lambda d: d["nodes"][0].pop("role"), "nodes.0.role: "),
    "two nodes of a name": (lambda d: rename(d, "mux1"), "nodes: mux1: duplicate"),
    "a name that is a path": (lambda d: rename(d, "../client"), "nodes: '../client': use letters"),
    "a link to nowhere": (lambda d: d["nodes"].pop(0), "links: client: no such node"),
    "a long interface": (lambda d: d["links"][0]["a"].update(interface="i" * 16), "1 to 15 characters"),
    "an interface twice": (lambda d: d["links"][1]["a"].update(interface="to-client"), "to-client: duplicate"),
    "an unknown placeholder": (
        lambda d: d["nodes"][2]["programs"][0]["arguments"].append("{typo}"),
        "{typo}: unknown placeholder",
    ),
    "services that cannot be": (lambda d: d["config"]["services"][0].update(port=0), "config.services.0.port: "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_place(mistake: str, path: Path) -> None:
    make, said = MISTAKES[mistake]
    data = topology_file.plain(ananta())
    make(data)
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(LabError) as raised:
        topology_file.load(path)
    assert said in str(raised.value) and str(raised.value).startswith(f"{path}: ")


@pytest.mark.parametrize("text", ["", "[]", "{", "\0"])
def test_a_file_without_a_topology_is_reported_with_its_name(text: str, path: Path) -> None:
    path.write_text(text)
    with pytest.raises(LabError, match=str(path)):
        topology_file.load(path)


def test_a_file_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(LabError, match=f"{path}: No such file"):
        topology_file.load(path)
