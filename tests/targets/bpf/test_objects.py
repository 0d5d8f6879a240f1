"""Objects of kernel programs: compiled once, the same whatever this process has compiled for itself."""

import errno
import os
from pathlib import Path

import pytest

from lbmux.codegen import cache, sealed
from lbmux.targets.bpf import objects
from lbmux.targets.bpf.objects import CompileError, compiled
from tests.datapath.harness import Frames, Machine


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A program that the compiler's process has made."""
    directory = tmp_path_factory.mktemp("made")
    compiled.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "directory", lambda: directory)
        compiled("clock_xdp")
    data = sealed.read(next(directory.iterdir()))
    assert data is not None
    return data


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, empty."""
    monkeypatch.setattr(cache, "directory", lambda: tmp_path)
    compiled.cache_clear()


@pytest.mark.slow
def test_native_code_in_this_process_makes_no_difference(tmp_path: Path) -> None:
    compiled("clock_xdp")
    (before,) = [path.read_bytes() for path in tmp_path.iterdir()]
    Machine.make().worker.forward(Frames([bytes(60)]), 1)
    compiled.cache_clear()
    for path in tmp_path.iterdir():
        path.unlink()
    compiled("clock_xdp")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


@pytest.mark.slow
def test_a_compile_error_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"^no_such_thing cannot be compiled for the kernel: .*no_such_thing"):
        compiled("no_such_thing")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"\x7fELF", bytes(5000)])
def test_a_damaged_object_is_compiled_again(
    content: bytes, made: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compilations = list[str]()
    monkeypatch.setattr(objects, "_compile", lambda module, function: (compilations.append(function), made)[1])
    wanted = compiled("clock_xdp")
    (path,) = tmp_path.iterdir()
    assert sealed.read(path) == made
    path.write_bytes(content)
    for _ in range(2):
        compiled.cache_clear()
        assert compiled("clock_xdp").data == wanted.data
    assert compilations == ["clock_xdp"] * 2


@pytest.mark.slow
def test_neither_a_full_disk_nor_no_cache_is_an_error(made: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(objects, "_compile", lambda *_: made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", is_full)
        wanted = compiled("clock_xdp")
    monkeypatch.setattr(cache, "directory", lambda: None)
    compiled.cache_clear()
    assert compiled("clock_xdp").data == wanted.data
