"""The suite's own rules: what is skipped without root, and that CI does not let a skip pass."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
SUITES = {
    "marked": "import pytest\n@pytest.mark.skip(reason='no disk')\ndef test_it(): pass\n",
    "called": "import pytest\ndef test_it(): pytest.skip('no disk')\n",
    "module": "import pytest\npytest.skip('no disk', allow_module_level=True)\n",
    "expected": "import pytest\n@pytest.mark.xfail\ndef test_it(): assert False\n",
}
NEEDS_ROOT = "import pytest\npytestmark = pytest.mark.root\nraise SystemExit('imported')\n"
OUTCOME = re.compile(r"^(FAILED|ERROR|SKIPPED|XFAIL)\b.*?\btest_(\w+)\.py.*", re.MULTILINE)


Outcomes = Callable[[str], dict[str, tuple[str, str]]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Outcome and line of each suite where a skip fails ("1") and where it does not ("0"); each runs all of them."""
    directory = tmp_path_factory.mktemp("suites")
    (directory / "conftest.py").write_text(CONFTEST.read_text())
    for name, source in SUITES.items():
        (directory / f"test_{name}.py").write_text(source)

    @cache
    def run(require_all: str) -> dict[str, tuple[str, str]]:
        command = [sys.executable, "-m", "pytest", "-q", "-rfEsx", "-p", "no:cacheprovider", "-p", "no:xdist"]
        command.append("--continue-on-collection-errors")
        environment = os.environ | {"LBMUX_REQUIRE_ALL": require_all, "COLUMNS": "200"}
        ran = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60)
        return {match[2]: (match[1], match[0]) for match in OUTCOME.finditer(ran.stdout)}

    return run


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["marked", "called", "module"])
def test_a_skip_fails_where_all_must_run(outcomes: Outcomes, suite: str) -> None:
    outcome, line = outcomes("1")[suite]
    assert outcome in ("FAILED", "ERROR") and "no disk" in line


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["marked", "called", "module"])
def test_outside_ci_a_skip_is_only_a_skip(outcomes: Outcomes, suite: str) -> None:
    assert outcomes("0")[suite][0] == "SKIPPED"


@pytest.mark.slow
@pytest.mark.parametrize("require_all", ["0", "1"])
def test_an_expected_failure_is_not_a_skip(outcomes: Outcomes, require_all: str) -> None:
    assert outcomes(require_all)["expected"][0] == "XFAIL"


@pytest.mark.slow
def test_make_fast_does_not_import_files_that_need_root(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    (tmp_path / "test_root.py").write_text(NEEDS_ROOT)
    (tmp_path / "test_quick.py").write_text("def test_it(): pass\n")
    marks = re.findall(r'-m "([^"]+)"', (CONFTEST.parents[1] / "Makefile").read_text())
    for selected, is_imported in ((*marks, False), ("not root", True)):
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", selected]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert ("imported" in ran.stdout + ran.stderr) == is_imported
        assert ("1 passed" in ran.stdout) != is_imported
