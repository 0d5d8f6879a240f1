"""The kernel program's clock and user space's are one."""

import pytest

from lbmux.targets.bpf import kernel_clock
from lbmux.targets.bpf.maps import KernelTables
from lbmux.targets.bpf.syscall import Attach
from lbmux.targets.bpf.test_runs import TestRunner
from lbmux.targets.regions import now_ticks
from tests.datapath.craft import Craft
from tests.datapath.harness import Machine
from tests.datapath.test_mux import backends, services
from tests.targets.bpf.twins import copy_tables

pytestmark = pytest.mark.root
WORKERS = 65
"""More than there are CPUs here."""
JIFFY_TICKS = 10
"""The most, at 100 of them a second."""
STEERED_NS = 1_000_000
"""Far more than 500 ppm of what the test takes."""


def test_a_flow_is_stamped_with_the_time_that_user_space_knows() -> None:
    machine = Machine.make(workers=WORKERS)
    machine.install_mux(services(), backends())
    with KernelTables.create(machine.tables.sizes) as kernel:
        copy_tables(machine.tables, kernel.tables)
        loaded = kernel.load("mux_xdp", Attach.XDP)
        before = now_ticks()
        TestRunner(loaded.descriptor).run(Craft().frame())
        (seen,) = kernel.tables.flows["seen"][kernel.tables.flows["state"] != 0]
        assert before - JIFFY_TICKS <= int(seen) <= now_ticks() + JIFFY_TICKS


def test_the_difference_of_the_clocks_stays_within_a_step() -> None:
    """The clock may be steered by some nanoseconds meanwhile."""
    readings = []
    for _ in range(20):
        kernel_clock.numbers.cache_clear()
        readings.append(kernel_clock.numbers())
    (jiffy_ns,) = {numbers["jiffy_ns"] for numbers in readings}
    offsets_ns = [numbers["jiffy_offset_ns"] for numbers in readings]
    assert max(offsets_ns) - min(offsets_ns) <= jiffy_ns + STEERED_NS
