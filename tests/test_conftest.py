"""The suite's own rules: what is skipped without root, and that CI does not let a skip pass."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
SUITES = {
    "marked": "import pytest\n@pytest.mark.skip(reason='no disk')\ndef test_it(): pass\n",
    "called": "import pytest\ndef test_it(): pytest.skip('no disk')\n",
    "module": "import pytest\npytest.skip('no disk', allow_module_level=True)\n",
}


def run_suite(directory: Path, source: str, require_all: str) -> subprocess.CompletedProcess[str]:
    (directory / "conftest.py").write_text(CONFTEST.read_text())
    (directory / "test_it.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(directory)]
    environment = os.environ | {"LBMUX_REQUIRE_ALL": require_all}
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("source", SUITES.values(), ids=SUITES)
def test_a_skip_fails_where_all_must_run(tmp_path: Path, source: str) -> None:
    ran = run_suite(tmp_path, source, "1")
    assert ran.returncode not in (0, 5), ran.stdout
    assert "no disk" in ran.stdout


@pytest.mark.parametrize("source", SUITES.values(), ids=SUITES)
def test_outside_ci_a_skip_is_only_a_skip(tmp_path: Path, source: str) -> None:
    ran = run_suite(tmp_path, source, "0")
    assert "1 skipped" in ran.stdout


def test_an_expected_failure_is_not_a_skip(tmp_path: Path) -> None:
    source = "import pytest\n@pytest.mark.xfail\ndef test_it(): assert False\n"
    assert run_suite(tmp_path, source, "1").returncode == 0
