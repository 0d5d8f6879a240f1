"""Tests that need root are skipped without it; where all must run (CI), a skip is a failure."""

import gc
import logging
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lbmux.cli import logs

if TYPE_CHECKING:
    from tests.frames.pair import Pair

STARTS_DAEMONS = tuple(f"tests/{folder}/" for folder in ("bgp", "cli", "daemons", "docs", "lab", "tools"))
REQUIRE_ALL = os.environ.get("LBMUX_REQUIRE_ALL") == "1"
# Tests start hundreds of daemons, and each would compile all imports again; pytest compiles the tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
QUICK = "not root and not slow"
"""The tests of `make fast`."""
NEEDS_ROOT = "\npytestmark = pytest.mark.root\n"


def pytest_configure() -> None:
    """Some tests interrupt themselves, or what they started: also where we were started in the background of a shell,
    which has its children ignore that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()  # until `pytest_collection_finish`: imports create many objects and no garbage


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import files whose tests all need root for `make fast`, which would leave out each of them."""
    if config.option.markexpr != QUICK or not collection_path.name.startswith("test_"):
        return None
    return NEEDS_ROOT in collection_path.read_text() or None


@pytest.fixture(scope="session", autouse=True)
def warm_cache(request: pytest.FixtureRequest) -> None:
    """Compile before the first test that starts a daemon: a cold start takes longer than tests wait."""
    items = [item for item in request.session.items if item.nodeid.startswith(STARTS_DAEMONS)]
    if os.geteuid() == 0 and any(item.get_closest_marker("root") for item in items):
        from tests.warm_cache import warm

        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            warm(lambda line: print(line, flush=True))


@pytest.fixture
def pair() -> Iterator["Pair"]:
    """Two namespaces joined by a veth, as long as the test runs."""
    from tests.frames.pair import Pair

    made = Pair()
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture(autouse=True)
def no_log_is_left() -> Iterator[None]:
    """Restore logging: a command that ran in a test logs to that test's standard error, which is closed afterwards."""
    yield
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, logs.Text | logs.Json):
            root.removeHandler(handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


def pytest_collection_finish() -> None:
    """Exempt what collection has created from later garbage collections: a tenth of the time of all quick tests."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _fail_if_all_must_run(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A whole module can be skipped too (`importorskip`)."""
    report = yield
    if report.skipped:
        _fail_if_all_must_run(report)
    return report


def _fail_if_all_must_run(report: pytest.TestReport | pytest.CollectReport) -> None:
    if REQUIRE_ALL:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: skipped though LBMUX_REQUIRE_ALL=1: {reason}"
