"""Match: look the packet's address up in the address map.

This is the second step. One exact-match table, the address map, holds every address that the data path must
recognise: the VIPs of services, the DIPs of local backends, the muxes that an agent accepts, its own tunnel addresses.
It is an open-addressed hash table in two copies. lbmux.tables.address_map fills the inactive copy so that no entry is
more than PROBES places from its home position, then switches.
"""

from lbmux.datapath.context import address_limit, addresses
from lbmux.datapath.hashing import keyed
from lbmux.datapath.memory import barrier_var, int64, step, u8, u16, u32, u64
from lbmux.datapath.tables import address_entry_row

PROBES = 8


@step
def address_hash(keys, salt, kind, high, low, port, protocol):
    return keyed(keys, u32(salt), high, low, u32(port), u32((kind << 8) | protocol))


@step
def match(context, setting, kind, high, low, port, protocol):
    """Return the index that (kind, address, port, protocol) maps to, or -1. ``port`` is as loaded."""
    active = int64(setting.active & u32(1))
    in_second = u64(0) - barrier_var(u64(active))
    salt = u64(setting.salt0) ^ (u64(setting.salt0 ^ setting.salt1) & in_second)
    mask = address_limit(context) - 1
    table, first = addresses(context), active * address_limit(context)
    place = int64(address_hash(setting, salt, kind, high, low, port, protocol))
    for probe in range(PROBES):
        entry = address_entry_row(table, first + ((place + probe) & mask))
        if entry.kind == 0:
            return int64(-1)
        different = (entry.low ^ low) | (entry.high ^ high) | u64(entry.port ^ u16(port))
        different |= u64(entry.protocol ^ u8(protocol)) | u64(entry.kind ^ u8(kind))
        if different == u64(0):  # one branch: the verifier would follow five of them, eight times
            return int64(entry.index)
    return int64(-1)


@step
def match_service(context, setting, kind, high, low, port, protocol):
    """Like ``match``, but an entry without a port matches every port that has no entry of its own."""
    index = match(context, setting, kind, high, low, port, protocol)
    if index < 0 and setting.any_port != 0:
        index = match(context, setting, kind, high, low, u16(0), protocol)
    return index
