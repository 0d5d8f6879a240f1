"""The programs under this kernel's verifier, with their instruction counts."""

import os
from collections.abc import Iterator

import pytest

from lbmux.daemons.drivers import MOST_CPUS
from lbmux.datapath.tables import Sizes
from lbmux.targets.bpf.maps import AGENT_SLOT, MUX_SLOT, KernelTables
from lbmux.targets.bpf.syscall import Attach, create_program_slot

pytestmark = pytest.mark.root
VERIFIER_LIMIT = 1_000_000
PROGRAMS = [
    ("mux_xdp", Attach.XDP),
    ("agent_xdp", Attach.XDP),
    ("agent_tc", Attach.TCX_EGRESS),
    ("edge_mux_xdp", Attach.XDP),
    ("gate_xdp", Attach.XDP),
    ("edge_agent_xdp", Attach.XDP),
]
SIZES = {
    "smallest": Sizes(addresses=16, services=4, slots=64, backends=4, buckets=1),
    "default": Sizes(workers=2),
    "large": Sizes(1 << 19, 1 << 16, slots=1 << 22, backends=1 << 16, buckets=1 << 15, workers=8, endpoints=4096),
    "536 MB of flows": Sizes(buckets=1 << 22, workers=2),
}


@pytest.fixture(scope="module")
def rings() -> Iterator[dict[str, int]]:
    slot = create_program_slot("slot")
    yield {AGENT_SLOT: slot, MUX_SLOT: slot}
    os.close(slot)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(("name", "place"), PROGRAMS)
def test_loads(
    name: str, place: Attach, sizes: Sizes, rings: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    with KernelTables.create(sizes) as kernel:
        loaded = kernel.load(name, place, rings=rings)
        os.close(loaded.descriptor)
    with capsys.disabled():
        print(f"\n{name}: {loaded.instructions} instructions, {loaded.verified} verified", end=" ")
    assert 0 < loaded.verified < VERIFIER_LIMIT / 2


@pytest.mark.parametrize(("name", "place"), PROGRAMS)
def test_loads_for_many_cpus(name: str, place: Attach, rings: dict[str, int]) -> None:
    """The largest number of CPUs that is allowed."""
    with KernelTables.create(Sizes(buckets=1 << 12, workers=MOST_CPUS + 1, endpoints=1024)) as kernel:
        os.close(kernel.load(name, place, rings=rings).descriptor)
