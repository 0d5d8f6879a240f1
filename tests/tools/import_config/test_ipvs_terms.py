import pytest

from lbmux.errors import Problem
from lbmux.tools.import_config.entries import Block
from lbmux.tools.import_config.ipvs_terms import hash_of, health_of, tunnel_of


@pytest.mark.parametrize(
    ("scheduler", "expected", "remarks"), [("rr", {}, 0), ("wlc", {}, 1), ("mh", {"hash": "source"}, 0),
                                        ("dh", {"hash": "source"}, 1)],
)  # fmt: skip
def test_schedulers(scheduler: str, expected: dict[str, str], remarks: int) -> None:
    left: list[Problem] = []
    assert hash_of(scheduler, 1, "s", left) == expected and len(left) == remarks


def test_an_unknown_forwarding_method_is_left_out() -> None:
    left: list[Problem] = []
    assert tunnel_of("BRIDGE", 1, "s", left) == {} and "BRIDGE" in left[0].message


def test_retries_are_failures_beyond_the_first() -> None:
    check = Block([], [])
    assert health_of(check, "tcp", 10, 5, 2)["fall"] == 3 and not check.left
    assert health_of(check, "tcp", 100, 90, 0)["timeout_s"] == 60 and check.left
