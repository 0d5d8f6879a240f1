"""BGP notifications in words: error codes and subcodes (RFC 4271 section 4.5, RFC 4486, 5492, 6608, 8538, 9384)."""

from collections.abc import Sequence

SHUTDOWN, RESET = (6, 2), (6, 4)
"""These may carry a text of the operator, whose length is its first byte (RFC 9003)."""
CODES: dict[int, tuple[str, Sequence[str]]] = {
    1: ("message header error", ("", "connection not synchronized", "bad message length", "bad message type")),
    2: (
        "OPEN message error",
        ("", "unsupported version number", "bad peer AS", "bad BGP identifier", "unsupported optional parameter",
         "authentication failure", "unacceptable hold time", "unsupported capability"),
    ),
    3: (
        "UPDATE message error",
        ("", "malformed attribute list", "unrecognized well-known attribute", "missing well-known attribute",
         "attribute flags error", "attribute length error", "invalid ORIGIN", "", "invalid NEXT_HOP",
         "optional attribute error", "invalid network field", "malformed AS_PATH"),
    ),
    4: ("hold timer expired", ()),
    5: ("finite state machine error", ("", "in OpenSent", "in OpenConfirm", "in Established")),
    6: (
        "cease",
        ("", "maximum number of prefixes reached", "administrative shutdown", "peer de-configured",
         "administrative reset", "connection rejected", "other configuration change",
         "connection collision resolution", "out of resources", "hard reset", "BFD down"),
    ),
    7: ("ROUTE-REFRESH message error", ("", "invalid message length")),
}  # fmt: skip


def words(code: int, subcode: int, data: bytes = b"") -> str:
    """As people read it: OPEN message error: bad peer AS."""
    name, subcodes = CODES.get(code, (f"error {code}", ()))
    unnamed = f"subcode {subcode}" if subcode else ""
    more = subcodes[subcode] if subcode < len(subcodes) else unnamed
    said = f"{name}: {more}" if more else name
    if (code, subcode) in (SHUTDOWN, RESET) and data and (text := printable(data[1 : 1 + data[0]])):
        said += f' ("{text}")'
    return said


def printable(text: bytes) -> str:
    """What a peer wrote, without what would move a terminal's cursor."""
    return "".join(one if one.isprintable() else "?" for one in text.decode("utf-8", "replace"))
