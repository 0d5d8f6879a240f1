"""Files of compiled code: whole and our own, or not read."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lbmux.codegen import sealed

DATA = bytes(range(256)) * 4
OTHER_USER = 65534


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    sealed.write(tmp_path / "code", DATA)
    return tmp_path / "code"


def test_only_its_owner_may_read_the_file(kept: Path) -> None:
    assert sealed.read(kept) == DATA
    assert kept.stat().st_mode & 0o777 == 0o600
    assert list(kept.parent.iterdir()) == [kept]


def test_a_missing_file_is_not_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert sealed.read(tmp_path / "none") is None
    assert not caplog.records


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)


def _of_another_name(path: Path) -> None:
    sealed.write(path.with_name("other"), DATA)
    os.replace(path.with_name("other"), path)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "is damaged"),
    "cut short": (lambda path: os.truncate(path, 700), "is damaged"),
    "in the digest": (lambda path: os.truncate(path, 10), "is damaged"),
    "a bit": (_flip, "is damaged"),
    "another name": (_of_another_name, "is damaged"),
    "writable by all": (lambda path: path.chmod(0o602), "is writable by others (mode 0602)"),
    "writable by the group": (lambda path: path.chmod(0o660), "is writable by others (mode 0660)"),
    "owner": (lambda path: os.chown(path, OTHER_USER, -1), f"belongs to user {OTHER_USER}"),
    "link": (lambda path: (path.rename(path.with_name("a")), path.symlink_to("a")), "Too many levels"),
    "pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "is not a regular file"),
    "directory": (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_an_unusable_file_is_reported_and_replaced(name: str, kept: Path, caplog: pytest.LogCaptureFixture) -> None:
    damage, why = DAMAGE[name]
    damage(kept)
    assert sealed.read(kept) is None and sealed.read(kept) is None
    assert len(caplog.records) == 1  # logged once
    assert f"{kept} {why}" in caplog.text and caplog.text.strip().endswith("recompiling")
    if name != "directory":
        sealed.write(kept, DATA)
        assert sealed.read(kept) == DATA


def test_a_full_disk_is_a_warning_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def is_full(*paths: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", is_full)
        sealed.write(tmp_path / "one", DATA)
        sealed.write(tmp_path / "two", DATA)
    assert caplog.text.count("cannot save compiled code: No space left on device") == 1
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_gone_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sealed.write(tmp_path / "gone" / "one", DATA)
    assert "cannot save compiled code: No such file or directory" in caplog.text
