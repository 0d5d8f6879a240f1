"""The two hashes, plainly: Python integers for the keyed one, mmh3 for the one that picks a slot."""

from collections.abc import Sequence

import mmh3

WORD, LONG = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


def keyed(keys: Sequence[int], high: int, low: int, ports: int, owner: int, salt: int = 0) -> int:
    """Multilinear: a random number for each 32-bit word, and the upper half of the sum; the first two's salted."""
    words = [low >> 32, ports, owner, low & WORD, high & WORD, high >> 32]
    if high == 0:  # IPv4: the other words are constant
        words = words[:3]
    salted = salt << 32 | salt
    keys = [keys[0], keys[1] ^ salted, keys[2] ^ salted, *keys[3:]]
    total = keys[0] + sum(key * word for key, word in zip(keys[1:], words, strict=False))
    return (total & LONG) >> 32


def second_hash(hashed: int) -> int:
    return ((hashed ^ (hashed >> 15)) * 0x9E3779B9) & WORD


def halves(address: bytes) -> tuple[int, int]:
    """An address of either family as the tables have it: two little-endian halves, IPv4 in its mapped form."""
    whole = bytes(10) + b"\xff\xff" + address if len(address) == 4 else address
    return int.from_bytes(whole[:8], "little"), int.from_bytes(whole[8:], "little")


def slot_hash(seed: int, source: bytes, destination: bytes, ports: bytes, protocol: int) -> int:
    """``ports``: source and destination port as on the wire."""
    return mmh3.hash(source + destination + ports + bytes([protocol, 0, 0, 0]), seed, signed=False)
