"""Snapshots of configurations: when they are used, and when they are not."""

import io
import os
import pickle
from pathlib import Path

import pytest

from lbmux.config import config_snapshot, loader
from lbmux.config.config_snapshot import ConfigSnapshot, ModelUnpickler
from lbmux.config.loader import SNAPSHOT_FROM_BYTES, load
from lbmux.errors import ConfigError

TEXT = """\
muxes: [10.0.1.2, "fd00::1"]
idle: {tcp_s: 60}
services:
  - name: web
    vip: 192.0.2.1
    protocol: tcp
    port: 80
    allow: [198.51.100.0/24]
    health: {kind: tcp}
    backends: [{dip: 10.1.1.2}, {name: h2, dip: 10.1.1.3, host: "2001:db8::3"}]
  - {name: dns, vip: "2001:db8::53", protocol: udp, port: 53, deny: ["2001:db8:1::/48"], backends: []}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration that is large enough for a snapshot."""
    monkeypatch.setattr(loader, "SNAPSHOT_FROM_BYTES", 1)
    path = tmp_path / "services.yaml"
    path.write_text(TEXT)
    return path


def snapshot_of(file: Path) -> Path:
    return file.with_name(".services.yaml.snapshot")


def loads_quickly(file: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the next load needs no YAML."""
    parsed: list[Path] = []
    parse = loader.parse
    with monkeypatch.context() as patch:
        patch.setattr(loader, "parse", lambda text, path: (parsed.append(path), parse(text, path))[1])
        load(file)
    return not parsed


def test_unchanged_file_is_not_parsed_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not loads_quickly(file, monkeypatch)
    assert loads_quickly(file, monkeypatch)
    again, parsed = load(file), loader.parse(TEXT.encode(), file)
    assert again == parsed
    assert again.model_dump_json(exclude_unset=True) == parsed.model_dump_json(exclude_unset=True)


def test_snapshot_is_private_and_alone_beside_the_file(file: Path) -> None:
    load(file)
    assert snapshot_of(file).stat().st_mode & 0o777 == 0o600
    assert {path.name for path in file.parent.iterdir()} == {"services.yaml", ".services.yaml.snapshot"}


def test_changed_file_is_parsed_and_its_errors_have_lines(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(file)
    before = snapshot_of(file).read_bytes()
    file.write_text(TEXT.replace("192.0.2.1", "192.0.2"))
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert [problem.line for problem in caught.value.problems] == [5]
    assert snapshot_of(file).read_bytes() == before
    file.write_text(TEXT.replace("port: 80", "port: 81"))
    assert load(file).services[0].port == 81
    assert loads_quickly(file, monkeypatch)


def test_snapshot_of_another_schema_or_version_is_replaced(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(file)
    monkeypatch.setattr(config_snapshot, "_schema", lambda: b"another")
    assert not loads_quickly(file, monkeypatch)
    assert loads_quickly(file, monkeypatch)


@pytest.mark.parametrize("at", [0, 40, 70, -1])
def test_damaged_snapshot_is_replaced(file: Path, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    load(file)
    content = bytearray(snapshot_of(file).read_bytes())
    content[at] ^= 1
    for damaged in (bytes(content), bytes(content[:-1]), b""):
        snapshot_of(file).write_bytes(damaged)
        assert not loads_quickly(file, monkeypatch)
        assert loads_quickly(file, monkeypatch)


def test_snapshot_that_others_may_write_or_that_is_a_link_is_not_used(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(file)
    snapshot_of(file).chmod(0o622)
    assert not loads_quickly(file, monkeypatch)
    snapshot_of(file).rename(file.with_name("moved"))
    snapshot_of(file).symlink_to("moved")
    assert not loads_quickly(file, monkeypatch)
    assert not snapshot_of(file).is_symlink()


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (Evil.target,)

    target = ""


@pytest.mark.parametrize("content", ["evil", Path("x"), {"services": []}])
def test_forged_snapshot_runs_nothing(file: Path, content: object, monkeypatch: pytest.MonkeyPatch) -> None:
    Evil.target = str(file.with_name("made"))
    stored = Evil() if content == "evil" else content
    snapshot = ConfigSnapshot(file, TEXT.encode())
    snapshot.write(stored)  # type: ignore[arg-type]
    assert snapshot.read() is None
    assert not loads_quickly(file, monkeypatch) and not Path(Evil.target).exists()


def test_only_models_and_addresses_are_made() -> None:
    for name in ("lbmux.config.loader load", "lbmux.config.models Iterator", "os system", "ipaddress ip_address"):
        module, _, attribute = name.partition(" ")
        with pytest.raises(pickle.UnpicklingError, match="is not part of a configuration"):
            ModelUnpickler(io.BytesIO()).find_class(module, attribute)


def test_snapshot_that_cannot_be_written_does_no_harm(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object, **names: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        assert len(load(file).services) == 2
    assert [path.name for path in file.parent.iterdir()] == ["services.yaml"]
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    assert len(load(file).services) == 2


def test_large_files_get_one_and_small_ones_do_not(tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    for text, names in ((TEXT, 1), (TEXT + "#" * SNAPSHOT_FROM_BYTES, 2)):
        path.write_text(text)
        load(path)
        assert len([*tmp_path.iterdir()]) == names


def test_pipe_is_read_once(file: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, TEXT.encode())
    os.close(writer)
    assert len(load(Path(f"/dev/fd/{reader}")).services) == 2
    os.close(reader)
