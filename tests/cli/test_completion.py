"""Completion, as the shells themselves do it."""

import os
import pty
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbmux.cli.main import run

BASH = """
eval "$(lbmux completion bash)"
COMP_WORDS=({words}) COMP_CWORD={at} COMP_LINE="{words}"
_lbmux_completion lbmux
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


PATH = f"{Path(sys.executable).parent}:/usr/bin:/bin"
FISH = "lbmux completion fish | source; complete --do-complete '{line}'"
# The typed text differs from the prompt that it produces.
ZSH = "autoload -U compinit; compinit -u; eval \"$(lbmux completion zsh)\"; PS1='do''ne> '"
TIMEOUT_S = 30.0
WORDS = [
    (("lbmux", "de"), {"detach"}),
    (("lbmux", "config", "c"), {"check"}),
    (("lbmux", "mux", "--driver", "x"), {"xdp"}),
    (("lbmux", "lab", "run", "--no-s"), {"--no-second-chance"}),
]


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


def said(*command: str) -> list[str]:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env={"PATH": PATH, "HOME": "/tmp"})
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


@needs("bash")
@pytest.mark.parametrize(("words", "expected"), WORDS)
def test_bash_completes(words: tuple[str, ...], expected: set[str]) -> None:
    script = BASH.format(words=" ".join(words), at=len(words) - 1)
    assert set(said("bash", "-c", script)) == expected


@needs("fish")
@pytest.mark.parametrize(("words", "expected"), WORDS)
def test_fish_completes(words: tuple[str, ...], expected: set[str]) -> None:
    """It prints what it would offer, each with its help behind a tab."""
    lines = said("fish", "--no-config", "-c", FISH.format(line=" ".join(words)))
    assert {line.partition("\t")[0] for line in lines} == expected


class Terminal:
    """A shell that runs as an interactive one."""

    def __init__(self, *command: str) -> None:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 200))  # no line is folded
        environment = {"PATH": PATH, "HOME": "/tmp", "TERM": "dumb", "ZDOTDIR": "/nonexistent"}
        self._process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)
        self._terminal, self._read = ours, ""

    def type(self, text: str, until: str) -> None:
        """Type, and wait for this on the screen."""
        self._read = ""
        os.write(self._terminal, text.encode())
        deadline = time.monotonic() + TIMEOUT_S
        while until not in self._read:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self._terminal], [], [], left)[0], self._read
            self._read += os.read(self._terminal, 4096).decode(errors="replace")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)


@pytest.fixture(scope="module")
def zsh() -> Iterator[Terminal]:
    terminal = Terminal("zsh", "-f", "-i")
    terminal.type(f"{ZSH}\n", "done> ")
    yield terminal
    terminal.close()


@needs("zsh")
@pytest.mark.parametrize(("words", "expected"), WORDS)
def test_zsh_completes(zsh: Terminal, words: tuple[str, ...], expected: set[str]) -> None:
    """The key completes the line if there is only one match."""
    (whole,) = expected
    zsh.type(" ".join(words) + "\t", f"{' '.join(words[:-1])} {whole} ")
    zsh.type("\x15\n", "done> ")  # the line is emptied


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert f"_LBMUX_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_another_shell_is_wrong_usage() -> None:
    assert run(["completion", "tcsh"]) == 2
