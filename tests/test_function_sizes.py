"""Outside compiled steps, a function has at most 40 lines and eight parameters; exceptions give their reason here."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.source_tree import ROOT, decorators, files, functions, is_compiled, parameters

MOST_LINES, MOST_PARAMETERS = 40, 8
TREE = files("lbmux", "bench", "pcaps", "tests")
ALLOWED = {
    ("tests/datapath/plain_tunnel.py", "encapsulate"): "as the compiled step: all that a backend's row says",
}


def beyond(source: str) -> Iterator[str]:
    """Names of a file's functions that are too large."""
    for function in functions(source):
        lines = (function.end_lineno or 0) - function.lineno + 1
        count = len(parameters(function))
        if "command" in decorators(function):
            count = 0  # click passes each option of a command as a parameter
        if not is_compiled(function) and (lines > MOST_LINES or count > MOST_PARAMETERS):
            yield function.name


def too_large(paths: Iterable[Path]) -> set[tuple[str, str]]:
    return {(str(path), name) for path in paths for name in beyond((ROOT / path).read_text())}


@pytest.mark.slow
def test_no_function_is_too_large() -> None:
    assert too_large(TREE) - ALLOWED.keys() == set()


def test_every_exception_is_needed() -> None:
    assert ALLOWED.keys() - too_large({Path(path) for path, _ in ALLOWED}) == set()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(a, b, c, d, e, f, g, h): pass", []),
        ("def f(a, b, c, d, e, f, g, h, *i): pass", ["f"]),
        ("class C:\n    def f(self, a, b, c, d, e, f, g, h): pass", []),
        ("@step\ndef f(a, b, c, d, e, f, g, h, i): pass", []),
        ("@click.command(name='x')\ndef f(a, b, c, d, e, f, g, h, i): pass", []),
        ("def f():\n" + "    pass\n" * 39, []),
        ("async def f():\n" + "    pass\n" * 40, ["f"]),
    ],
)
def test_lines_and_parameters_are_counted(source: str, expected: list[str]) -> None:
    assert [*beyond(source)] == expected


def test_the_whole_tree_is_checked() -> None:
    assert Path("lbmux/daemons/mux_daemon.py") in TREE and len(TREE) > 500
