"""The paths of control sockets."""

from pathlib import Path

import pytest

from lbmux.api import control_paths
from lbmux.api.control_paths import meant_path, named_targets


@pytest.mark.parametrize(
    ("running", "meant"),
    [("", "mux"), ("mux", "mux"), ("agent", "agent"), ("edge", "edge"), ("agent mux", "mux"), ("edge agent", "agent")],
)
def test_the_socket_that_is_meant(running: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_paths, "default_path", lambda program: tmp_path / f"{program}.sock")
    for program in running.split():
        (tmp_path / f"{program}.sock").touch()
    assert meant_path(None) == tmp_path / f"{meant}.sock"
    assert meant_path(Path("x.sock")) == Path("x.sock")


def test_sockets_of_one_name_are_called_by_their_paths() -> None:
    one, same, other = Path("/run/a/mux.sock"), Path("/run/b/mux.sock"), Path("/run/b/mux2.sock")
    assert named_targets([one, same, other]) == {str(one): one, str(same): same, "mux2": other}
