"""Changes of the configuration, made or planned."""

from dataclasses import dataclass

from lbmux.api.answers.program_answer import ProgramAnswer


@dataclass(frozen=True)
class Reloaded:
    """What a reload changed, and the overrides that take precedence over the file."""

    changes: list[str]
    overrides: list[str]


@dataclass(frozen=True)
class Planned(ProgramAnswer):
    """``slots_moved``: the share of a service's slots that get another backend; without services that stay."""

    slots_moved: dict[str, float]
