"""Offloads of a real interface: read, switched, put back."""

import contextlib
import logging

import pytest

from lbmux.errors import SetupError
from lbmux.linux import offloads
from lbmux.linux.ethtool import Feature, read_features
from lbmux.linux.offloads import SUPER_FRAMES, device_driver, features, set_features, without_super_frames
from tests.frames.pair import Pair

VETH_JOINS = {"gro": True, "rx-gro-list": True, "rx-udp-gro-forwarding": True}
"""What a veth can be made to do of SUPER_FRAMES."""


def state(name: str) -> bool:
    known = read_features("b0")
    return known[name].is_on if name in known else features("b0")[name]


def joins() -> dict[str, bool]:
    return {name: state(name) for name in SUPER_FRAMES}


@pytest.mark.root
def test_features_have_ethtools_short_names_or_else_the_kernels(pair: Pair) -> None:
    pair.inside("b", lambda: set_features("b0", {"gro": True, "tx": True}))
    by_name = pair.inside("b", lambda: features("b0"))
    assert set(by_name) == {"rx", "tx", "sg", "tso", "gso", *SUPER_FRAMES}
    assert by_name["gro"] and by_name["tx"] and not by_name["lro"] and not by_name["rx-gro-hw"]


@pytest.mark.root
@pytest.mark.parametrize("name", ["gro", "tx", "tso", "gso", "sg", "rx-gro-list", "tx-checksum-ip-generic"])
def test_a_feature_is_switched_and_its_former_state_returned_once(pair: Pair, name: str) -> None:
    was = pair.inside("b", lambda: state(name))
    assert pair.inside("b", lambda: set_features("b0", {name: not was})) == {name: was}
    assert pair.inside("b", lambda: state(name)) is not was
    assert pair.inside("b", lambda: set_features("b0", {name: not was})) == {}


@pytest.mark.root
def test_only_the_interface_of_this_namespace_is_switched(pair: Pair) -> None:
    pair.inside("b", lambda: set_features("b0", {"tx": False}))
    assert not pair.inside("b", lambda: features("b0"))["tx"]
    assert pair.inside("a", lambda: features("a0"))["tx"]


@pytest.mark.root
@pytest.mark.parametrize("fails", [False, True])
def test_receive_offloads_are_off_and_restored_whatever_happens(pair: Pair, fails: bool) -> None:
    def scenario() -> None:
        set_features("b0", VETH_JOINS)
        before = joins()
        assert before == dict.fromkeys(SUPER_FRAMES, False) | VETH_JOINS
        with contextlib.suppress(ZeroDivisionError), without_super_frames("b0") as changed:
            assert changed == VETH_JOINS
            assert not any(joins().values())
            if fails:
                raise ZeroDivisionError
        assert joins() == before

    pair.inside("b", scenario)


@pytest.mark.root
def test_a_feature_that_was_off_stays_off(pair: Pair) -> None:
    def scenario() -> None:
        set_features("b0", {"gro": False})
        with without_super_frames("b0") as changed:
            assert "gro" not in changed
        assert not features("b0")["gro"]

    pair.inside("b", scenario)


@pytest.mark.root
def test_an_interface_that_goes_away_meanwhile_raises_nothing(pair: Pair) -> None:
    def scenario() -> None:
        set_features("b0", {"gro": True})
        with without_super_frames("b0"):
            pair.netlink("b", lambda ip, index: ip.link("del", index=index))

    pair.inside("b", scenario)


@pytest.mark.root
def test_a_fixed_feature_is_logged(
    pair: Pair, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interfaces of many virtual machines have such features; those of namespaces here have none."""
    read = offloads.read_features

    def as_in_a_virtual_machine(interface: str) -> dict[str, Feature]:
        return read(interface) | {"rx-gro-hw": Feature(is_on=True, is_fixed=True)}

    def scenario() -> None:
        with without_super_frames("b0") as changed:
            assert "rx-gro-hw" not in changed

    monkeypatch.setattr(offloads, "read_features", as_in_a_virtual_machine)
    with caplog.at_level(logging.WARNING):
        pair.inside("b", scenario)
    assert caplog.messages == [
        "interface b0: rx-gro-hw cannot be switched off; user space segments what it merges"
    ]  # fmt: skip


@pytest.mark.root
@pytest.mark.parametrize("name", ["lro", "rx-gro-hw"])
def test_a_feature_that_the_device_cannot_have_is_an_error(pair: Pair, name: str) -> None:
    with pytest.raises(SetupError, match=r"^interface b0: offloads: "):
        pair.inside("b", lambda: set_features("b0", {name: True}))
    assert not pair.inside("b", lambda: features("b0"))[name]


@pytest.mark.root
def test_an_unknown_feature_is_named_and_nothing_switched(pair: Pair) -> None:
    pair.inside("b", lambda: set_features("b0", {"gro": True}))
    said = "^interface b0: offloads: this kernel has no feature teleport [(]`ethtool -k b0` lists "
    with pytest.raises(SetupError, match=said):
        pair.inside("b", lambda: set_features("b0", {"gro": False, "teleport": True}))
    assert pair.inside("b", lambda: features("b0"))["gro"]


def test_an_unknown_interface_is_named() -> None:
    with pytest.raises(SetupError, match=r"^interface nowhere0: offloads: No such device [(]needs CAP_NET_ADMIN "):
        features("nowhere0")
    assert device_driver("nowhere0") == ""


@pytest.mark.root
def test_the_driver_is_reported(pair: Pair) -> None:
    assert pair.inside("b", lambda: device_driver("b0")) == "veth"
    assert pair.inside("b", lambda: device_driver("lo")) == ""
