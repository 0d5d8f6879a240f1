"""The tutorial's commands, run in order, say what the tutorial says that they say.

A ``console`` block has commands behind ``$`` and lines of their output: each line should come, in this order, among
whatever else comes; runs of spaces count as one, and ``…`` stands for anything.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
TIMEOUT_S = 120
"""Time limit of one command: those that explain or forward compile first, which is slow on a busy machine."""


@dataclass
class Command:
    text: str
    said: list[str] = field(default_factory=list)

    def missing(self, output: str) -> str | None:
        """The first line that did not come, or came too early."""
        lines = iter([" ".join(line.split()) for line in output.splitlines()])
        for want in self.said:
            pattern = ".*".join(re.escape(part) for part in " ".join(want.split()).split("…"))
            if not any(re.fullmatch(pattern, line) for line in lines):
                return want
        return None


def commands(text: str) -> Iterator[Command]:
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        steps: list[Command] = []
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append(Command(line[2:]))
            else:
                steps[-1].said.append(line)
        yield from steps


def test_a_line_that_does_not_come_is_noticed() -> None:
    (command,) = commands("```console\n$ x\na … c\nd\n```\n")
    assert command.text == "x"
    assert command.missing("noise\na   b c\nnoise\nd\n") is None
    assert command.missing("d\na b c\n") == "d"
    assert command.missing("a b\n") == "a … c"


@pytest.mark.root
def test_every_command_says_what_the_tutorial_says() -> None:
    name = f"tutorial{os.getpid()}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    steps = list(commands(TUTORIAL.read_text()))
    assert len(steps) > 10

    def run(text: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-c", re.sub(r"\btutorial\b", name, text)], env=os.environ | {"PATH": path}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT_S,
        )  # fmt: skip

    try:
        for command in steps:
            ran = run(command.text)
            output = ran.stdout.replace(name, "tutorial")
            assert ran.returncode == 0, f"{command.text}\n{output}"
            assert command.missing(output) is None, f"{command.text}\nshould say: {command.missing(output)}\n{output}"
    finally:
        run("lbmux lab down --name tutorial")
