"""Which changes need `--force`."""

from typing import Any

import pytest

from lbmux.backends.overrides import OverriddenState, Override, Overrides
from lbmux.config.models import Config
from lbmux.manager.guard_rails import GuardRailError, Wanted, check


def pool(overrides: Overrides | None = None, **services: dict[int, int]) -> Wanted:
    """Services with backends: weights by number."""
    given: list[dict[str, Any]] = [
        {
            "name": name, "vip": "192.0.2.1", "protocol": "tcp", "port": port,
            "backends": [{"name": f"b{n}", "dip": f"10.0.0.{n}", "weight": w} for n, w in backends.items()],
        }
        for port, (name, backends) in enumerate(services.items(), 80)
    ]  # fmt: skip
    return Wanted(Config.model_validate({"services": given}), overrides or Overrides())


def put(state: OverriddenState, *numbers: int) -> Overrides:
    return Overrides({("web", f"b{number}"): Override(0, state) for number in numbers})


FOUR = {1: 1, 2: 1, 3: 1, 4: 1}
LEFT = "service web: no usable backend would be left"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (pool(web=FOUR), pool(web=FOUR), []),
        (Wanted(None, Overrides()), pool(web=FOUR), []),
        (Wanted(None, Overrides()), pool(web={}), [LEFT]),
        (pool(web=FOUR), pool(web={}), [LEFT]),
        (pool(web={}), pool(web={}, mail=FOUR), []),  # it was so before the change
        (pool(web=FOUR), pool(web={1: 1, 2: 1}), []),
        (pool(web=FOUR), pool(web={1: 1}), ["service web: 3 of 4 backends would be removed"]),
        (pool(web=FOUR), pool(web={5: 1, 6: 1, 7: 1}), ["service web: 4 of 4 backends would be removed"]),
        (pool(web=FOUR, mail={1: 1}), pool(web=FOUR), ["service mail: removed, with 1 backend"]),
        (pool(web={1: 1, 2: 0}), pool(put("drain", 1), web={1: 1, 2: 0}), [LEFT]),
        (pool(web={1: 1, 2: 1}), pool(put("disable", 1), web={1: 1, 2: 1}), []),
        (pool(put("drain", 1), web={1: 1, 2: 1}), pool(put("drain", 1, 2), web={1: 1, 2: 1}), [LEFT]),
        (pool(web=FOUR), pool(put("remove", 1, 2, 3), web=FOUR), ["service web: 3 of 4 backends would be removed"]),
    ],
)
def test_changes(before: Wanted, after: Wanted, expected: list[str]) -> None:
    assert check(before, after) == expected


def test_connections_that_would_move() -> None:
    assert check(pool(web=FOUR), pool(web=FOUR), moved=0.1) == []
    (reason,) = check(pool(web=FOUR), pool(web=FOUR), moved=0.21)
    assert reason == "21.0% of the live connections would move; the limit is 10.0%"
    assert check(pool(web=FOUR), pool(web=FOUR), moved=0.21, most_moved=0.5) == []


def test_the_error_has_every_reason() -> None:
    assert str(GuardRailError(("one", "two"))) == "the change needs --force:\none\ntwo"
