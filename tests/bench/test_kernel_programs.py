"""The bench's kernel programs still compile after a change of the data path."""

import pytest

from lbmux.targets.bpf import objects

PROGRAMS = [
    *(f"bench.kernel_programs:{name}" for name in ("drop", "send_back", "pass_up", "look_once", "again", "nothing")),
    *(f"bench.generator:{name}" for name in ("generate", "generate6", "sink")),
]


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_can_be_compiled(name: str) -> None:
    assert objects.compiled(name).data
