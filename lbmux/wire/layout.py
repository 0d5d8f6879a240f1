"""A header's layout, written once: plain Python packs and unpacks it, and the data path makes a C struct of it."""

from struct import Struct
from types import SimpleNamespace

CODES = {"u1": "B", "u2": "H", "u4": "I", "u8": "Q"}
"""The format characters of struct, by NumPy's names of unsigned integers. A field "S6" is 6 bytes."""


class Layout:
    """The fields of a header in their order, without padding. Numbers are in network byte order."""

    def __init__(self, *fields: tuple[str, str]) -> None:
        """``fields`` are names and types, as NumPy writes types."""
        self.fields = fields
        codes = [CODES.get(kind) or f"{kind[1:]}s" for _, kind in fields]
        self._struct = Struct("!" + "".join(codes))
        self._blank: dict[str, int | bytes] = {name: 0 if kind in CODES else b"" for name, kind in fields}
        self._offsets = {name: Struct("!" + "".join(codes[:at])).size for at, (name, _) in enumerate(fields)}

    @property
    def size(self) -> int:
        """The length in bytes."""
        return self._struct.size

    def at(self, name: str) -> int:
        """Return a field's offset in bytes."""
        return self._offsets[name]

    def pack(self, **values: int | bytes) -> bytes:
        """Build the header. Fields that are not named are zero."""
        return self._struct.pack(*(self._blank | values).values())

    def unpack(self, data: bytes, at: int = 0) -> SimpleNamespace:
        """Return the fields of the header at byte ``at``. The caller has checked that all of it is there."""
        return SimpleNamespace(**dict(zip(self._blank, self._struct.unpack_from(data, at), strict=True)))

    def replace(self, data: bytes, **values: int | bytes) -> bytes:
        """Return ``data``, which begins with this header, with other values in some of its fields."""
        return self._struct.pack(*(vars(self.unpack(data)) | values).values()) + data[self.size :]
