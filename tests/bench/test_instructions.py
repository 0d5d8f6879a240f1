"""The number of instructions that a packet takes in the kernel does not grow unnoticed."""

from dataclasses import replace

import pytest

from bench import instructions
from lbmux.targets.bpf.test_runs import TestRunner

pytestmark = pytest.mark.root
MOST = {
    instructions.USUAL: (293, 13),
    "IPv4 TCP, established, flows: all": (336, 18),
    "IPv4 TCP in GUE, established, flows: changed": (450, 53),
    "IPv6 TCP in IPv6, established, flows: changed": (403, 27),
    "IPv6 TCP in IPv6, established, flows: all": (371, 25),
}
"""Instructions and spills by kind of packet."""


@pytest.mark.parametrize("kind", MOST)
def test_instructions_stay_below_the_bound(kind: str) -> None:
    count = instructions.counted(kind)
    instructions_at_most, spills_at_most = MOST[kind]
    assert count.instructions <= instructions_at_most and count.spills <= spills_at_most


def test_another_result_of_the_kernel_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    run = TestRunner.run
    monkeypatch.setattr(TestRunner, "run", lambda runner, frame: replace(run(runner, frame), frame=frame))
    with pytest.raises(instructions.DisagreementError, match="0800"):
        instructions.counted(instructions.USUAL)


def test_another_counter_of_the_kernel_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    run = TestRunner.run
    monkeypatch.setattr(TestRunner, "run", lambda runner, frame: (run(runner, frame), run(runner, frame))[0])
    with pytest.raises(instructions.DisagreementError, match="table of verdicts"):
        instructions.counted(instructions.USUAL)
