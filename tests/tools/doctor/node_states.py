"""Situations as a daemon would tell them."""

from pathlib import Path
from typing import Any

from lbmux.tools.doctor.node_state import NodeState, Role


def node(role: Role, control: Path = Path("/nonexistent"), **known: Any) -> NodeState:
    """``known``: what would be read of the daemon or the file."""
    made = NodeState(role, control)
    made.__dict__.update(known)
    return made
