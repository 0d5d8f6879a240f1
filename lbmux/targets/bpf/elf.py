"""The ELF reader: extracts a program's instructions and replaces its symbols with descriptors and numbers.

It supports only what LLVM's BPF back end writes: one program per section, 64-bit loads relocated by symbol.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELOCATION = struct.Struct("<QQ")
SECTIONS_AT, SECTION_COUNT_AT = 0x28, 0x3C
LOAD_64 = 0x18
MAP, MAP_VALUE = 1 << 4, 2 << 4
"""BPF_PSEUDO_MAP_FD and BPF_PSEUDO_MAP_VALUE as source register: the load's lower half is a map's descriptor, its
upper half zero or an offset into the map's value."""


@dataclass(frozen=True)
class Object:
    """The bytes of an object file."""

    data: bytes

    @cached_property
    def _sections(self) -> dict[str, tuple[int, ...]]:
        (start,) = struct.unpack_from("<Q", self.data, SECTIONS_AT)
        count, names = struct.unpack_from("<HH", self.data, SECTION_COUNT_AT)
        headers = [SECTION.unpack_from(self.data, start + number * SECTION.size) for number in range(count)]
        return {self._text(headers[names][4] + header[0]): header for header in headers}

    def _text(self, at: int) -> str:
        return self.data[at : self.data.index(b"\0", at)].decode()

    def section(self, name: str) -> bytes:
        header = self._sections.get(name)
        return self.data[header[4] : header[4] + header[5]] if header else b""

    def relocations(self, section: str) -> list[tuple[int, str]]:
        """Return (instruction's offset in bytes, symbol) of each load that refers to a symbol."""
        names = self._sections[".strtab"][4]
        symbols = [symbol[0] for symbol in SYMBOL.iter_unpack(self.section(".symtab"))]
        entries = RELOCATION.iter_unpack(self.section(".rel" + section))
        return [(at, self._text(names + symbols[kind >> 32])) for at, kind in entries]

    def program(
        self, section: str, maps: Mapping[str, int], numbers: Mapping[str, int], rings: Mapping[str, int] | None = None
    ) -> bytes:
        """Return the instructions of a section with all symbols resolved.

        By symbol, ``maps`` has descriptors of maps whose value is addressed, ``rings`` descriptors of maps that are
        passed to helpers, and ``numbers`` plain values.
        """
        code = bytearray(self.section(section))
        if not code:
            raise ValueError(f"no section {section}")
        for at, symbol in self.relocations(section):
            if code[at] != LOAD_64:
                raise ValueError(f"{symbol}: not a 64-bit load at {at}")
            low, high = struct.unpack_from("<I", code, at + 4)[0], struct.unpack_from("<I", code, at + 12)[0]
            if symbol in maps:
                code[at + 1] |= MAP_VALUE
                low, high = maps[symbol], low
            elif rings and symbol in rings:
                code[at + 1] |= MAP
                low, high = rings[symbol], 0
            else:
                value = (numbers[symbol] + (high << 32 | low)) & 0xFFFFFFFFFFFFFFFF
                low, high = value & 0xFFFFFFFF, value >> 32
            struct.pack_into("<I", code, at + 4, low)
            struct.pack_into("<I", code, at + 12, high)
        return bytes(code)
