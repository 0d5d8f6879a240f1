"""Whose sockets an agent can ask, and what became of replies without an entry."""

import pytest

from lbmux.config.models import Config
from lbmux.tools.doctor import flow_entries
from tests.tools.doctor.node_states import node


def config(dip: str) -> Config:
    backends = [{"dip": dip, "host": "10.1.0.1", "port": 80}, {"dip": "10.1.0.2", "port": 80}]
    service = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "backends": backends}
    return Config.model_validate({"services": [service]})


@pytest.mark.parametrize(("dip", "state"), [("10.1.0.1", "ok"), ("172.17.0.2", "warning")])
def test_a_dip_in_another_namespace_is_reported(dip: str, state: str) -> None:
    known = node("agent", runtime={"mode": "nat", "addresses": ["10.1.0.1"]}, config=config(dip))
    (finding,) = flow_entries.sockets(known)
    assert finding.state == state
    assert (dip in finding.seen) == (state == "warning")


def test_a_dip_whose_namespace_the_agent_enters_is_fine() -> None:
    runtime = {"mode": "nat", "addresses": ["10.1.0.1"], "sockets_elsewhere": ["172.17.0.2"]}
    (finding,) = flow_entries.sockets(node("agent", runtime=runtime, config=config("172.17.0.2")))
    assert finding.state == "ok"


def test_nothing_is_translated_in_mode_local() -> None:
    known = node("agent", runtime={"mode": "local", "addresses": ["10.1.0.1"]}, config=config("172.17.0.2"))
    assert [*flow_entries.sockets(known)] == []


@pytest.mark.parametrize(
    ("verdicts", "slowpath", "said"),
    [
        ({}, {}, []),
        ({}, None, []),
        ({"untracked": 3}, {}, ["3 datagrams left"]),
        ({}, {"reply_ambiguous": 2, "reply_unchecked": 1}, ["2 replies dropped", "1 reply without a flow entry left"]),
    ],
)
def test_replies_without_an_entry(verdicts: dict[str, int], slowpath: dict[str, int] | None, said: list[str]) -> None:
    known = node("agent", counters={"verdicts": verdicts, "slowpath": slowpath})
    values = [finding.seen for finding in flow_entries.replies(known)]
    assert len(values) == len(said) and all(text in seen for text, seen in zip(said, values, strict=True))
