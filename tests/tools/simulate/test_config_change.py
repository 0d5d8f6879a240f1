"""What a change of a configuration moves: by hand where it is easy, else against the tables themselves."""

from typing import Any

import pytest

from lbmux.backends.override_commands import Change, UnknownBackendError, add, set_admin_state, set_weight
from lbmux.config.models import Config
from lbmux.tools.python_api.maglev_table import Maglev, disruption
from lbmux.tools.simulate.config_change import ConfigChange, change
from lbmux.tools.simulate.simulation_result import Row, SimulationResult


def config(*backends: dict[str, Any], size: int = 1009, **service: Any) -> Config:
    one = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "backends": list(backends)} | service
    other = one | {"name": "dns", "protocol": "udp", "backends": [{"name": "d", "dip": "10.2.0.1"}]}
    return Config.model_validate({"maglev": {"size": size}, "services": [one, other]})


def backend(number: int, **more: Any) -> dict[str, Any]:
    return {"name": f"b{number}", "dip": f"10.1.{number}.2"} | more


FOUR = config(*map(backend, range(4)))


def row_of(before: Config, after: Config, *edits: Change) -> Row:
    (row,) = change(ConfigChange(before, after, edits, connections=10_000, repeats=20)).rows
    return row


def moved(result: Row) -> float:
    assert isinstance(result["slots_moved_percent"], float)
    return result["slots_moved_percent"]


def test_a_drained_backend_keeps_its_connections_by_entries() -> None:
    row = row_of(FOUR, FOUR, set_admin_state("drain", "b2", "web", 0.0))
    names = [f"b{number}" for number in range(4)]
    wanted = disruption(Maglev(names, size=1009), Maglev(names, [1, 1, 0, 1], 1009))
    assert moved(row) == pytest.approx(100 * wanted) and row["least_percent"] == pytest.approx(25, abs=0.1)
    assert row["need_entries"].median == pytest.approx(10_000 * wanted, rel=0.05)  # type: ignore[union-attr]
    assert row["lose_backend"].high == 0  # type: ignore[union-attr]


def test_a_disabled_backend_loses_its_connections() -> None:
    row = row_of(FOUR, FOUR, set_admin_state("disable", "b2", None, 0.0))
    assert row["lose_backend"].median == pytest.approx(2500, rel=0.1)  # type: ignore[union-attr]
    assert row["need_entries"].high < 1000  # type: ignore[union-attr]


def test_connections_add_up() -> None:
    row = row_of(FOUR, FOUR, set_weight(3, "b1", None, 0.0))
    total = sum(row[name].median for name in ("need_entries", "lose_backend", "need_nothing"))  # type: ignore[union-attr]
    assert total == pytest.approx(10_000, rel=0.01)


def test_a_new_file_is_compared_by_address_not_by_name() -> None:
    other = config(*map(backend, range(3)), backend(3, dip="10.9.9.9"))
    row = row_of(FOUR, other)
    assert moved(row) == pytest.approx(25, abs=0.1) and row["least_percent"] == pytest.approx(25, abs=0.1)


def test_edits_come_on_top_of_a_new_file() -> None:
    five = config(*map(backend, range(5)))
    added = row_of(FOUR, FOUR, add("web", backend(4), 0.0))
    assert moved(added) == moved(row_of(FOUR, five))
    assert moved(row_of(FOUR, five, set_admin_state("drain", "b0", None, 0.0))) > 35


@pytest.mark.parametrize("other", [{"size": 1013}, {"vip": "192.0.2.2"}, {"hash": "source"}])
def test_what_gives_every_flow_another_slot(other: dict[str, Any]) -> None:
    result = change(ConfigChange(FOUR, config(*map(backend, range(4)), **other)))
    assert moved(result.rows[0]) == 100


def test_services_that_come_and_go_are_notes() -> None:
    after = FOUR.model_copy(update={"services": FOUR.services[:1]})
    assert change(ConfigChange(FOUR, after)).notes == ["service dns: removed", "1 service without a change"]
    assert change(ConfigChange(after, FOUR)).notes == ["service dns: added", "1 service without a change"]


def test_no_change_has_no_rows() -> None:
    result: SimulationResult = change(ConfigChange(FOUR, FOUR))
    assert (result.rows, result.panels, result.notes) == ([], [], ["2 services without a change"])


def test_a_backend_that_does_not_exist() -> None:
    with pytest.raises(UnknownBackendError, match="no backend b9"):
        change(ConfigChange(FOUR, FOUR, [set_weight(3, "b9", None, 0.0)]))


def test_the_last_backend_is_drained() -> None:
    one = config(backend(1))
    assert moved(row_of(one, one, set_admin_state("drain", "b1", None, 0.0))) == 100
