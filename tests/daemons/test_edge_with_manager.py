"""Edges that balance and follow a manager: its file, and health that reaches them without a token."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lbmux.lab.lab import Lab
from tests.api.asking import ask
from tests.daemons.test_balancing_edge import HEALTH, HOSTS, answer, lab, pool, route, through
from tests.daemons.test_mux_with_manager import URL, Node
from tests.lab.routed import until

__all__ = ["lab"]
pytestmark = pytest.mark.root


class Edge(Node):
    """A host's node; the manager runs in that of mux1."""

    @property
    def control(self) -> Path:
        return self.directory / f"{self.name}.sock"

    @contextlib.contextmanager
    def edge(self) -> Iterator[None]:
        identity, join = str(self.directory / self.name), self.directory / f"{self.name}.join"
        join.write_text(self.run("manager", "join-token", self.name, *self.access))
        self.run("join", "--manager", URL, "--join-token-file", str(join), "--state", identity)
        speaker = ("--bgp-speaker", "bird", "--drain", "0", "--bgp-peer", f"10.1.{self.name[-1]}.1")
        words = [*speaker, "--balance", "--manager", URL, "--state", identity, "-i", "eth0", "--driver", "packet"]
        with self.running(re.compile("2 services\n"), "edge", *words, "--control", str(self.control)):
            yield

    def health(self) -> list[tuple[str, bool]]:
        """The states of all backends, and whether an agent reported them."""
        found = ask(self.control, "health")["health"]
        return [(one["state"], one["reason"].startswith("its agent: ")) for one in found]


def test_edges_follow_the_manager_and_hear_of_each_other(
    lab: Lab,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    manager = Node(lab, tmp_path, capsys)
    edges = [Edge(lab, tmp_path, capsys, name) for name in HOSTS]
    config = pool()
    for service in config["services"]:
        service["health"] = HEALTH | {"by": "agent"}
    (tmp_path / "services.yaml").write_text(yaml.safe_dump(config))
    with manager.manager(), contextlib.ExitStack() as stack:
        manager.run("apply", str(tmp_path / "services.yaml"), *manager.access)
        for edge in edges:
            stack.enter_context(edge.edge())
        for edge in edges:
            until(lambda: edge.health() == [("up", True)] * 4, 30, 0.05)  # noqa: B023 -- called within the turn
        with through(lab, 1) as servers:
            assert {*servers.values()} == {*HOSTS}
            route(lab, 2)
            assert {one: answer(one) for one in servers} == servers
        manager.wait_for(r"host1 +edge +1 ", "show", "nodes")
