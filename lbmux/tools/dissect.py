"""Dissect a frame for people: a line for each header, with its fields, by scapy.

Used by `lbmux trace -v` and `lbmux explain FILE --packet N`.  Scapy is imported when a frame is dissected; no daemon
imports this module.
"""

import logging
from typing import Any

from lbmux.wire.header_layouts import ETHERNET_BYTES

LOAD_BYTES = 16
"""The first bytes of a payload that are shown."""


def dissect(frame: bytes) -> list[str]:
    """One line per layer of an Ethernet frame, the outermost first, as `IP version=4 ihl=5 ...`."""
    logging.getLogger("scapy").setLevel(logging.ERROR)
    from scapy.layers import dns, inet, inet6, vxlan  # noqa: F401 -- each binds its layers to those below
    from scapy.layers.l2 import Ether

    if len(frame) < ETHERNET_BYTES:
        return [f"truncated Ethernet header, {len(frame)} bytes: {frame.hex(' ')}"]
    lines, layer = [], Ether(frame)
    while layer:
        lines.append(_line(layer))
        layer = layer.payload
    return lines


def _line(layer: Any) -> str:
    name = type(layer).__name__
    if name in ("Raw", "Padding"):
        load = bytes(layer.load)
        return f"{name} {len(load)} bytes: {load[:LOAD_BYTES].hex(' ')}{' ...' if len(load) > LOAD_BYTES else ''}"
    fields = [f"{field}={layer.get_field(field).i2repr(layer, value)}" for field, value in layer.fields.items()]
    return " ".join([name, *fields])
