"""Situations as a daemon would tell them."""

from pathlib import Path
from typing import Any

from lbmux.tools.doctor.situation import Role, Situation


def situation(role: Role, control: Path = Path("/nonexistent"), **known: Any) -> Situation:
    """``known``: what would be read of the daemon or the file."""
    made = Situation(role, control)
    made.__dict__.update(known)
    return made
