"""`lbmux explain` as people run it: the router's choice without a router, and what is wrong usage."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lbmux.cli.main import run
from tests.linux.inside import CONFIG

PACKET = "198.51.100.7:40000 > 192.0.2.1:80/tcp"
PACKET6 = "[2001:db8:7::7]:40000 > [2001:db8::80]:80/tcp"
MUXES = ["10.0.1.2", "10.0.2.2", "2001:db8:0:1::2"]


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "services.yaml"
    path.write_text(json.dumps(CONFIG | {"muxes": MUXES}))  # JSON is YAML, too
    return str(path)


def router(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(["explain", "-j", *arguments]) == 0
    return next(step for step in json.loads(capsys.readouterr().out)["steps"] if step["step"] == "router")


@pytest.mark.root
def test_the_muxes_of_a_configuration_are_a_seeded_routers_next_hops(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    choice = router(capsys, "-c", file, "--seed", "7", PACKET)
    assert choice["muxes"] == MUXES[:2] and choice["via"] in MUXES[:2]
    assert router(capsys, "-c", file, "--seed", "7", "--muxes", "10.0.2.2,10.0.1.2", PACKET)["via"] != choice["via"]
    assert router(capsys, "-c", file, "--seed", "7", PACKET6)["via"] == MUXES[2]


@pytest.mark.root
def test_without_the_right_to_make_a_namespace_it_says_so(file: str) -> None:
    line = [sys.executable, "-m", "lbmux.cli.main", "explain", "-c", file, "--seed", "7", PACKET]
    done = subprocess.run(["setpriv", "--bounding-set=-sys_admin", *line], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.endswith("a network namespace: Operation not permitted (--seed needs root)\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--seed", "7", "--router", "r1"),
        ("--muxes", "10.0.1.2"),
        ("--seed", "0"),
        ("--seed", "7", "--muxes", "mux1"),
        ("--seed", "7", "--muxes", "2001:db8::1"),
    ],
)
def test_wrong_usage(file: str, arguments: tuple[str, ...]) -> None:
    assert run(["explain", "-c", file, *arguments, PACKET]) == 2
