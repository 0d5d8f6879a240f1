"""The digest of the kernel programs covers every program, and changes with the instructions only."""

from bench.digest import SIZES, digest, programs
from tests.codegen.test_shortcuts import VARIANTS


def test_every_kernel_program_has_a_digest() -> None:
    assert sorted(programs()) == sorted(VARIANTS)


def test_the_digest_of_a_program_without_tables_is_the_same_for_all_sizes() -> None:
    (clock,) = [program for program in programs() if program.endswith(":clock_xdp")]
    assert len({digest(clock, sizes) for sizes in SIZES.values()}) == 1
