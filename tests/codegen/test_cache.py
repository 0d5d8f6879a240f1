"""The directory of compiled code."""

import errno
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lbmux.codegen import cache, sealed
from lbmux.codegen.compiled import compiled, load_cached


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """The directory is chosen once in a process: not by these tests for others."""
    cache.directory.cache_clear()
    yield
    cache.directory.cache_clear()


def test_the_environment_selects_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_only_this_user_may_enter_the_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBMUX_CACHE", str(tmp_path / "above" / "kept"))
    here = cache.directory()
    assert here is not None
    assert [path.stat().st_mode & 0o777 for path in (here.parent, here)] == [0o700, 0o700]


def _loose(path: Path) -> None:
    path.mkdir(parents=True)
    path.chmod(0o777)


def _foreign(path: Path) -> None:
    path.mkdir(parents=True)
    os.chown(path, 65534, 65534)


def _file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")


UNSAFE: dict[str, tuple[Callable[[Path], object], str]] = {
    "loose": (_loose, "is writable by others (mode 0777)"),
    "foreign": (_foreign, "belongs to user 65534"),
    "file": (_file, "is not a directory"),
}


@pytest.mark.parametrize("depth", ["root", "digest"])
@pytest.mark.parametrize("name", UNSAFE)
def test_no_cache_where_others_could_write(
    name: str, depth: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make, why = UNSAFE[name]
    root = tmp_path / "kept"
    monkeypatch.setenv("LBMUX_CACHE", str(root))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    make(root if depth == "root" else root / cache.digest())
    before = sorted(tmp_path.rglob("*"))
    assert cache.directory() is None
    assert why in caplog.text and "cannot cache compiled code" in caplog.text
    assert sorted(tmp_path.rglob("*")) == before  # no temporary file is left, nothing is deleted


@pytest.mark.parametrize("name", ["loose", "foreign"])
def test_no_cache_where_others_could_replace_its_directory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make, why = UNSAFE[name]
    make(tmp_path / "theirs")
    (tmp_path / "theirs" / "deep").mkdir()
    (tmp_path / "link").symlink_to("theirs/deep")
    for root in (tmp_path / "theirs" / "deep" / "kept", tmp_path / "link" / "kept"):
        caplog.clear()
        cache.directory.cache_clear()
        monkeypatch.setenv("LBMUX_CACHE", str(root))
        assert cache.directory() is None
        assert f"{tmp_path}/theirs {why}" in caplog.text
        assert not root.exists()


def test_a_link_in_place_of_our_directory_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBMUX_CACHE", str(tmp_path))
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / cache.digest()).symlink_to("elsewhere")
    assert cache.directory() is None


def test_a_sticky_directory_of_root_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    monkeypatch.setenv("LBMUX_CACHE", str(tmp_path / "tmp"))
    assert cache.directory() == tmp_path / "tmp" / cache.digest()


def _read_only(*_: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_ready_code_on_a_read_only_file_system_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBMUX_CACHE", str(tmp_path / "kept"))
    ready = cache.directory()
    cache.directory.cache_clear()
    for function in ("utime", "replace", "unlink", "rmdir"):
        monkeypatch.setattr(os, function, _read_only)
    assert ready is not None and cache.directory() == ready


def test_a_directory_that_cannot_be_made_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LBMUX_CACHE", str(tmp_path / "file" / "below"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache.directory() is None
    assert "cannot cache compiled code" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def doubled(value):  # type: ignore[no-untyped-def]
    return 2 * value


def hits(function: Any = doubled) -> int:
    """How often a new process would find what it needs."""
    dispatcher = compiled(function)
    assert dispatcher(21) == 42
    return sum(dispatcher.stats.cache_hits.values())


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("LBMUX_CACHE", str(tmp_path / "kept"))
    assert (hits(), hits()) == (0, 1)
    paths = [path for path in (tmp_path / "kept").rglob("*.nb?")]
    assert {path.suffix for path in paths} == {".nbi", ".nbc"}
    return paths


@pytest.mark.usefixtures("files")
def test_a_process_may_load_all_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbmux.codegen.compiled._cached", [])
    dispatcher = compiled(doubled)
    load_cached()
    assert len(dispatcher.signatures) == 1
    assert dispatcher(21) == 42 and sum(dispatcher.stats.cache_hits.values()) == 1


def test_loading_all_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBMUX_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("lbmux.codegen.compiled._cached", [])
    dispatcher = compiled(doubled)
    load_cached()
    assert dispatcher.signatures == []


class Planted:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["PLANTED"],)


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("content", [b"", b"\x80", b"\0" * 1000, pickle.dumps("another")])
def test_damage_is_compiled_again(suffix: str, content: bytes, files: list[Path]) -> None:
    for path in files:
        if path.suffix == suffix:
            path.write_bytes(content)
    assert (hits(), hits()) == (0, 1)


@pytest.mark.parametrize("by", ["owner", "mode", "no digest"])
def test_planted_code_does_not_run(by: str, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", str(tmp_path / "ran"))
    for path in files:
        if by == "no digest":
            path.write_bytes(pickle.dumps(Planted()))
        else:
            sealed.write(path, pickle.dumps(Planted()))
        if by == "owner":
            os.chown(path, 65534, 65534)
        if by == "mode":
            path.chmod(0o666)
    assert hits() == 0
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_does_not_keep_code_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LBMUX_CACHE", str(tmp_path / "full"))
    monkeypatch.setattr(os, "replace", _read_only)
    assert (hits(), hits()) == (0, 0)
    assert "cannot save compiled code" in caplog.text


def test_without_a_cache_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LBMUX_CACHE", str(tmp_path / "file"))
    assert (hits(), hits()) == (0, 0)


def test_every_change_of_a_source_gives_another_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is only inlined into another counts too; Numba alone would not notice a change of it."""
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


def test_only_the_last_few_of_our_own_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LBMUX_CACHE", str(tmp_path))
    for age in range(8):
        old = tmp_path / f"{age:016x}"
        old.mkdir()
        (old / cache.TAG).write_bytes(cache.SIGNATURE)
        os.utime(old, (1000 - age, 1000 - age))
    others = {f"{0xA:016x}", "photos"}
    for name in others:
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1, 1))
    (tmp_path / "a file").write_text("not ours")
    here = cache.directory()
    assert here is not None
    assert {path.name for path in tmp_path.iterdir()} == others | {here.name, "a file"} | {
        f"{age:016x}" for age in range(cache.MAX_VERSIONS - 1)
    }


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


@pytest.mark.slow
def test_a_second_process_finds_the_compiled_code(tmp_path: Path) -> None:
    """With a cache, a mux forwards soon after its start (the bench's part `startup` measures it), and loads no
    compiler.
    """
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
