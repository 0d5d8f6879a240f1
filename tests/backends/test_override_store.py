import errno
import logging
import os
from pathlib import Path

import pytest

from lbmux.backends.override_commands import add, set_admin_state, set_weight
from lbmux.backends.override_store import NotStoredError, OverrideStore
from lbmux.backends.overrides import Override, Overrides
from lbmux.config.models import Config
from tests.backends.test_override_commands import overridden
from tests.backends.test_overrides import TWO, backend, configured


def keep(path: Path, file: Config, overrides: Overrides) -> OverrideStore:
    book = OverrideStore(path, file)
    book.commit(overrides, book.prepare(overrides))
    return book


def test_overrides_survive_a_restart(tmp_path: Path) -> None:
    overrides = overridden(
        set_admin_state("drain", "b1", "web", 1), set_weight(9, "b2", None, 2), add("web", backend(9, weight=0), 3),
        set_admin_state("remove", "b2", None, 4),
    )  # fmt: skip
    keep(tmp_path / "orders", TWO, overrides)
    assert overrides.of and overrides.removals
    assert OverrideStore(tmp_path / "orders", TWO).overrides == overrides


def test_port_that_is_the_services(tmp_path: Path) -> None:
    file = configured({"name": "b1", "dip": "10.0.2.1"}, port="any")
    overrides = overridden(add("web", {"name": "b9", "dip": "10.0.2.9"}, 3), file=file)
    keep(tmp_path / "orders", file, overrides)
    assert OverrideStore(tmp_path / "orders", file).overrides == overrides


def test_a_file_that_changes_ends_obsolete_overrides(tmp_path: Path) -> None:
    keep(tmp_path / "orders", TWO, overridden(add("web", backend(9), 3), set_admin_state("remove", "b2", None, 4)))
    after = OverrideStore(tmp_path / "orders", configured(backend(1), backend(9)))
    assert not after.overrides.of and after.overrides.removals.keys() == {("web", "b2")}
    assert OverrideStore(tmp_path / "orders", configured(backend(1), name="other")).overrides == Overrides()


def test_no_file_before_the_first_override(tmp_path: Path) -> None:
    keep(tmp_path / "orders", TWO, Overrides())
    assert not (tmp_path / "orders").exists()


def test_file_of_an_earlier_version(tmp_path: Path) -> None:
    (tmp_path / "orders").write_text('[["web", "b1", "drain", 1.5]]')
    (override,) = OverrideStore(tmp_path / "orders", TWO).overrides.of.values()
    assert (override.admin_state, override.since) == ("drain", 1.5)


@pytest.mark.parametrize("text", [
    "", "{}]", "[1]", '[["web", "b1", "explode", 1]]', '[["web", "b1", null, 1, {"added": {"dip": "none"}}]]',
    "[" * 100_000, '[["web", "b1", "drain", 1' + "0" * 400 + "]]", '[["web", "b1", null, 1, {"weight": Infinity}]]',
    '[["web", "b1", "drain", 1e300]]',
    '[["web", "b1", "removing", 1]]',
    '[["web", "b1", "drain", 1, 2]]', '[["web", "b1", null, 1, {"weight": "many"}]]',
])  # fmt: skip
def test_file_that_cannot_be_used(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "orders").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert OverrideStore(tmp_path / "orders", TWO).overrides == Overrides()
    assert "is not valid" in caplog.text


DRAINED = overridden(set_admin_state("drain", "b1", "web", 1))


def is_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_overrides_that_cannot_be_written_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = keep(tmp_path / "orders", TWO, overridden(set_admin_state("drain", "b2", "web", 1)))
    before = (tmp_path / "orders").read_bytes()
    monkeypatch.setattr(os, "fsync", is_full)
    with pytest.raises(NotStoredError) as caught:
        book.prepare(DRAINED)
    assert str(caught.value) == (
        f"cannot store overrides in {tmp_path}/orders: No space left on device; nothing was changed"
    )
    assert book.is_stored and (tmp_path / "orders").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["orders"]


def test_a_discarded_change_leaves_nothing(tmp_path: Path) -> None:
    book = OverrideStore(tmp_path / "orders", TWO)
    book.discard(book.prepare(DRAINED))
    assert not list(tmp_path.iterdir())


def test_overrides_that_were_not_stored_are_stored_with_the_next(tmp_path: Path) -> None:
    book = OverrideStore(tmp_path / "orders", TWO)
    book.commit(DRAINED, None)
    assert not book.is_stored
    book.commit(DRAINED, book.prepare(DRAINED))
    assert book.is_stored and OverrideStore(tmp_path / "orders", TWO).overrides == DRAINED


def test_a_full_disk_at_the_start_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keep(tmp_path / "orders", TWO, overridden(set_admin_state("remove", "b2", None, 1)))
    monkeypatch.setattr(os, "fsync", is_full)
    assert not OverrideStore(tmp_path / "orders", configured(backend(1))).is_stored
    assert "the change lasts until a restart" in caplog.text


def test_ends_and_deadlines_outlive_the_daemon(tmp_path: Path) -> None:
    overrides = Overrides({("web", "b1"): Override(1.0, "drain", until=60.0, deadline=20.0)})
    keep(tmp_path / "orders", TWO, overrides)
    assert OverrideStore(tmp_path / "orders", TWO).overrides == overrides
