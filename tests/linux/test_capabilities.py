"""The capabilities that a child keeps, and those that a process lacks."""

import subprocess
from collections.abc import Callable

import pytest

from lbmux.linux.capabilities import Capability, command_with_only, effective, lacking, with_only

KEPT = 1 << Capability.NET_RAW


STATUS = ["cat", "/proc/self/status"]
Status = Callable[..., dict[str, str]]


def before_exec(*keep: Capability) -> dict[str, str]:
    return status_of(subprocess.run(STATUS, capture_output=True, text=True, preexec_fn=with_only(keep)))


def by_command(*keep: Capability) -> dict[str, str]:
    return status_of(subprocess.run(command_with_only(keep, STATUS), capture_output=True, text=True, env={}))


def status_of(ran: "subprocess.CompletedProcess[str]") -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in ran.stdout.splitlines())


@pytest.mark.parametrize("child_status", [before_exec, by_command])
def test_a_child_loses_all_and_gains_none(child_status: Status) -> None:
    status = child_status()
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"


@pytest.mark.root
@pytest.mark.parametrize("child_status", [before_exec, by_command])
def test_a_child_keeps_what_it_needs(child_status: Status) -> None:
    status = child_status(Capability.NET_RAW)
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {KEPT}


def test_the_parent_keeps_its_own() -> None:
    before = effective()
    before_exec()
    assert effective() == before


@pytest.mark.parametrize(
    ("mask", "missing"),
    [
        (0, [Capability.NET_RAW, Capability.BPF]),
        (KEPT, [Capability.BPF]),
        (KEPT | 1 << Capability.SYS_ADMIN, []),
    ],
)
def test_an_administrator_has_the_capabilities_of_bpf(mask: int, missing: list[Capability]) -> None:
    assert lacking((Capability.NET_RAW, Capability.BPF), mask) == missing


def test_the_name_is_that_of_the_kernel() -> None:
    assert str(Capability.NET_ADMIN) == "CAP_NET_ADMIN"
