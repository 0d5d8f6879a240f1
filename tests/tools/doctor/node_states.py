"""Node states as a daemon would report them."""

from pathlib import Path
from typing import Any

from lbmux.tools.doctor.node_state import NodeState, Role
from tests.api.lines import runtime


def node(role: Role, control: Path = Path("/nonexistent"), **known: Any) -> NodeState:
    """``known``: what would be read of the daemon or the file; of its runtime the fields that matter."""
    state = NodeState(role, control)
    if known.get("runtime") is not None:
        known["runtime"] = runtime(**known["runtime"])
    state.__dict__.update(known)
    return state
