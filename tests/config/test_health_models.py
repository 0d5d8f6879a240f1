from typing import Any

import pytest
from pydantic import ValidationError

from lbmux.config.health_models import Health, Watermark
from lbmux.config.models import Config


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
        ({"watermark": {"low": 0.6, "high": 0.3}}, "watermark"),
        ({"watermark": {"low": 0.3}}, "watermark"),
        ({"query": "a..b"}, "query"),
        ({"by": "agent", "through": "tunnel"}, "through"),
        ({"through": "tunnel", "kind": "icmp"}, "kind"),
        ({"through": "tunnel", "kind": "command", "command": ["true"]}, "kind"),
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


@pytest.mark.parametrize(
    ("service", "health", "why"),
    [
        ({}, {"kind": "udp"}, "cannot go through a tcp service's tunnel"),
        ({"protocol": "udp"}, {"kind": "tcp"}, "cannot go through a udp service's tunnel"),
        ({}, {"port": 81}, "a port of the service"),
        ({"port": 80, "port_to": 89}, {"port": 90}, "a port of the service"),
        ({"port": "any"}, {}, "the service has `port: any`"),
    ],
)
def test_packets_that_do_not_go_through_the_tunnel(service: dict[str, Any], health: dict[str, Any], why: str) -> None:
    backends = [{"name": "b", "dip": "10.0.2.2", "port": 80}]
    named = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "backends": backends}
    with pytest.raises(ValidationError, match=why):
        Config(services=[named | service | {"health": health | {"through": "tunnel"}}])


@pytest.mark.parametrize(
    ("service", "health"),
    [({}, {}), ({"port": 80, "port_to": 89}, {"port": 85}), ({"port": "any"}, {"port": 85}), ({}, {"port": 80})],
)
def test_packets_that_go_through_the_tunnel(service: dict[str, Any], health: dict[str, Any]) -> None:
    backends = [{"name": "b", "dip": "10.0.2.2"}]
    named = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "backends": backends}
    parsed = Config(services=[named | service | {"health": health | {"through": "tunnel"}}]).services[0]
    assert parsed.health is not None and parsed.health.through == "tunnel"


@pytest.mark.parametrize("written", [0.5, 1, {"low": 0.3, "high": 0.6}])
def test_a_watermark_can_be_read_again(written: Any) -> None:
    parsed = Health(watermark=written)
    low, high = (written["low"], written["high"]) if isinstance(written, dict) else (written, written)
    assert parsed.watermark == Watermark(low=low, high=high)
    assert Health.model_validate(parsed.model_dump(mode="json")) == parsed
