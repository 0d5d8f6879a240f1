"""Completion, as the shells themselves do it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lbmux.cli.main import run

BASH = """
eval "$(lbmux completion bash)"
COMP_WORDS=({words}) COMP_CWORD={at} COMP_LINE="{words}"
_lbmux_completion lbmux
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(*words: str) -> set[str]:
    script = BASH.format(words=" ".join(words), at=len(words) - 1)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=20, env={"PATH": path})
    return set(ran.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("lbmux", "de"), {"detach"}),
        (("lbmux", "config", "c"), {"check"}),
        (("lbmux", "mux", "--driver", "x"), {"xdp"}),
        (("lbmux", "lab", "run", "--no-h"), {"--no-hosts-help"}),
    ],
)
def test_bash_completes(words: tuple[str, ...], expected: set[str]) -> None:
    assert completed(*words) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert f"_LBMUX_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_another_shell_is_wrong_usage() -> None:
    assert run(["completion", "tcsh"]) == 2
