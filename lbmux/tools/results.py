"""Result files, as `lbmux lab run -w` and the bench write them: read for `lbmux plot` and for the page."""

import json
from pathlib import Path
from typing import Any

from lbmux.errors import LbmuxError

KINDS = {"outcomes": "`lbmux lab run`", "results": "the bench"}
"""The field of a file that has its lines, and which program writes it."""
MOST_BYTES = 1 << 26


def read_result(path: Path) -> dict[str, Any]:
    """A file's object, whose field of KINDS is a list of objects.  LbmuxError where it is anything else."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        said: Any = None if len(text) > MOST_BYTES else json.loads(text)
    except OSError as error:
        raise LbmuxError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise LbmuxError(f"{path}: not a result file: {str(error) or 'nested too deeply'}") from error
    if not isinstance(said, dict) or not kind_of(said):
        raise LbmuxError(f"{path}: neither results of {' nor of '.join(reversed(KINDS.values()))}")
    return said


def kind_of(said: dict[str, Any]) -> str | None:
    """Which of KINDS it is."""
    return next((kind for kind in KINDS if _are_lines(said.get(kind))), None)


def _are_lines(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(line, dict) for line in value)
