"""Both hashes against their twins."""

import mmh3
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lbmux.codegen.compiled import compiled
from lbmux.datapath import flows, hashing
from lbmux.datapath.memory import at_address
from lbmux.datapath.tables import SETTINGS, settings_row
from tests.datapath.plain_hash import keyed, second_hash, slot_hash

words, longs, shorts = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 65535)


@compiled
def compiled_murmur3(seed, source, destination, ports, protocol):
    return hashing.murmur3(seed, source, destination, ports, protocol)


@compiled
def compiled_murmur3_wide(seed, source_high, source_low, destination_high, destination_low, ports, protocol):
    return hashing.murmur3_wide(seed, source_high, source_low, destination_high, destination_low, ports, protocol)


@compiled
def compiled_keyed(address, salt, high, low, ports, owner):
    return hashing.keyed(settings_row(at_address(address), 0), salt, high, low, ports, owner)


@compiled
def compiled_scale(hashed, size):
    return hashing.scale(hashed, size)


@compiled
def compiled_second(hashed):
    return flows.second_hash(hashed)


@given(words, st.binary(min_size=12, max_size=12), st.integers(0, 255))
@settings(deadline=None)
def test_murmur3_is_mmh3_hash(seed: int, key: bytes, protocol: int) -> None:
    source, destination, ports = (np.uint32(int.from_bytes(key[at : at + 4], "little")) for at in (0, 4, 8))
    ours = int(compiled_murmur3(np.uint32(seed), source, destination, ports, np.uint32(protocol)))
    assert ours == mmh3.hash(key + bytes([protocol, 0, 0, 0]), seed, signed=False)
    assert ours == slot_hash(seed, key[:4], key[4:8], key[8:], protocol)


@given(words, st.binary(min_size=36, max_size=36), st.integers(0, 255))
@settings(deadline=None)
def test_murmur3_of_ipv6_is_mmh3_hash(seed: int, key: bytes, protocol: int) -> None:
    halves = [np.uint64(int.from_bytes(key[at : at + 8], "little")) for at in (0, 8, 16, 24)]
    ports = np.uint32(int.from_bytes(key[32:], "little"))
    ours = int(compiled_murmur3_wide(np.uint32(seed), *halves, ports, np.uint32(protocol)))
    assert ours == slot_hash(seed, key[:16], key[16:32], key[32:], protocol)


@given(st.lists(longs, min_size=7, max_size=7), st.just(0) | words, st.just(0) | longs, longs, words, words)
@settings(deadline=None)
def test_the_keyed_hash_equals_its_plain_twin(
    keys: list[int], salt: int, high: int, low: int, ports: int, owner: int
) -> None:
    row = np.zeros(1, SETTINGS)
    for index, key in enumerate(keys):
        row[f"key{index}"] = key
    address, halves = np.uint64(row.ctypes.data), (np.uint64(high), np.uint64(low))
    arguments = address, np.uint32(salt), *halves, np.uint32(ports), np.uint32(owner)
    assert int(compiled_keyed(*arguments)) == keyed(keys, high, low, ports, owner, salt)


@given(words)
@settings(deadline=None)
def test_the_second_hash_equals_its_plain_twin(hashed: int) -> None:
    assert int(compiled_second(np.uint32(hashed))) == second_hash(hashed)


@given(words, st.integers(1, 2_000_003))
@settings(deadline=None)
def test_scale_stays_below_the_size(hashed: int, size: int) -> None:
    assert compiled_scale(np.uint32(hashed), np.uint32(size)) == hashed * size >> 32 < size


def test_keyed_spreads_neighbours_evenly() -> None:
    """Clients that differ by one bit, into 256 buckets: chi squared of 255 degrees stays below its far tail."""
    row = np.zeros(1, SETTINGS)
    for index, key in enumerate(np.random.default_rng(9).integers(0, 2**63, 7)):
        row[f"key{index}"] = key
    counts = np.zeros(256)
    address = np.uint64(row.ctypes.data)
    for client in range(25_600):
        low = np.uint64((0x0100000A + (client << 8)) << 32 | 0xFFFF0000)
        arguments = address, np.uint32(0), np.uint64(0), low, np.uint32(0x50009C40), np.uint32(1)
        counts[int(compiled_keyed(*arguments)) & 255] += 1
    assert ((counts - 100) ** 2 / 100).sum() < 400
