"""Tables in the kernel's maps: sizes that are refused before anything is created."""

import pytest

from lbmux.datapath.tables import Sizes
from lbmux.errors import SetupError
from lbmux.targets.bpf.maps import KernelTables


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (Sizes(buckets=1 << 23), "^table of flows: 1024 MiB exceeds the 512 MiB .*a smaller flows.limit.$"),
        (Sizes(slots=1 << 29), "^table of slots: 2048 MiB exceeds the 512 MiB .*a smaller maglev.size, or `auto`.$"),
    ],
)
def test_tables_beyond_the_reach_of_a_program(sizes: Sizes, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        KernelTables.create(sizes)
