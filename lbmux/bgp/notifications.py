"""Describes BGP notifications: error codes and subcodes (RFC 4271 section 4.5, RFC 4486, 5492, 6608, 8538, 9384)."""

from collections.abc import Sequence

SHUTDOWN, RESET = (6, 2), (6, 4)
"""These may carry an operator's message; its first byte is the length (RFC 9003)."""
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
    """Describe a notification, for example: OPEN message error: bad peer AS."""
    name, subcodes = CODES.get(code, (f"error {code}", ()))
    unnamed = f"subcode {subcode}" if subcode else ""
    more = subcodes[subcode] if subcode < len(subcodes) else unnamed
    text = f"{name}: {more}" if more else name
    if (code, subcode) in (SHUTDOWN, RESET) and data and (message := printable(data[1 : 1 + data[0]])):
        text += f' ("{message}")'
    return text


def printable(text: bytes) -> str:
    """Decode a peer's message, and replace control characters, which could move a terminal's cursor."""
    return "".join(one if one.isprintable() else "?" for one in text.decode("utf-8", "replace"))
