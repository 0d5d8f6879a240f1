"""docs/metrics.md is what the code says, and the code has a meaning for everything that it counts."""

import ast
import re
from pathlib import Path

from lbmux.datapath.tables import LOOKUPS
from lbmux.datapath.verdicts import Verdict
from lbmux.tools.metrics_page import page
from lbmux.tools.slow_path_counters import MEANINGS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "metrics.md"
SLOW_PATH = [*(ROOT / "lbmux" / "slowpath").glob("*.py"), *(ROOT / "lbmux" / "daemons").glob("*slow_path_io.py")]
COUNTING = re.compile(r"counts$|^_?drop(ped)?$|^answer$")


def counted(source: str) -> set[str]:
    """Names that a module counts by: subscripts of `counts`, arguments of what drops and answers, faults it returns."""
    names = set[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Subscript):
            name, values = getattr(node.value, "attr", ""), [node.slice]
        elif isinstance(node, ast.Call):
            name, values = getattr(node.func, "attr", ""), [*node.args]
        elif isinstance(node, ast.FunctionDef) and node.name == "_fault":
            name, values = "counts", [one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value]
        else:
            continue
        if COUNTING.search(name):
            names |= {one.value for one in values if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return names - {""}


def test_the_page_is_the_codes() -> None:
    assert PAGE.read_text() == page(), "run: python -m lbmux.tools.metrics_page > docs/metrics.md"


def test_every_verdict_and_look_up_has_a_meaning() -> None:
    meanings = [*(verdict.meaning for verdict in Verdict), *LOOKUPS.values()]
    assert all(meanings) and len(set(meanings)) == len(meanings)


def test_a_counter_is_found_in_source() -> None:
    source = "def f(self):\n    self.counts['a'] += 1\n    return self._dropped('b')\ndef _fault(p):\n    return 'c'\n"
    assert counted(source) == {"a", "b", "c"}


def test_every_counter_of_the_slow_path_has_a_meaning() -> None:
    names = set[str]().union(*(counted(path.read_text()) for path in SLOW_PATH))
    known = set[str]().union(*MEANINGS.values())
    assert len(names) > 40 and not names - known
