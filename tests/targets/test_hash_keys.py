"""The keys of the flow hash keep consecutive ports and addresses apart."""

import random
from collections import Counter

import pytest

from lbmux.datapath.tables import WAYS
from lbmux.targets import hash_keys
from tests.datapath.plain_hash import keyed

BUCKETS = 2048
SERVER = 0x0200C0
LOW, PORTS = 0x0100020A_00000000 | 0xFFFF0000, 0x5000_0000


def _crowd(keys: list[int], words: list[tuple[int, int]]) -> int:
    """Return the most flows in one bucket, of flows with these addresses (lower half) and ports."""
    return max(Counter(keyed(keys, 0, low, ports, SERVER) % BUCKETS for low, ports in words).values())


def _as_loaded(number: int) -> int:
    return int.from_bytes(number.to_bytes(2, "big"), "little")


@pytest.mark.parametrize("kind", ["client's ports", "server's ports", "client's addresses"])
def test_no_more_consecutive_flows_share_a_bucket_than_it_holds(kind: str) -> None:
    pick = random.Random(5)
    for _ in range(50):
        keys = [hash_keys.draw(BUCKETS) for _ in hash_keys.NAMES]
        first = pick.randrange(hash_keys.VALUES - BUCKETS // 4)
        values = [_as_loaded(number) for number in range(first, first + BUCKETS // 4)]
        words = {
            "client's ports": [(LOW, PORTS | value) for value in values],
            "server's ports": [(LOW, value << 16 | 0x1234) for value in values],
            "client's addresses": [(value << 48 | 0x0A01_FFFF0000, PORTS) for value in values],
        }
        assert _crowd(keys, words[kind]) <= WAYS


@pytest.mark.parametrize("turns", [0, 1, 1 / 2, 1 / 3, 2 / 5, 3 / 100])
def test_a_key_is_refused_that_puts_multiples_of_a_step_together(turns: float) -> None:
    """The low byte of a client's port is the second byte of its word."""
    step = int(turns * (BUCKETS << 32))
    assert not hash_keys.spreads(step >> 8 | 1, BUCKETS)


def test_a_key_without_clusters_is_taken() -> None:
    assert hash_keys.spreads(0x9E3779B97F4A7C15, BUCKETS)


def test_few_buckets_take_every_key() -> None:
    assert hash_keys.spreads(1, 2)


def test_drawn_keys_are_odd_and_differ() -> None:
    drawn = {hash_keys.draw(1 << 19) for _ in range(20)}
    assert len(drawn) == 20 and all(key % 2 for key in drawn)
