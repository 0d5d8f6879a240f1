"""Programs on an interface: attached, found again, replaced, detached; and the errors if that is not possible."""

import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from pyroute2 import IPRoute

from lbmux.datapath.tables import Sizes
from lbmux.errors import SetupError
from lbmux.frames.xdp import Kernel, detach
from lbmux.targets.bpf import pins, syscall
from lbmux.targets.bpf.syscall import Attach
from tests.frames.pair import Pair

pytestmark = pytest.mark.root
SIZES = Sizes(addresses=64, services=16, slots=256, backends=16, buckets=64, workers=4)
PROGRAMS = {Attach.XDP: "mux_xdp"}
Result = TypeVar("Result")


@pytest.fixture
def pair(pair: Pair) -> Iterator[Pair]:
    yield pair
    pair.inside("b", lambda: detach("b0"))


def in_kernel(pair: Pair, work: Callable[[Kernel], Result], sizes: Sizes = SIZES, role: str = "mux") -> Result:
    """Attach as a process does that starts, works and ends."""

    def process() -> Result:
        kernel = Kernel("b0", sizes, role)
        try:
            return work(kernel)
        finally:
            kernel.close()

    return pair.inside("b", process)


def attach(kernel: Kernel) -> None:
    kernel.attach(PROGRAMS)


def attach_with_a_flow(kernel: Kernel) -> None:
    kernel.tables.flows[5, 2]["ports"] = 77
    kernel.attach(PROGRAMS)


def generations(pair: Pair) -> list[Path]:
    return pair.inside("b", lambda: pins.Pins(pins.directory_of("b0", "mux")).generations())


def attached_program(pair: Pair) -> int | None:
    """Return the id of the interface's XDP program, as the kernel reports it."""

    def ask(ip, index):  # type: ignore[no-untyped-def]
        return ip.get_links(index)[0].get_attr("IFLA_XDP").get_attr("IFLA_XDP_PROG_ID")

    program: int | None = pair.netlink("b", ask)
    return program


def test_a_program_outlives_its_process_with_its_tables(pair: Pair) -> None:
    in_kernel(pair, attach_with_a_flow)
    assert attached_program(pair) is not None
    assert in_kernel(pair, lambda kernel: (kernel.adopted, int(kernel.tables.flows[5, 2]["ports"]))) == (True, 77)


def test_a_later_process_swaps_its_program_in(pair: Pair) -> None:
    in_kernel(pair, attach_with_a_flow)
    first = attached_program(pair)
    in_kernel(pair, attach)
    assert attached_program(pair) not in (None, first)
    assert len(generations(pair)) == 1
    assert len(list(generations(pair)[0].glob("program-*"))) == 2, "the mux's and the gate's"
    assert in_kernel(pair, lambda kernel: int(kernel.tables.flows[5, 2]["ports"])) == 77


def test_the_gate_comes_before_the_program_and_goes_again(pair: Pair) -> None:
    def work(kernel: Kernel) -> list[int | None]:
        kernel.attach(PROGRAMS)
        seen = [attached_program(pair)]
        kernel.gate(True)
        seen.append(attached_program(pair))
        kernel.swap(Attach.XDP, kernel.loaded[Attach.XDP])  # as `lbmux trace` does
        seen.append(attached_program(pair))
        kernel.gate(False)
        return [*seen, attached_program(pair)]

    without, gate, still, after = in_kernel(pair, work)
    assert None not in (without, gate) and gate not in (without, None)
    assert (still, after) == (gate, without)


def test_the_gate_and_the_tables_outlive_a_killed_process(pair: Pair) -> None:
    def work(kernel: Kernel) -> None:
        attach_with_a_flow(kernel)
        kernel.gate(True)

    in_kernel(pair, work)
    gate = attached_program(pair)
    (generation,) = generations(pair)
    slot = syscall.open_pinned(generation / pins.GATE_SLOT)
    assert syscall.program_in_slot(slot), "the gate still calls the mux's program"
    os.close(slot)
    assert in_kernel(pair, lambda kernel: (kernel.adopted, int(kernel.tables.flows[5, 2]["ports"]))) == (True, 77)
    in_kernel(pair, attach)
    assert attached_program(pair) not in (None, gate)


def test_without_a_program_there_is_no_gate(pair: Pair) -> None:
    with pytest.raises(SetupError, match="detached"):
        in_kernel(pair, lambda kernel: kernel.gate(True))


def test_other_sizes_make_new_tables_and_show_the_old_ones(pair: Pair) -> None:
    in_kernel(pair, attach_with_a_flow)

    def grow(kernel: Kernel) -> tuple[bool, int]:
        assert kernel.previous is not None
        rows = kernel.previous.rows("flows").reshape(64, 4)
        kernel.attach(PROGRAMS)
        return kernel.adopted, int(rows[5, 2]["ports"])

    assert in_kernel(pair, grow, Sizes(buckets=128, workers=4)) == (False, 77)
    assert len(generations(pair)) == 1


