"""What the fuzzer found worth keeping: compiled code, plain twin and the kernel's program still agree on all of it."""

from pathlib import Path

import pytest

from tests.fuzz.judge import Judge
from tests.fuzz.seed import frames

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


@pytest.mark.parametrize("kernel", [False, pytest.param(True, marks=pytest.mark.root)], ids=["twin", "kernel"])
def test_the_corpus_is_judged_alike(kernel: bool) -> None:
    judge = Judge(kernel)
    try:
        for path in CORPUS:
            judge.check(path.read_bytes())
        judge.check_tables()
    finally:
        judge.close()


def test_the_corpus_has_more_than_the_seeds() -> None:
    """The corpus has the seeds too, so that a new fuzzer has them."""
    held = {path.read_bytes() for path in CORPUS}
    seeds = {bytes([way]) + frame for way, frame in frames()}
    assert len(held) > len(seeds)
