from typing import Any

import pytest
from pydantic import ValidationError

from lbmux.control.config import Config
from lbmux.control.config_health import Health


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"interval_s": 0.2, "timeout_s": 0.5}, "timeout_s"),
        ({"kind": "command"}, "command"),
        ({"kind": "tcp", "command": ["true"]}, "command"),
        ({"kind": "http", "path": "no-slash"}, "path"),
        ({"kind": "http", "path": "/a b\r\nX: y"}, "path"),
        ({"kind": "http", "host": "a\r\nb"}, "host"),
        ({"rise": 0}, "rise"),
        ({"watermark": 1.5}, "watermark"),
        ({"query": "a..b"}, "query"),
    ],
)
def test_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Health(**settings)
    assert [error["loc"][0] for error in caught.value.errors()] == [field]


def service(health: dict[str, Any]) -> dict[str, Any]:
    backends = [{"name": "b", "dip": "10.0.2.2"}]
    named = {"name": "any", "vip": "192.0.2.1", "protocol": "tcp", "port": "any"}
    return {"services": [{**named, "health": health, "backends": backends}]}


def test_any_port_needs_one_to_probe() -> None:
    with pytest.raises(ValidationError, match=r"health\.port"):
        Config(**service({"kind": "tcp"}))
    for health in ({"kind": "tcp", "port": 80}, {"kind": "icmp"}):
        assert Config(**service(health)).services[0].health == Health(**health)
