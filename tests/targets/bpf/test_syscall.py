"""Errors for calls that the kernel refuses."""

import errno
import struct

import pytest

from lbmux.targets.bpf.syscall import Attach, BpfError, create_array, load_program, open_pinned


def instruction(code: int, registers: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("<BBhi", code, registers, offset, immediate)


@pytest.mark.root
def test_a_refused_program_quotes_the_verifier() -> None:
    load_r0_from_r2 = instruction(0x79, 0x20)
    with pytest.raises(BpfError) as refused:
        load_program(Attach.XDP, load_r0_from_r2 + instruction(0x95), "bad")
    assert refused.value.number == errno.EACCES
    assert "R2 !read_ok" in str(refused.value)
    assert len(refused.value.last_lines) <= 12


@pytest.mark.root
def test_a_loaded_program_says_its_size() -> None:
    loaded = load_program(Attach.XDP, instruction(0xB7, immediate=2) + instruction(0x95), "good")
    assert (loaded.instructions, loaded.verified) == (2, 2)


@pytest.mark.root
def test_a_map_that_is_too_large_is_named_with_its_size() -> None:
    with pytest.raises(BpfError, match="map flows of 4294967295 bytes"):
        create_array("flows", 0xFFFFFFFF)


def test_an_unpinned_object_cannot_be_opened() -> None:
    with pytest.raises(BpfError, match="/sys/fs/bpf/lbmux/nothing"):
        open_pinned("/sys/fs/bpf/lbmux/nothing")


def test_a_missing_capability_is_reported_with_a_hint() -> None:
    assert "CAP_BPF" in str(BpfError("map flows", errno.EPERM))
