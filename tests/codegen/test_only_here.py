"""Only lbmux/codegen reaches into Numba and llvmlite."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "lbmux"
INSIDES = ("numba.core", "numba._", "numba.np", "llvmlite.ir.builder")


def _imported(path: Path) -> Iterator[str]:
    source = path.read_text()
    if "numba" not in source and "llvmlite" not in source:
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_other_package_imports_what_is_inside_numba() -> None:
    offenders = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if "codegen" not in path.parts
        for name in _imported(path)
        if name.startswith(INSIDES)
    ]
    assert offenders == []
