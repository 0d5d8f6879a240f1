"""The tree uses the words of docs/glossary.md, and none of those that they replaced."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import PAGES, ROOT, TUTORIAL

WORDS = Path(__file__).with_name("old_words.yaml")
OLD = yaml.safe_load(WORDS.read_text())
EXEMPT = {"CHANGELOG.md", str(WORDS.relative_to(ROOT)), str(Path(__file__).relative_to(ROOT))}
"""Files that have to name the old words."""
TEXT = {".py", ".md", ".yaml", ".yml", ".json", ".service", ".js", ".html", ".css", ".cfg", ".toml", ".8", ".5", ""}
NEVER = re.compile(r"\b(anew|nobody|somebody|whom)\b", re.IGNORECASE)
"""Words that no text in the tree contains; test names avoid those of NOT_IN_TEST_NAMES too."""
NOT_IN_TEST_NAMES = re.compile(
    r"(^|_)(told|heard|hears|gets_on|goes_on|mended|is_said|are_said)(_|$)|(?<!there)_(is|are)_(no|none)(?!_longer)(_|$)"
)
DEFINITION = re.compile(r"^\s*(?:class|(?:async )?def) (\w+)", re.MULTILINE)
FRAGMENT = re.compile(r"(Of|By|As|To|In|Less|Likewise|And|Or|Else|Nor|Until|Though|Where|Once)\b")
"""Words with which a docstring does not begin."""
STILTED = re.compile(r"\b(anew|nobody|somebody|gets on|hears of|so many|mend|at hand|stands in for)\b", re.IGNORECASE)


def tracked() -> list[Path]:
    """Files of the tree that people read."""
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    return [ROOT / name for name in listed if name and name not in EXEMPT and Path(name).suffix in TEXT]


@cache
def texts() -> dict[Path, str]:
    return {path: path.read_text(errors="replace") for path in tracked() if path.is_file()}


def defined(source: str) -> Iterator[str]:
    """Yield the names of classes and functions, also of those in a string of source text."""
    for name in DEFINITION.findall(source):
        yield name.strip("_")


@cache
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(text) for path, text in texts().items() if path.suffix == ".py"}


def bound(tree: ast.Module) -> Iterator[str]:
    """Yield the names of parameters, variables and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id.strip("_")
        elif isinstance(node, ast.arg):
            yield node.arg.strip("_")
        elif isinstance(node, ast.Attribute):
            yield node.attr.strip("_")


def docstrings(tree: ast.Module) -> Iterator[str]:
    """Yield the texts of all statements that are only a string: of modules, classes, functions and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value.strip()


def plain(text: str) -> str:
    """Return the text in one line, without comment marks."""
    return " ".join(word for word in text.split() if word not in ("#", "//", "*")).lower()


def test_names_are_found_in_source() -> None:
    assert {*defined("class A:\n  def _b(self): pass\nasync def c(): pass\n")} == {"A", "b", "c"}
    assert {*bound(ast.parse("def f(a, *, b=1):\n  c, (_d, *e) = self.g, h\n  for i in j: k: int = 1"))} == set(
        "abcdegik"
    )
    assert plain("# two\n  # Lines") == "two lines"


def test_no_name_is_an_old_one() -> None:
    names, modules = set(OLD["names"]), set(OLD["names"]) | set(OLD["modules"])
    sources = [path for path in tracked() if path.suffix == ".py" and path.exists()]
    old = [f"{path.relative_to(ROOT)}: module" for path in sources if path.stem in modules]
    old += [f"{path.relative_to(ROOT)}: {name}" for path in sources for name in defined(texts()[path]) if name in names]
    assert not old, "\n".join(old)


def test_no_text_has_an_old_phrase() -> None:
    phrases = [plain(phrase) for phrase in OLD["phrases"]]
    plain_texts = {path: plain(text) for path, text in texts().items()}
    old = [
        f"{path.relative_to(ROOT)}: {phrase}"
        for path, text in plain_texts.items()
        for phrase in phrases
        if phrase in text
    ]
    assert not old, "\n".join(old)


def test_no_text_has_an_old_label() -> None:
    labels = re.compile(rf"\b({'|'.join(OLD['labels'])})\b")
    old = [f"{path.relative_to(ROOT)}: {label}" for path, text in texts().items() for label in labels.findall(text)]
    assert not old, "\n".join(old)


def test_no_text_has_a_word_that_an_engineer_would_not_say() -> None:
    unusual = [f"{path.relative_to(ROOT)}: {word}" for path, text in texts().items() for word in NEVER.findall(text)]
    assert not unusual, "\n".join(unusual)


def test_no_test_has_a_riddle_for_a_name() -> None:
    sources = [path for path in tracked() if path.suffix == ".py" and path.is_relative_to(ROOT / "tests")]
    names = [(path, name) for path in sources for name in defined(texts()[path]) if name.startswith("test_")]
    riddles = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, name in names
        if NOT_IN_TEST_NAMES.search(name) or NEVER.search(name.replace("_", " "))
    ]
    assert not riddles, "\n".join(riddles)


@pytest.mark.slow
def test_no_docstring_begins_as_a_fragment() -> None:
    fragments = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"
        for path, tree in trees().items()
        for text in docstrings(tree)
        if FRAGMENT.match(text)
    ]
    assert not fragments, "\n".join(fragments)


@pytest.mark.slow
def test_no_variable_has_an_old_name() -> None:
    names = set(OLD["names"]) - set(OLD["variables"])
    old = [f"{path.relative_to(ROOT)}: {name}" for path, tree in trees().items() for name in names & {*bound(tree)}]
    assert not old, "\n".join(old)


def test_the_documentation_has_no_stilted_word() -> None:
    stilted = [f"{page.name}: {word}" for page in [*PAGES, TUTORIAL] for word in STILTED.findall(page.read_text())]
    assert not stilted, "\n".join(stilted)
