"""The source tree as syntax: what the tests of its own rules look at."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
Function = ast.FunctionDef | ast.AsyncFunctionDef
COMPILERS = {"step", "compiled", "compiled_nogil", "njit", "intrinsic", "overload"}
"""Decorators of functions that Numba compiles."""


def files(*folders: str) -> list[Path]:
    """Python files below ``folders``, relative to the root."""
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


def functions(source: str) -> Iterator[Function]:
    """Every function of a file, also those within others."""
    return _functions(ast.parse(source).body)


def _functions(statements: list[ast.AST]) -> Iterator[Function]:
    """Look into statements only: no expression has a function with a name, and most nodes are expressions."""
    for statement in statements:
        if isinstance(statement, Function):
            yield statement
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _functions(getattr(statement, field, []))


def decorators(function: Function) -> set[str]:
    """The last name of each decorator: `command` for `@click.command(...)`."""
    called = (node.func if isinstance(node, ast.Call) else node for node in function.decorator_list)
    return {ast.unparse(node).rpartition(".")[2] for node in called}


def is_compiled(function: Function) -> bool:
    return bool(decorators(function) & COMPILERS)


def parameters(function: Function) -> list[ast.arg]:
    """All that a caller gives: not ``self`` or ``cls``."""
    arguments = function.args
    more = [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *more]
    return named[1:] if named and named[0].arg in ("self", "cls") else named
