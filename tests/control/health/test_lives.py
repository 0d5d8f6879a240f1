import logging
from pathlib import Path

import pytest

from lbmux.control.health.lives import Lives, UnknownBackendError

from .test_effective import configured

KEY = ("web", "b1")


def lives(path: Path, now: float = 0.0) -> Lives:
    made = Lives(path / "orders", lambda: now)
    made.configure(configured({"rise": 1, "fall": 2, "watermark": 0.5}))
    return made


def line(made: Lives, name: str = "b1") -> dict[str, str]:
    (found,) = (one for one in made.lines(configured({"watermark": 0.5})) if one["backend"] == name)
    return found


def test_down_with_reason_and_time(tmp_path: Path) -> None:
    made = lives(tmp_path, 86400)
    assert [made.heard(KEY, False, "refused") for _ in range(3)] == [False, True, False]
    assert made.down == {KEY}
    assert line(made) == {
        "service": "web", "backend": "b1", "state": "down", "reason": "refused", "since": "1970-01-02T00:00:00Z",
        "dip": "10.0.2.1", "port": 80, "host": "10.0.2.1", "weight": 5, "tunnel": "ipip",
    }  # fmt: skip


def test_a_reload_keeps_what_is_known(tmp_path: Path) -> None:
    made = lives(tmp_path)
    made.heard(KEY, False, "refused")
    made.heard(KEY, False, "refused")
    made.configure(configured({"rise": 3}))
    assert made.down == {KEY}
    made.configure(configured(None))
    assert made.down == set()


def test_result_of_a_backend_that_has_gone(tmp_path: Path) -> None:
    assert not lives(tmp_path).heard(("web", "gone"), False, "refused")


def test_below_the_watermark_the_reason_says_so(tmp_path: Path) -> None:
    made = lives(tmp_path)
    for name in ("b1", "b2", "b3"):
        made.heard(("web", name), False, "refused")
        made.heard(("web", name), False, "refused")
    assert line(made)["reason"] == "refused; kept, since too few seem healthy"


def test_orders_outlive_the_daemon(tmp_path: Path) -> None:
    config = configured({})
    made = lives(tmp_path)
    assert made.order(config, "drain", "b1") == [KEY]
    made.order(config, "disable", "b2", "web")
    made.order(config, "drain", "b3")
    made.order(config, None, "b3")
    again = lives(tmp_path)
    assert again.orders == {KEY: "drain", ("web", "b2"): "disable"}
    assert [line(again, name)["state"] for name in ("b1", "b2", "b3")] == ["draining", "disabled", "up"]


@pytest.mark.parametrize(("backend", "service"), [("b9", None), ("b1", "mail")])
def test_order_for_an_unknown_backend(tmp_path: Path, backend: str, service: str | None) -> None:
    with pytest.raises(UnknownBackendError, match="lbmux show health"):
        lives(tmp_path).order(configured({}), "drain", backend, service)
    assert not (tmp_path / "orders").exists()


@pytest.mark.parametrize("text", ["", "{}]", "[1]", '[["web", "b1", "explode", 1]]'])
def test_file_that_cannot_be_used(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "orders").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert lives(tmp_path).orders == {}
    assert "nothing is drained or disabled" in caplog.text
