"""An override of a backend of a named pool acts in all services of the pool."""

from typing import Any

import pytest

from lbmux.backends.override_commands import (
    OverrideError,
    add,
    set_admin_state,
    set_admin_state_of_host,
    set_weight,
    without_obsolete,
)
from lbmux.backends.override_precedence import precedences
from lbmux.backends.overrides import Override, Overrides, with_overrides
from lbmux.backends.pool_overrides import in_pools, members, origins, spread
from lbmux.config.models import Config
from tests.backends.test_override_commands import overridden


def configured(*pooled: str, own: tuple[str, ...] = ("own",)) -> Config:
    """Services ``pooled`` with a pool of b1 and b2, and services with b1 of their own."""
    ports = {name: port for port, name in enumerate((*pooled, *own), 80)}
    service = {"vip": "192.0.2.1", "protocol": "tcp"}
    b1 = {"name": "b1", "dip": "10.0.2.1"}
    services: list[dict[str, Any]] = [{"name": name, "port": ports[name], "pool": "front"} | service for name in pooled]
    services += [{"name": name, "port": ports[name], "backends": [b1]} | service for name in own]
    return Config.model_validate({"pools": {"front": [b1, {"name": "b2", "dip": "10.0.2.2"}]}, "services": services})


FILE = configured("web", "tls")
BOTH = [("tls", "b1"), ("web", "b1")]


def test_a_command_for_one_service_acts_in_its_pool() -> None:
    drained, keys = set_admin_state("drain", "b1", "web", 1)(FILE, Overrides())
    assert keys == BOTH and drained.admin_states == dict.fromkeys(BOTH, "drain")
    assert set_weight(7, "b1", "tls", 1)(FILE, Overrides())[1] == BOTH
    assert overridden(set_admin_state(None, "b1", "tls", 2), file=FILE, overrides=drained) == Overrides()


def test_a_service_with_its_own_backends_is_apart() -> None:
    assert set_admin_state("drain", "b1", "own", 1)(FILE, Overrides())[1] == [("own", "b1")]
    assert set_admin_state("drain", "b1", None, 1)(FILE, Overrides())[1] == [("own", "b1"), *BOTH]


def test_all_backends_of_a_service_are_those_of_its_pool() -> None:
    _, keys = set_admin_state("disable", None, "web", 1)(FILE, Overrides())
    assert keys == [("tls", "b1"), ("tls", "b2"), ("web", "b1"), ("web", "b2")]


def test_a_host_in_one_service_is_the_host_in_its_pool() -> None:
    assert set_admin_state_of_host("drain", "10.0.2.1", "web", 1)(FILE, Overrides())[1] == BOTH


def test_an_added_backend_is_in_all_services_of_the_pool() -> None:
    overrides, keys = add("web", {"dip": "10.0.2.9"}, 1)(FILE, Overrides())
    assert keys == [("web", "10.0.2.9"), ("tls", "10.0.2.9")]
    ports = {s.name: [b.port for b in s.backends] for s in with_overrides(FILE, overrides).services}
    assert ports == {"web": [80, 80, 80], "tls": [81, 81, 81], "own": [82]}
    gone = overridden(set_admin_state("remove", "10.0.2.9", "tls", 2), file=FILE, overrides=overrides)
    assert not gone.of and gone.removals.keys() == set(keys)


def test_an_added_backend_that_would_be_invalid() -> None:
    with pytest.raises(OverrideError, match="another backend has the name b1"):
        add("web", {"name": "b1", "dip": "10.0.2.9"}, 1)(FILE, Overrides())
    with pytest.raises(OverrideError, match="is the service's own VIP: packets would loop"):
        add("web", {"dip": "192.0.2.1"}, 1)(FILE, Overrides())


def test_a_service_that_joins_a_pool_takes_over_its_overrides() -> None:
    drained = overridden(set_admin_state("drain", "b1", "web", 1), file=configured("web", own=("tls",)))
    assert without_obsolete(configured("web", "tls", own=()), drained).admin_states == dict.fromkeys(BOTH, "drain")


def test_the_latest_override_holds_in_the_pool() -> None:
    before = configured("web", own=("tls",))
    overrides = overridden(set_admin_state("drain", "b1", "web", 1), set_weight(5, "b1", "tls", 2), file=before)
    after = without_obsolete(configured("web", "tls", own=()), overrides)
    assert after.of == dict.fromkeys(BOTH, Override(2, weight=5))


def test_a_service_that_leaves_a_pool_keeps_its_overrides() -> None:
    drained = overridden(set_admin_state("drain", "b1", "web", 1), file=FILE)
    assert without_obsolete(configured("web", own=("tls",)), drained).of == drained.of


def test_an_added_backend_gets_the_port_of_a_service_that_joins() -> None:
    overrides = overridden(add("web", {"dip": "10.0.2.9"}, 1), file=configured("web", own=("tls",)))
    of = without_obsolete(configured("web", "tls", own=()), overrides).of
    added = {key: one.added.port for key, one in of.items() if one.added is not None}
    assert added == {("web", "10.0.2.9"): 80, ("tls", "10.0.2.9"): 81}


def test_a_reload_names_the_pool_once() -> None:
    drained = overridden(set_admin_state("drain", "b1", "web", 1), file=FILE)
    assert precedences(FILE, drained) == [
        "override: pool front: backend b1: drained by command (`lbmux enable b1` reverts it)"
    ]


def test_services_of_a_pool() -> None:
    assert members(FILE, "tls") == ["web", "tls"] and members(FILE, "own") == ["own"]
    assert in_pools(FILE, [("gone", "b1"), ("web", "b1")]) == {("gone", "b1"), *BOTH}


def test_overrides_of_services_that_are_gone_stay() -> None:
    of = {("gone", "b1"): Override(1, "drain")}
    assert spread(FILE, of) == of and origins(FILE, of) == {("gone", "b1"): ("gone", "b1")}