def test_half_made_pins_of_a_killed_process_are_not_adopted(pair: Pair) -> None:
    in_kernel(pair, attach_with_a_flow)

    def die_before_the_link(kernel: Kernel) -> None:
        kernel.kernel_tables.pin(kernel.pins.new_generation())  # type: ignore[union-attr]

    in_kernel(pair, die_before_the_link, Sizes(buckets=128, workers=4))
    assert len(generations(pair)) == 2
    assert in_kernel(pair, lambda kernel: (kernel.adopted, int(kernel.tables.flows[5, 2]["ports"]))) == (True, 77)
    in_kernel(pair, attach)
    assert len(generations(pair)) == 1


def test_attaches_to_a_recreated_interface(pair: Pair) -> None:
    in_kernel(pair, attach)
    pair.netlink("b", lambda ip, index: ip.link("del", index=index))
    pair.inside("b", make_b0)
    in_kernel(pair, attach)
    assert attached_program(pair) is not None


def make_b0() -> None:
    with IPRoute() as ip:
        ip.link("add", ifname="b0", kind="veth", peer={"ifname": "other"})


def test_replies_may_reach_a_recreated_interface_before_its_programs_do(pair: Pair) -> None:
    """One thread attaches the egress program to all interfaces; another attaches to the recreated one again."""

    def work(kernel: Kernel) -> bool:
        kernel.attach({Attach.XDP: "agent_xdp", Attach.TCX_EGRESS: "agent_tc"})
        with IPRoute() as ip:
            ip.link("del", index=kernel.index)
        make_b0()
        kernel.reach([socket.if_nametoindex("b0")])
        kernel.reattach()
        return kernel.is_attached() and not kernel.egress_refused

    try:
        assert in_kernel(pair, work, role="agent")
    finally:
        pair.inside("b", lambda: detach("b0"))


def test_it_is_known_whether_the_programs_are_still_attached(pair: Pair) -> None:
    def work(kernel: Kernel) -> list[bool]:
        attach(kernel)
        said = [kernel.is_attached()]
        detach("b0")
        return [*said, kernel.is_attached()]

    assert in_kernel(pair, work) == [True, False]


def test_an_interface_that_is_gone_has_no_program(pair: Pair) -> None:
    def work(kernel: Kernel) -> list[bool]:
        attach(kernel)
        said = [kernel.is_attached()]
        with IPRoute() as ip:
            ip.link("del", index=kernel.index)
        return [*said, kernel.is_attached()]

    assert in_kernel(pair, work) == [True, False]


def test_detaching_leaves_nothing(pair: Pair) -> None:
    in_kernel(pair, attach)
    directory = pair.inside("b", lambda: pins.directory_of("b0", "mux"))
    assert pair.inside("b", lambda: detach("b0"))
    assert attached_program(pair) is None
    assert not directory.exists()
    assert not pair.inside("b", lambda: detach("b0"))


def test_generic_mode_where_it_is_asked_for(pair: Pair) -> None:
    def generic(kernel: Kernel) -> dict[Attach, str]:
        kernel.xdp_modes = ("generic",)
        kernel.attach(PROGRAMS)
        return dict(kernel.modes)

    assert in_kernel(pair, generic) == {Attach.XDP: "generic"}


def test_a_foreign_program_stays_and_is_named_as_the_reason(pair: Pair) -> None:
    code = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)  # r0 = XDP_PASS; exit
    program = syscall.load_program(Attach.XDP, code, "other").descriptor
    link = pair.inside("b", lambda: syscall.create_link(program, socket.if_nametoindex("b0"), Attach.XDP))
    try:
        with pytest.raises(SetupError, match="another XDP program"):
            in_kernel(pair, attach)
        assert attached_program(pair) == syscall.program_id(program)
    finally:
        os.close(link)
        os.close(program)


def test_no_such_interface(pair: Pair) -> None:
    with pytest.raises(SetupError, match="interface nowhere: not found"):
        pair.inside("b", lambda: Kernel("nowhere", SIZES))


def test_native_at_a_jumbo_mtu(pair: Pair) -> None:
    for node in ("a", "b"):
        pair.set_link(node, mtu=9000)

    def modes(kernel: Kernel) -> tuple[str, str]:
        kernel.attach(PROGRAMS)
        return kernel.modes[Attach.XDP], kernel.native_refused

    assert in_kernel(pair, modes) == ("native", "")


def test_a_fallback_to_generic_has_the_kernel_s_reason(pair: Pair) -> None:
    """A bridge knows no native XDP."""

    def on_bridge() -> tuple[str, str]:
        with IPRoute() as ip:
            ip.link("add", ifname="br0", kind="bridge")
        kernel = Kernel("br0", Sizes(buckets=64, workers=4), "mux")
        try:
            kernel.attach({Attach.XDP: "mux_xdp"})
            return kernel.modes[Attach.XDP], kernel.native_refused
        finally:
            kernel.detach()

    mode, why = pair.inside("b", on_bridge)
    assert (mode, why) == ("generic", "Underlying driver does not support XDP in native mode")
