"""Where compiled code is kept."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbmux.targets import cache


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """The directory is chosen once in a process: not by these tests for others."""
    cache.directory.cache_clear()
    yield
    cache.directory.cache_clear()


def test_the_place_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBMUX_CACHE", str(tmp_path / "kept"))
    assert cache.directory() == tmp_path / "kept" / cache.digest()
    assert cache.directory().is_dir()


def test_else_it_is_the_user_s_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LBMUX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.directory().parent == tmp_path / "lbmux"
    cache.directory.cache_clear()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.directory().parent == tmp_path / ".cache" / "lbmux"


def test_a_place_that_cannot_be_made_gives_a_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LBMUX_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache.directory().parent.name.startswith("lbmux-cache-")


def test_every_change_of_a_source_gives_another_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a file that is only inlined into another: Numba itself would not notice."""
    for layer in ("datapath", "targets"):
        (tmp_path / layer / "bpf").mkdir(parents=True)
    monkeypatch.setattr(cache, "PACKAGE", tmp_path)
    digests = [cache.digest()]
    for name in ("datapath/flows.py", "targets/native.py", "targets/bpf/compiler.py"):
        (tmp_path / name).write_text("one = 1")
        digests.append(cache.digest())
        (tmp_path / name).write_text("one = 2")
        digests.append(cache.digest())
    assert len(set(digests)) == 7
    (tmp_path / "datapath" / "notes.txt").write_text("no source")
    assert cache.digest() == digests[-1]


def test_only_the_last_few_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBMUX_CACHE", str(tmp_path))
    for age in range(8):
        old = tmp_path / f"old{age}"
        old.mkdir()
        os.utime(old, (1000 - age, 1000 - age))
    (tmp_path / "a file").write_text("not ours")
    here = cache.directory()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {here.name, "old0", "old1", "old2", "a file"}
    assert len(left) - 1 == cache.KEPT


USE = """
import sys, time
from lbmux.targets.native import Worker
from lbmux.targets.regions import Tables
from lbmux.datapath.tables import Sizes
from lbmux.frames.batch import Batch
start = time.perf_counter()
Worker(Tables.allocate(Sizes(64, 4, 16, 4, 4))).forward(Batch(), 1)
print(time.perf_counter() - start, "numba.np.linalg" in sys.modules)
"""
"""The last of what it says: whether Numba has loaded what it needs to compile."""


def test_a_second_process_finds_the_compiled_code(tmp_path: Path) -> None:
    """So a mux forwards soon after its start; how soon the bench says (startup).  What compiles is not loaded then."""
    environment = os.environ | {"LBMUX_CACHE": str(tmp_path)}

    def first_call() -> tuple[float, bool]:
        root = Path(cache.__file__).parents[2]
        done = subprocess.run(
            [sys.executable, "-c", USE], env=environment, cwd=root, check=True, capture_output=True, text=True
        )
        took_s, has_compiler = done.stdout.split()
        return float(took_s), has_compiler == "True"

    (compiled_s, compiles), (found_s, finds_by_compiler) = first_call(), first_call()
    assert found_s < compiled_s / 3
    assert compiles and not finds_by_compiler
