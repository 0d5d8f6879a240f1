"""The hooks run the tools of `make check`, from this machine alone."""

from typing import Any

import yaml

from tests.source_tree import ROOT

HOOKS: dict[str, Any] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())


def test_hooks_are_local() -> None:
    assert {repo["repo"] for repo in HOOKS["repos"]} == {"local"}
    assert {hook["language"] for repo in HOOKS["repos"] for hook in repo["hooks"]} == {"system"}


def test_hooks_run_each_tool_of_make_check() -> None:
    checks = (ROOT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0]
    wanted = [line.partition("$(VENV)/")[2].replace(" --quiet", "").removesuffix(" .") for line in checks.splitlines()]
    entries = [hook["entry"].removeprefix(".venv/bin/") for repo in HOOKS["repos"] for hook in repo["hooks"]]
    assert entries == [line for line in wanted if line]
