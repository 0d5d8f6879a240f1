"""`import lbmux` is cheap, and has the names that it lists."""

import subprocess
import sys

import pytest

import lbmux


def test_import_loads_nothing_but_lbmux() -> None:
    code = "import sys; before = {*sys.modules}; import lbmux; print(*({*sys.modules} - before))"
    ran = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ran.stdout.split() == ["lbmux"]


@pytest.mark.parametrize("name", lbmux.__all__)
def test_each_name_is_documented(name: str) -> None:
    assert name in dir(lbmux) and getattr(lbmux, name).__doc__


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Maglevs'"):
        _ = lbmux.Maglevs  # type: ignore[attr-defined]
