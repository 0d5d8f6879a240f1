"""The text of each error, and the data that it carries."""

import ast
import builtins
import pickle
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path

import pytest

import lbmux
from lbmux.errors import (
    CaptureError,
    ConfigError,
    ControlError,
    LabError,
    LbmuxError,
    Problem,
    SetupError,
    TableError,
)

BUILT_IN = {name: value for name, value in vars(builtins).items() if isinstance(value, type)}
MAY_DEFINE_ERROR = re.compile(r"class \w+\([^)]*(Error|Exception|Warning|Interrupt|Iteration|Exit)")
EXCEPTIONS = {"LbmuxError", *(name for name, value in BUILT_IN.items() if issubclass(value, Exception))}
SAID = [
    (
        ConfigError(Path("a.yaml"), (Problem(3, "services[0].vip", "no"), Problem(None, "", "unreadable"))),
        "a.yaml:3: services[0].vip: no\na.yaml: unreadable",
    ),
    (SetupError("table of flows", "no memory", ""), "table of flows: no memory"),  # no hint
    (SetupError("packet socket", "not allowed", "run as root"), "packet socket: not allowed (run as root)"),
    (CaptureError(Path("a.pcap"), 40, "cut"), "a.pcap: at byte 40: cut"),
    (ControlError(Path("/run/m.sock"), "refused", ("one", "two")), "/run/m.sock: refused\none\ntwo"),
    (LabError("mux1", "gone"), "mux1: gone"),
    (LabError("", "no lab is up"), "no lab is up"),
    (TableError("backends", 20, 10), "backends: 20 entries needed, capacity 10"),
    (
        TableError("backends", 20, 10, 32),
        "backends: 20 entries needed, capacity 10; a restart raises the capacity to 32",
    ),
    (TableError("rows", 20, 10, 10), "rows: 20 entries needed, capacity 10; a restart does not raise the capacity"),
    (
        TableError("slots", 9, 10, 10),
        "slots: 9 entries needed, capacity 10, but too little of it is free; a restart does not raise the capacity",
    ),
]


@pytest.mark.parametrize(("error", "text"), SAID)
def test_an_error_says_one_clear_thing(error: LbmuxError, text: str) -> None:
    assert str(error) == text


@pytest.mark.parametrize("error", [error for error, _ in SAID])
def test_an_error_survives_pickling(error: LbmuxError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), vars(copy)) == (type(error), vars(error))


@pytest.mark.parametrize("error", [error for error, _ in SAID])
def test_an_error_is_a_frozen_dataclass(error: LbmuxError) -> None:
    assert is_dataclass(error)
    for field in fields(error):
        with pytest.raises(FrozenInstanceError, match=field.name):
            setattr(error, field.name, None)


def test_an_error_accepts_pythons_notes() -> None:
    """A context manager sets the traceback; ExitStack sets the context too."""
    error = LabError("mux1", "gone")
    with pytest.raises(LabError) as caught, passing(), ExitStack() as stack:
        stack.push(lambda *_: raised(LabError("mux2", "gone")))
        error.add_note("in a test")
        raise error
    assert str(caught.value) == "mux2: gone" and caught.value.__context__ is error
    assert error.__notes__ == ["in a test"]


@contextmanager
def passing() -> Iterator[None]:
    yield


def raised(error: LbmuxError) -> bool:
    raise error


def test_every_exception_of_the_tree_has_the_one_base() -> None:
    """Each is an LbmuxError, and leaves its making to the base."""
    for path in Path(lbmux.__file__).parent.rglob("*.py"):
        source = path.read_text()
        for node in ast.walk(ast.parse(source)) if MAY_DEFINE_ERROR.search(source) else ():
            if not isinstance(node, ast.ClassDef) or node.name == "LbmuxError":
                continue
            bases = {ast.unparse(base) for base in node.bases}
            is_error = bool(bases & EXCEPTIONS)
            assert not is_error or bases == {"LbmuxError"}, f"{path}: {node.name}"
            made_by = {one.name for one in node.body if isinstance(one, ast.FunctionDef)} & {"__init__", "__new__"}
            assert not is_error or not made_by, f"{path}: {node.name}"


def set_up_errors(source: str) -> Iterator[ast.Call]:
    """Every place where one is made."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "SetupError":
            yield node


def says_what_to_do(call: ast.Call) -> bool:
    hints = call.args[2:3] + [keyword.value for keyword in call.keywords if keyword.arg == "hint"]
    return bool(hints) and not (isinstance(hints[0], ast.Constant) and not hints[0].value)


def test_a_hint_that_is_missing_is_noticed() -> None:
    made = [*set_up_errors("SetupError(1, 2); SetupError(1, 2, ''); SetupError(1, 2, 'x'); SetupError(1, 2, hint=y)")]
    assert [says_what_to_do(call) for call in made] == [False, False, True, True]


def test_every_set_up_that_fails_says_what_to_do() -> None:
    files = [*Path(lbmux.__file__).parent.rglob("*.py")]
    sources = [(path, source) for path in files if "SetupError(" in (source := path.read_text())]
    calls = [(path, call) for path, source in sources for call in set_up_errors(source)]
    assert len(calls) > 40
    assert [f"{path}:{call.lineno}" for path, call in calls if not says_what_to_do(call)] == []
