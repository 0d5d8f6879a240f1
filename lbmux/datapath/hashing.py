"""The two hash functions: a public one and a keyed one.

``murmur3`` selects the Maglev slot, so it must be the same on every mux and reproducible elsewhere: it is MurmurHash3
x86 32-bit, equal to ``mmh3.hash(key, seed, signed=False)``. ``keyed`` places addresses and flows in our own tables,
where an attacker must not be able to aim at a bucket: it is strongly universal multilinear hashing (Lemire and Kaser,
"Strongly universal string hashing is fast", 2014, section 3) with secret random keys. lbmux.targets.hash_keys draws
them.
"""

from lbmux.datapath.memory import int64, step, u32, u64


@step
def _rotate(x, bits):
    return u32(u32(x << u32(bits)) | u32(x >> u32(32 - bits)))


@step
def _mix(h, k):
    k = u32(_rotate(u32(k * u32(0xCC9E2D51)), 15) * u32(0x1B873593))
    return u32(u32(_rotate(u32(h ^ k), 13) * u32(5)) + u32(0xE6546B64))


@step
def _finish(h, length):
    h = u32(h ^ u32(length))
    h = u32(u32(h ^ u32(h >> u32(16))) * u32(0x85EBCA6B))
    h = u32(u32(h ^ u32(h >> u32(13))) * u32(0xC2B2AE35))
    return u32(h ^ u32(h >> u32(16)))


@step
def murmur3(seed, source, destination, ports, protocol):
    """Hash 16 bytes: source and destination IPv4 address, both ports as on the wire, protocol, three zero bytes."""
    h = _mix(_mix(u32(seed), u32(source)), u32(destination))
    return _finish(_mix(_mix(h, u32(ports)), u32(protocol)), 16)


@step
def murmur3_wide(seed, source_high, source_low, destination_high, destination_low, ports, protocol):
    """Hash 40 bytes: the same fields with IPv6 addresses."""
    h = _mix(_mix(u32(seed), u32(source_high)), u32(source_high >> u64(32)))
    h = _mix(_mix(h, u32(source_low)), u32(source_low >> u64(32)))
    h = _mix(_mix(h, u32(destination_high)), u32(destination_high >> u64(32)))
    h = _mix(_mix(h, u32(destination_low)), u32(destination_low >> u64(32)))
    return _finish(_mix(_mix(h, u32(ports)), u32(protocol)), 40)


@step
def keyed(keys, salt, high, low, ports, owner):
    """Hash a 128-bit address, two ports and a small number to 32 bits. ``keys`` is the SETTINGS row.

    Two of the four address words are constant for IPv4 and cost nothing there. Consecutive addresses or ports hash to
    values a constant step apart, and an unlucky step clusters them. ``salt`` therefore changes the keys of those words:
    a salt that was only added to the sum would keep the step.
    """
    salted = u64(salt) | (u64(salt) << u64(32))
    first, second = keys.key1 ^ salted, keys.key2 ^ salted
    total = keys.key0 + u64(u32(low >> u64(32))) * first + u64(ports) * second + u64(owner) * keys.key3
    if high != u64(0):
        total += u64(u32(low)) * keys.key4 + u64(u32(high)) * keys.key5 + (high >> u64(32)) * keys.key6
    return u32(total >> u64(32))


@step
def scale(hashed, size):
    """Map a 32-bit hash to an index below ``size``, without a division."""
    return int64((u64(hashed) * u64(size)) >> u64(32))
