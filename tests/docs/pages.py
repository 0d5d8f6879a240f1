"""The pages of the documentation, and what is in them: commands, and blocks by language."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted({*(ROOT / "docs").glob("*.md")} - {TUTORIAL})]
"""All but the tutorial, whose commands have a test of their own."""
FENCED = re.compile(r"^```(\w*)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4,}(\S.*)$", re.MULTILINE)
COMMENT = re.compile(r"\s+# .*")
INLINE = re.compile(r"`(lbmux [^`]+)`")
PROGRAMS = ("lbmux", "make", ".venv/bin/python", "ip", "ethtool", "systemctl", "grep", "echo")


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in FENCED.findall(page.read_text()) if kind == language]


def commands(text: str) -> Iterator[str]:
    """Commands that stand on lines of their own, in the page's order, without their comments."""
    shell = "".join(
        f"    {line}\n" for kind, block in FENCED.findall(text) if kind == "shell" for line in block.split("\n")
    )
    for line in INDENTED.findall(FENCED.sub("", text) + shell):
        command = COMMENT.sub("", line).strip()
        if command.split()[0] in PROGRAMS:
            yield command


def inline(text: str) -> set[str]:
    """Commands inside sentences: often without their arguments."""
    return {" ".join(command.split()) for command in INLINE.findall(FENCED.sub("", text))}
