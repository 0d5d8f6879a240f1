"""The word of an entry: its fields, and changes that come too late."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lbmux.codegen.compiled import compiled
from lbmux.datapath.flow_lookup import delete, generation_of, set_state, set_target, state_of, target_of, word_of
from lbmux.datapath.memory import at_address
from lbmux.datapath.tables import CLAIMED, FLOW, LOCKED, OVERFLOWED, TRUSTED, UNTRUSTED, VERSION_SHIFT, WAYS
from tests.datapath.craft import Craft
from tests.datapath.one_service import mux, send

OWNER, GENERATION, TARGET, VERSION = 0xABCD, 0xEF, 0x1234, 0x1FFF


@pytest.fixture
def bucket() -> NDArray[np.void]:
    """An entry in the second way; its word has every flag."""
    made = np.zeros(WAYS, FLOW)
    made[1] = (OWNER, UNTRUSTED, GENERATION, TARGET, VERSION << 3 | 7, 1, 2, 3, 4)
    return made


@compiled
def _fields(word):  # type: ignore[no-untyped-def]
    return state_of(word), generation_of(word), target_of(word), word_of(np.uint16(word), 2, 3, 4)


@compiled
def _set(bucket, way, word, what):  # type: ignore[no-untyped-def]
    if what == 0:
        return np.uint64(delete(at_address(bucket), way, word))
    if what == 1:
        return np.uint64(set_state(at_address(bucket), way, word, TRUSTED))
    return set_target(at_address(bucket), way, word, 77, 5)


def word(bucket: NDArray[np.void]) -> int:
    return int(bucket[1:2].view(np.uint64)[0])


def change(bucket: NDArray[np.void], what: int, is_late: bool) -> int:
    return int(_set(np.uint64(bucket.ctypes.data), 1, np.uint64(word(bucket) ^ (is_late << VERSION_SHIFT)), what))


def test_the_fields_of_an_entry_are_those_of_its_word(bucket: NDArray[np.void]) -> None:
    state, generation, target, other = _fields(np.uint64(word(bucket)))
    assert (state, generation, target) == (UNTRUSTED, GENERATION, TARGET)
    bucket[1] = (OWNER, 2, 3, 4, 0, 1, 2, 3, 4)
    assert int(other) == word(bucket)


def test_the_flags_are_the_lowest_bits_of_the_version(bucket: NDArray[np.void]) -> None:
    assert word(bucket) >> 48 & 7 == (LOCKED | OVERFLOWED | CLAIMED) >> 48
    assert word(bucket) >> VERSION_SHIFT == VERSION


@pytest.mark.parametrize(("what", "field", "after"), [(0, "state", 0), (1, "state", TRUSTED), (2, "target", 77)])
def test_a_change_of_an_entry_leaves_everything_else(
    bucket: NDArray[np.void], what: int, field: str, after: int
) -> None:
    wanted = bucket.copy()
    wanted[1][field] = after
    if what == 2:
        wanted[1]["generation"] = 5
    assert change(bucket, what, is_late=False) == (word(wanted) if what == 2 else 1)
    assert bucket.tolist() == wanted.tolist()


@pytest.mark.parametrize("what", range(3))
def test_a_change_that_comes_too_late_changes_nothing(bucket: NDArray[np.void], what: int) -> None:
    before = bucket.copy()
    change(bucket, what, is_late=True)
    assert bucket.tolist() == before.tolist()


def test_each_reuse_of_an_entry_is_a_new_version() -> None:
    machine = mux(buckets=1, slots=(0,))
    versions = []
    for client in range(3):
        send(machine, [Craft(source_port=client).frame()])
        versions.append(sorted((machine.tables.flows[0]["version"] >> 3).tolist()))
        machine.tables.flows["state"] = 0
    assert versions == [[0, 0, 0, 1], [0, 0, 0, 2], [0, 0, 0, 3]] or sum(map(sum, versions)) == 6


def test_an_entry_that_is_being_written_is_neither_found_nor_evicted() -> None:
    machine, frames = mux(buckets=1, slots=(0,)), [Craft(source_port=client).frame() for client in range(20)]
    machine.tables.flows["version"][0, 2] = CLAIMED >> 48
    send(machine, frames)
    assert machine.tables.flows["state"].tolist() == [[UNTRUSTED, UNTRUSTED, 0, UNTRUSTED]]


def test_a_flow_whose_bucket_is_locked_gets_no_entry_and_is_forwarded() -> None:
    machine = mux(buckets=1, slots=(3,))
    machine.tables.flows["version"][0, 0] = LOCKED >> 48
    assert send(machine, [Craft().frame()]) == [3]
    assert machine.lookups()["contended"] == 1 and not machine.tables.flows["state"].any()
