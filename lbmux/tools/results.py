"""Read result files of `lbmux lab run`, the bench and `lbmux simulate`, for `lbmux plot` and for the web page."""

import json
from pathlib import Path
from typing import Any

from lbmux.errors import LbmuxError

KINDS = {"outcomes": "`lbmux lab run`", "results": "the bench", "panels": "`lbmux simulate`"}
"""The field with a file's rows, and the program that writes such files."""
MOST_BYTES = 1 << 26


def read_result(path: Path) -> dict[str, Any]:
    """Return a file's object, with a list of objects in a field of KINDS.  Raise LbmuxError if it is anything else."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        document: Any = None if len(text) > MOST_BYTES else json.loads(text)
    except OSError as error:
        raise LbmuxError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else "it is not JSON"
        raise LbmuxError(f"{path}: not a result file: {why}") from error
    if not isinstance(document, dict) or not kind_of(document):
        raise LbmuxError(f"{path}: not results of {' or of '.join(reversed(KINDS.values()))}")
    return document


def kind_of(document: dict[str, Any]) -> str | None:
    """Return the key of KINDS that the object has; None if it has none."""
    return next((kind for kind in KINDS if _are_lines(document.get(kind))), None)


def _are_lines(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(line, dict) for line in value)
