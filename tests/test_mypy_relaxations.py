"""Type checks are strict; files with compiled steps, named in pyproject.toml, may leave their types to Numba."""

import tomllib
from typing import Any

import pytest

from tests.source_tree import ROOT, files, functions, is_compiled, parameters

MYPY: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
FOREIGN = {"module", "ignore_missing_imports", "follow_imports"}
"""The setting for packages without types."""
(RELAXED,) = (override for override in MYPY["overrides"] if override.keys() - FOREIGN)
IGNORED = "# type: ignore[no-untyped-def]"


def test_types_are_strict() -> None:
    assert MYPY["strict"] and MYPY["files"] == ["lbmux"]
    assert not [path for path in files("lbmux") if "# mypy:" in (ROOT / path).read_text()]


def test_only_compiled_steps_are_without_types() -> None:
    assert RELAXED.keys() == {
        "module", "disallow_untyped_defs", "disallow_incomplete_defs", "disallow_untyped_calls",
    }  # fmt: skip


@pytest.mark.parametrize("module", RELAXED["module"])
def test_a_relaxed_file_has_compiled_steps(module: str) -> None:
    """One at least without types; and a file's own name, not a pattern."""
    source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text()
    steps = [one for one in functions(source) if is_compiled(one)]
    assert any(parameter.annotation is None for one in steps for parameter in parameters(one))


def test_outside_the_listed_files_only_compiled_functions_are_untyped() -> None:
    wrong = []
    for path in files("lbmux"):
        lines = (ROOT / path).read_text().splitlines()
        ignored = {number for number, line in enumerate(lines, 1) if IGNORED in line}
        if not ignored:
            continue
        compiled = {one.lineno for one in functions("\n".join(lines)) if is_compiled(one)}
        wrong += [f"{path}:{number}" for number in sorted(ignored - compiled)]
    assert wrong == []
