"""The states of backends."""

from dataclasses import dataclass

from lbmux.api.answers.program_answer import Key, ProgramAnswer


@dataclass(frozen=True)
class BackendHealth:
    """The state of a backend that the configuration has or had, with the reason; ``since`` in UTC (ISO 8601)."""

    service: str
    backend: str
    state: str
    reason: str
    since: str | None
    dip: str
    port: int
    host: str
    weight: int
    tunnel: str

    @property
    def key(self) -> Key:
        return self.service, self.backend


@dataclass(frozen=True)
class HealthLine(BackendHealth):
    """``drained``: it gets no new flows, and its last flow has ended."""

    drained: bool


@dataclass(frozen=True)
class Health(ProgramAnswer):
    health: list[HealthLine]


@dataclass(frozen=True)
class Overridden(ProgramAnswer):
    """The states of the backends that an override changed."""

    health: list[BackendHealth]
