"""Objects of kernel programs: compiled once, the same whatever this process has compiled for itself."""

from pathlib import Path

import pytest

from lbmux.targets import cache
from lbmux.targets.bpf.objects import CompileError, compiled
from tests.datapath.harness import Frames, Machine


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, empty."""
    monkeypatch.setattr(cache, "directory", lambda: tmp_path)
    compiled.cache_clear()


def test_native_code_in_this_process_makes_no_difference(tmp_path: Path) -> None:
    compiled("clock_xdp")
    (before,) = [path.read_bytes() for path in tmp_path.iterdir()]
    Machine.make().worker.forward(Frames([bytes(60)]), 1)
    compiled.cache_clear()
    for path in tmp_path.iterdir():
        path.unlink()
    compiled("clock_xdp")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_what_cannot_be_compiled_is_said(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="^no_such_thing cannot be compiled for the kernel: .*no_such_thing"):
        compiled("no_such_thing")
    assert list(tmp_path.iterdir()) == []
