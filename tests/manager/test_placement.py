"""Which backends an agent may report."""

from lbmux.backends.override_commands import add
from lbmux.backends.overrides import Overrides
from lbmux.config.models import Config
from lbmux.manager.guard_rails import Wanted
from lbmux.manager.placement import Placement


def config(**backend: str) -> Config:
    service = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80}
    return Config.model_validate({"services": [service | {"backends": [{"name": "b1", **backend}]}]})


def placement(current: Config, base: Config | None = None, overrides: Overrides | None = None) -> Placement:
    places = Placement()
    places.configure(Wanted(current, overrides or Overrides()), base and Wanted(base, Overrides()))
    return places


def test_a_backend_is_where_its_tunnel_ends() -> None:
    places = placement(config(dip="10.0.0.1", host="10.1.0.1"))
    assert places.may_be_on(("web", "b1"), ["10.1.0.1", "2001:db8::1"])
    assert not places.may_be_on(("web", "b1"), ["10.0.0.1"])
    assert not places.may_be_on(("web", "b1"), [])


def test_a_backend_that_is_not_configured_may_be_anywhere() -> None:
    assert placement(config(dip="10.0.0.1")).may_be_on(("web", "b2"), [])


def test_a_canary_s_base_counts_too() -> None:
    places = placement(config(dip="10.0.0.1"), config(dip="10.0.0.2"))
    assert places.may_be_on(("web", "b1"), ["10.0.0.1"]) and places.may_be_on(("web", "b1"), ["10.0.0.2"])
    places.configure(Wanted(config(dip="10.0.0.1"), Overrides()), None)
    assert not places.may_be_on(("web", "b1"), ["10.0.0.2"])


def test_a_backend_that_was_added_is_on_its_host() -> None:
    file = config(dip="10.0.0.1")
    overrides, _ = add("web", {"name": "b3", "dip": "10.0.0.3"}, 1.0)(file, Overrides())
    places = placement(file, overrides=overrides)
    assert places.may_be_on(("web", "b3"), ["10.0.0.3"]) and not places.may_be_on(("web", "b3"), ["10.0.0.1"])
