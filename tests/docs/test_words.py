"""The words of docs/glossary.md are in force: nothing in the tree has one of those that they replaced."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.docs.pages import PAGES, ROOT, TUTORIAL

WORDS = Path(__file__).with_name("old_words.yaml")
OLD = yaml.safe_load(WORDS.read_text())
EXEMPT = {"CHANGELOG.md", str(WORDS.relative_to(ROOT))}
"""What has to name the old words."""
TEXT = {".py", ".md", ".yaml", ".yml", ".json", ".service", ".js", ".html", ".css", ".cfg", ".toml", ".8", ".5", ""}
STILTED = re.compile(r"\b(anew|nobody|somebody|gets on|hears of|so many|mend|at hand|stands in for)\b", re.IGNORECASE)


def tracked() -> list[Path]:
    """Files of the tree that people read."""
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    return [ROOT / name for name in listed if name and name not in EXEMPT and Path(name).suffix in TEXT]


def defined(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name.strip("_")


def plain(text: str) -> str:
    """In one line, without the marks of comments."""
    return " ".join(word for word in text.split() if word not in ("#", "//", "*")).lower()


def test_names_are_found_in_source() -> None:
    assert {*defined("class A:\n  def _b(self): pass\nasync def c(): pass\n")} == {"A", "b", "c"}
    assert plain("# two\n  # Lines") == "two lines"


def test_no_name_is_an_old_one() -> None:
    names, modules = set(OLD["names"]), set(OLD["names"]) | set(OLD["modules"])
    sources = [path for path in tracked() if path.suffix == ".py" and path.exists()]
    found = [f"{path.relative_to(ROOT)}: module" for path in sources if path.stem in modules]
    found += [
        f"{path.relative_to(ROOT)}: {name}" for path in sources for name in defined(path.read_text()) if name in names
    ]
    assert not found, "\n".join(found)


def test_no_text_has_an_old_phrase() -> None:
    phrases = [plain(phrase) for phrase in OLD["phrases"]]
    texts = {path: plain(path.read_text(errors="replace")) for path in tracked() if path.is_file()}
    found = [
        f"{path.relative_to(ROOT)}: {phrase}" for path, text in texts.items() for phrase in phrases if phrase in text
    ]
    assert not found, "\n".join(found)


def test_the_documentation_has_no_stilted_word() -> None:
    found = [f"{page.name}: {word}" for page in [*PAGES, TUTORIAL] for word in STILTED.findall(page.read_text())]
    assert not found, "\n".join(found)
