from pathlib import Path
from typing import Any

import pytest

from lbmux.errors import ConfigError
from lbmux.tools.import_config.imported import Imported, as_yaml


def service(**more: Any) -> dict[str, Any]:
    backends = [{"dip": "10.0.0.1"}, {"dip": "10.0.0.2"}]
    return {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "backends": backends} | more


def imported(*services: dict[str, Any]) -> Imported:
    outcome = Imported()
    for line, one in enumerate(services, 1):
        outcome.add(line, one)
    return outcome


@pytest.mark.parametrize(
    ("more", "left"),
    [
        ({"backends": [{"dip": "10.0.0.1"}, {"dip": "::1"}]}, "web.backends.1.dip"),
        ({"health": {"kind": "smtp"}}, "web.health.kind"),
        ({"protocol": "sctp"}, "web.protocol"),
    ],
)
def test_what_lbmux_would_refuse_is_left_out(more: dict[str, Any], left: str) -> None:
    outcome = imported(service(**more))
    assert [problem.field for problem in outcome.left] == [left]
    assert len(outcome.services) == (left != "web.protocol")


def test_services_that_do_not_go_together() -> None:
    outcome = imported(service(), service(name="again"))
    outcome.finish(Path("f"))
    assert [one["name"] for one in outcome.services] == ["web"]
    assert outcome.left[0].line == 2 and "VIP, protocol and port" in outcome.left[0].message


def test_no_service() -> None:
    with pytest.raises(ConfigError, match="has no service"):
        imported(service(protocol="sctp")).finish(Path("f"))


def test_repeated_remarks_are_one_line() -> None:
    outcome = imported(service(health={"kind": "smtp"}), service(name="dns", port=53))
    outcome.left += outcome.left * 2
    assert "kind: should be" in as_yaml(outcome, Path("f"))
    assert as_yaml(outcome, Path("f")).count("#   f:1: web.health.kind") == 1
    assert "(and 2 more lines)" in as_yaml(outcome, Path("f"))
