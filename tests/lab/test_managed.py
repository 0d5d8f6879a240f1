"""Topologies with managers: which programs run where, and what they are given."""

import pytest

from lbmux.errors import LabError
from lbmux.lab import topology_file
from lbmux.lab.managed import with_managers
from lbmux.lab.topology import ananta


def test_muxes_and_agents_follow_all_managers() -> None:
    managed = with_managers(ananta(), 3)
    mux, agent = (
        next(one for one in managed.node(node).programs if one.name == name)
        for node, name in (("mux1", "mux"), ("host3", "agent"))
    )
    for program in (mux, agent):
        words = program.arguments
        assert program.module == "lbmux.lab.pool_member" and words[:2] == ("later", "{state}/pool/{node}")
        assert "-c" not in words and words.count("--manager") == 3 and "https://10.2.3.2:7443" in words
    assert agent.arguments[agent.arguments.index("--mode") + 1] == "local"
    assert topology_file.parse(topology_file.plain(managed)) == managed


def test_several_managers_run_beside_members_of_a_cluster() -> None:
    managed = with_managers(ananta(), 5)
    for number in range(1, 6):
        manager, etcd = managed.node(f"manager{number}").programs
        assert (manager.name, etcd.name, etcd.ready) == ("manager", f"etcd{number}", False)
        assert "etcd://127.0.0.1:2379" in manager.arguments
        assert etcd.arguments[-1].count("http://") == 5
    assert managed.node("manager1").programs[0].arguments[0] == "first"


def test_one_manager_has_no_cluster() -> None:
    (manager,) = with_managers(ananta(), 1).node("manager1").programs
    assert "{state}/pool/store" in manager.arguments


@pytest.mark.parametrize("count", [0, 2, 10])
def test_counts_that_make_no_majority(count: int) -> None:
    with pytest.raises(LabError, match=f"{count} managers: give 1, or 3 to 9"):
        with_managers(ananta(), count)


def test_agents_probe_the_backends() -> None:
    assert {service["health"]["by"] for service in with_managers(ananta(), 1).config["services"]} == {"agent"}
