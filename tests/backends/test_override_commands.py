from typing import Any

import pytest

from lbmux.backends.override_commands import (
    Change,
    OverrideError,
    UnknownBackendError,
    add,
    set_admin_state,
    set_admin_state_of_host,
    set_weight,
    without_obsolete,
)
from lbmux.backends.overrides import Overrides, with_overrides
from lbmux.config.models import BackendKey, Config
from tests.backends.test_overrides import TWO, backend, configured, weights


def overridden(*changes: Change, file: Config = TWO, overrides: Overrides | None = None) -> Overrides:
    overrides = overrides or Overrides()
    for change in changes:
        overrides, _ = change(file, overrides)
    return overrides


def wanted(overrides: Overrides, file: Config = TWO, service: str = "web") -> dict[str, int]:
    return weights(with_overrides(file, overrides.without_removals()), service)


def states(overrides: Overrides) -> dict[BackendKey, str]:
    return {key: admin_state for key, admin_state in overrides.admin_states.items() if key[0] == "web"}


NINE = add("web", backend(9), 3)


def test_in_every_service_or_in_one() -> None:
    assert set_admin_state("drain", "b1", None, 0)(TWO, Overrides())[1] == [("mail", "b1"), ("web", "b1")]
    assert set_admin_state("drain", "b1", "web", 0)(TWO, Overrides())[1] == [("web", "b1")]


def test_all_backends_of_a_service() -> None:
    change = set_admin_state("disable", None, "web", 0)
    assert change(TWO, Overrides())[1] == [("web", "b1"), ("web", "b2")]
    disabled = overridden(NINE, change)
    assert states(disabled) == dict.fromkeys([("web", "b1"), ("web", "b2"), ("web", "b9")], "disable")
    assert not overridden(set_admin_state(None, None, "web", 0), overrides=disabled).admin_states
    with pytest.raises(OverrideError, match="gone: there is no such service"):
        overridden(set_admin_state("disable", None, "gone", 0))


def test_all_backends_of_a_host() -> None:
    file = configured(backend(1), backend(2, host="10.9.9.9"))
    overrides = overridden(add("mail", backend(4, host="10.9.9.9"), 1), file=file)
    drained, keys = set_admin_state_of_host("drain", "10.9.9.9", None, 2)(file, overrides)
    assert keys == [("mail", "b4"), ("web", "b2")] and set(drained.admin_states) == set(keys)
    enabled, _ = set_admin_state_of_host(None, "10.9.9.9", "web", 3)(file, drained)
    assert enabled.admin_states == {("mail", "b4"): "drain"}
    removed, _ = set_admin_state_of_host("remove", "10.9.9.9", None, 3)(file, overrides)
    assert ("web", "b2") in set_admin_state_of_host(None, "10.9.9.9", None, 4)(file, removed)[1]
    assert set_admin_state_of_host("drain", "10.0.2.1", None, 2)(file, overrides)[1] == [("mail", "b1"), ("web", "b1")]
    for host, service in (("10.1.1.1", None), ("10.0.2.77", "mail")):
        with pytest.raises(OverrideError, match="no backend is on it"):
            set_admin_state_of_host("drain", host, service, 2)(file, overrides)


@pytest.mark.parametrize("admin_state", ["drain", "disable", "remove"])
def test_enable_takes_it_back(admin_state: Any) -> None:
    overrides = overridden(set_admin_state(admin_state, "b2", None, 0))
    assert overrides.admin_states
    assert overridden(set_admin_state(None, "b2", None, 0), overrides=overrides) == Overrides()


def test_a_repeated_override_is_not_new() -> None:
    once = overridden(set_admin_state("drain", "b2", None, 1))
    assert overridden(set_admin_state("drain", "b2", None, 2), overrides=once) == once


def test_a_removed_backend_becomes_a_removal() -> None:
    overrides = overridden(set_admin_state("remove", "b2", None, 7))
    assert wanted(overrides) == {"b1": 1}
    assert [(key, one.since, one.reason) for key, one in overrides.removals.items()] == [
        (("web", "b2"), 7, "removed by command")
    ]  # fmt: skip


def test_a_backend_disabled_during_its_removal_is_gone_and_removed() -> None:
    overrides = overridden(set_admin_state("remove", "b2", None, 0), set_admin_state("disable", "b2", None, 0))
    assert not overrides.removals and overrides.of["web", "b2"].admin_state == "remove"


def test_a_backend_drained_during_its_removal_is_kept() -> None:
    overrides = overridden(set_admin_state("remove", "b2", None, 0), set_admin_state("drain", "b2", None, 0))
    assert states(overrides) == {("web", "b2"): "drain"}


def test_weight_is_set_and_restored() -> None:
    overrides = overridden(set_weight(9, "b2", None, 0))
    assert wanted(overrides) == {"b1": 1, "b2": 9} and not overrides.removals
    assert overridden(set_weight(None, "b2", None, 0), overrides=overrides) == Overrides()


def test_weight_outlives_a_drain() -> None:
    overrides = overridden(
        set_weight(9, "b2", None, 0), set_admin_state("drain", "b2", None, 0), set_admin_state(None, "b2", None, 0)
    )
    assert wanted(overrides) == {"b1": 1, "b2": 9}


