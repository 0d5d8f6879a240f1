"""The fields that the answers of a mux, an agent and an edge have in common."""

from dataclasses import dataclass

Key = tuple[str, str]
"""A backend's service and name."""


@dataclass(frozen=True)
class ProgramAnswer:
    """``version`` is that of the protocol; ``program``: mux, agent or edge."""

    version: int
    program: str
