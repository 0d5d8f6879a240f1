"""Match: look the packet's address up in the address map.

This is the second step. One exact-match table, the address map, holds every address that the data path must
recognise: the VIPs of services, the DIPs of local backends, the muxes that an agent accepts, its own tunnel addresses.
It is an open-addressed hash table in two copies. lbmux.tables.address_map fills the inactive copy so that no entry is
more than PROBES places from its home position, then switches.
"""

from lbmux.datapath.context import address_limit, addresses, settings
from lbmux.datapath.hashing import keyed
from lbmux.datapath.memory import advance, int64, step, u8, u16, u32, u64
from lbmux.datapath.tables import SALTS_AT, address_label_row, salt_row

PROBES = 8


@step
def address_hash(keys, salt, kind, high, low, port, protocol):
    return keyed(keys, u32(salt), high, low, u32(port), u32((kind << 8) | protocol))


@step
def match(context, setting, kind, high, low, port, protocol):
    """Return the index that (kind, address, port, protocol) maps to, or -1. ``port`` is as loaded."""
    active = int64(setting.active & u32(1))
    salt = salt_row(advance(settings(context), int64(SALTS_AT)), active).value
    mask = address_limit(context) - 1
    table, first = addresses(context), active * address_limit(context)
    place = int64(address_hash(setting, salt, kind, high, low, port, protocol))
    label = u32(u16(port)) | u32(u32(u8(protocol)) << u32(16)) | u32(u32(u8(kind)) << u32(24))
    for probe in range(PROBES):
        entry = address_label_row(table, first + ((place + probe) & mask))
        different = (entry.low ^ low) | (entry.high ^ high) | u64(entry.label ^ label)
        if different == u64(0):
            return int64(entry.index)
        if entry.label == u32(0):
            return int64(-1)
    return int64(-1)


@step
def match_service(context, setting, kind, high, low, port, protocol):
    """Like ``match``, but an entry without a port matches every port that has no entry of its own."""
    index = match(context, setting, kind, high, low, port, protocol)
    if index < 0 and setting.any_port != 0:
        index = match(context, setting, kind, high, low, u16(0), protocol)
    return index