def test_an_added_backend_gets_defaults_and_can_be_removed() -> None:
    overrides = overridden(add("web", {"dip": "10.0.2.9"}, 3))
    assert wanted(overrides) == {"b1": 1, "b2": 2, "10.0.2.9:80": 1}
    overrides = overridden(set_admin_state("remove", "10.0.2.9:80", None, 4), overrides=overrides)
    assert wanted(overrides) == {"b1": 1, "b2": 2}
    assert states(overrides) == {("web", "10.0.2.9:80"): "removing"} and not overrides.of


def test_a_backend_that_is_added_again_stays() -> None:
    overrides = overridden(NINE, set_admin_state("remove", "b9", None, 4), NINE)
    assert not overrides.removals and wanted(overrides)["b9"] == 1


def test_an_added_backend_can_be_drained_and_reweighted() -> None:
    overrides = overridden(NINE, set_weight(4, "b9", None, 0), set_admin_state("drain", "b9", None, 0))
    assert wanted(overrides)["b9"] == 4 and states(overrides) == {("web", "b9"): "drain"}
    assert not overridden(set_admin_state("remove", "b9", None, 0), overrides=overrides).of


def test_a_backend_removed_by_the_file_is_not_enabled() -> None:
    overrides = overridden(NINE, set_admin_state("remove", "b9", None, 4))
    assert overridden(set_admin_state(None, "b9", None, 5), overrides=overrides) == overrides


@pytest.mark.parametrize(("change", "said"), [
    (add("nope", backend(9), 0), "nope: there is no such service"),
    (add("web", backend(9, name="b1"), 0), "web: name: another backend has the name b1"),
    (add("web", backend(9, dip="10.0.2.1"), 0), "web: backends: two backends of one service cannot share a host"),
    (add("web", backend(9, dip="10.0.2.300"), 0), "web: dip: is not an IPv4 or IPv6 address"),
    (add("web", backend(9, dip="2001:db8::9"), 0), "web: dip: is IPv6, but the VIP is IPv4"),
    (add("web", backend(9, weight=70000), 0), "web: weight: "),
    (add("web", backend(9, colour="red"), 0), "web: colour: is not a known field"),
    (set_weight(0, "b1", "mail", 0), "mail: backends: at least one backend should have a weight above 0"),
])  # fmt: skip
def test_an_override_is_checked_like_a_file(change: Change, said: str) -> None:
    with pytest.raises(OverrideError) as caught:
        change(TWO, Overrides())
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("weight", [-1, 65536, "5", True])
def test_no_weight(weight: Any) -> None:
    with pytest.raises(OverrideError, match="b1: weight: "):
        set_weight(weight, "b1", None, 0)


def test_an_unknown_override_is_refused() -> None:
    with pytest.raises(OverrideError, match="explode"):
        set_admin_state("explode", "b1", None, 0)  # type: ignore[arg-type]


def test_too_many_for_the_maglev_table() -> None:
    few = TWO.model_copy(update={"maglev": TWO.maglev.model_copy(update={"size": 3})})
    with pytest.raises(OverrideError, match=r"do not fit maglev\.size"):
        overridden(NINE, file=few)


def test_the_name_of_a_removed_one_is_not_given_away() -> None:
    with pytest.raises(OverrideError, match="lbmux enable"):
        overridden(set_admin_state("remove", "b2", None, 0), add("web", backend(9, name="b2"), 0))


def test_enable_of_a_backend_whose_host_has_another_now() -> None:
    overrides = overridden(set_admin_state("remove", "b2", None, 0), add("web", backend(2, name="b9", port=8081), 0))
    assert wanted(overrides) == {"b1": 1, "b9": 1} and not overrides.removals  # cannot be distinguished
    with pytest.raises(OverrideError, match="cannot share a host address"):
        overridden(set_admin_state(None, "b2", None, 0), overrides=overrides)


@pytest.mark.parametrize(("name", "service"), [("b7", None), ("b2", "mail"), ("b1", "nope")])
def test_unknown_backend(name: str, service: str | None) -> None:
    for change in (set_admin_state("drain", name, service, 0), set_weight(1, name, service, 0)):
        with pytest.raises(UnknownBackendError, match="lbmux show health"):
            change(TWO, Overrides())


def test_a_service_of_ranges_takes_another() -> None:
    file = configured(backend(1), port="any")
    assert wanted(overridden(NINE, file=file), file) == {"b1": 1, "b9": 1}


def test_a_file_that_includes_the_overrides() -> None:
    overrides = overridden(NINE, set_admin_state("remove", "b2", None, 0))
    assert without_obsolete(configured(backend(1), backend(9)), overrides).of == {}
    assert without_obsolete(TWO, overrides) == overrides


@pytest.mark.parametrize("file", [
    configured(backend(1), backend(3, dip="10.0.2.9")), configured(backend(1), name="other"),
    configured({"dip": "2001:db8::1"}, vip="2001:db8::80"),
], ids=["host taken", "no such service", "other family"])  # fmt: skip
def test_file_that_an_added_one_does_not_fit(file: Config) -> None:
    assert without_obsolete(file, overridden(NINE)).of == {}
