"""Objects as LLVM's BPF back end writes them: symbols become descriptors and numbers."""

import struct

import pytest

from lbmux.targets.bpf.elf import Object

LOAD, EXIT = 0x18, 0x95


def object_of(code: bytes, relocations: list[tuple[int, str]]) -> Object:
    """The least ELF that holds a section ``lbmux`` and its relocations."""
    names = b"\0lbmux\0.rellbmux\0.symtab\0.strtab\0"
    strings, symbols = b"\0", bytes(24)
    for _, name in relocations:
        symbols += struct.pack("<IBBHQQ", len(strings), 0, 0, 0, 0, 0)
        strings += name.encode() + b"\0"
    entries = b"".join(struct.pack("<QQ", at, n << 32 | 1) for n, (at, _) in enumerate(relocations, 1))
    parts = [("", b""), ("lbmux", code), (".rellbmux", entries), (".symtab", symbols), (".strtab", strings + names)]
    body, headers, at = b"", b"", 64
    for name, data in parts:
        place = len(strings) + names.index(name.encode() + b"\0")
        headers += struct.pack("<IIQQQQIIQQ", place, 0, 0, 0, at, len(data), 0, 0, 0, 0)
        body, at = body + data, at + len(data)
    head = bytearray(64)
    struct.pack_into("<Q", head, 0x28, at)
    struct.pack_into("<HHH", head, 0x3A, 64, len(parts), len(parts) - 1)
    return Object(bytes(head) + body + headers)


def load(low: int = 0, high: int = 0, register: int = 1) -> bytes:
    return struct.pack("<BBhIBBhI", LOAD, register, 0, low, 0, 0, 0, high)


def test_a_table_becomes_a_descriptor_and_its_offset_stays() -> None:
    code = object_of(load(40), [(0, "lbmux_table_flows")]).program("lbmux", {"lbmux_table_flows": 7}, {})
    assert struct.unpack("<BBhIBBhI", code) == (LOAD, 0x21, 0, 7, 0, 0, 0, 40)


def test_a_limit_relocation_adds_the_addend() -> None:
    minus_one = load(0xFFFFFFFF, 0xFFFFFFFF)
    code = object_of(minus_one, [(0, "lbmux_limit_names")]).program("lbmux", {}, {"lbmux_limit_names": 1 << 33})
    assert struct.unpack("<BBhIBBhI", code) == (LOAD, 0x01, 0, 0xFFFFFFFF, 0, 0, 0, 1)


def test_a_negative_number_is_patched_in() -> None:
    code = object_of(load(), [(0, "n")]).program("lbmux", {}, {"n": -2})
    assert struct.unpack("<BBhIBBhI", code) == (LOAD, 0x01, 0, 0xFFFFFFFE, 0, 0, 0, 0xFFFFFFFF)


def test_an_unknown_symbol_is_an_error() -> None:
    with pytest.raises(KeyError, match="memcpy"):
        object_of(load(), [(0, "memcpy")]).program("lbmux", {}, {})


def test_a_relocated_call_is_an_error() -> None:
    call = struct.pack("<BBhi", 0x85, 0x10, 0, -1)
    with pytest.raises(ValueError, match="memcpy: not a 64-bit load"):
        object_of(call, [(0, "memcpy")]).program("lbmux", {}, {"memcpy": 0})


def test_a_section_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="no section other"):
        object_of(load(), []).program("other", {}, {})
