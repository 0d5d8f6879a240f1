"""README and glossary stay short, and links lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, TUTORIAL

LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def test_the_readme_takes_five_minutes() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150 and len(text.split()) <= 1500


def test_the_glossary_has_at_most_40_lines() -> None:
    assert len((ROOT / "docs" / "glossary.md").read_text().splitlines()) <= 40


@pytest.mark.parametrize("page", [*PAGES, TUTORIAL], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(r"`((?:tests|lbmux|bench|prometheus|grafana|pcaps|docs)/[\w/.-]*)`", page.read_text())
    assert not [path for path in named if not (ROOT / path).exists()]
