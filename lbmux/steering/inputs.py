"""Everything that a map is computed from: steering.yaml and the files that it names."""

from dataclasses import dataclass
from pathlib import Path

from lbmux.config import loader
from lbmux.config.steering_models import Steering
from lbmux.steering.measurements import Groups, Latency, read_groups, read_latency


@dataclass(frozen=True)
class Inputs:
    """``now``: when they were read, in seconds since 1970."""

    steering: Steering
    groups: Groups
    latency: Latency
    now: float


def read(path: Path, now: float) -> Inputs:
    """Read the files; raise ConfigError with every problem of the first that cannot be used."""
    steering = load(path)
    groups = read_groups(path.parent / steering.groups)
    latency = read_latency(path.parent / steering.latency, [pop.name for pop in steering.pops])
    return Inputs(steering, groups, latency, now)


def load(path: Path) -> Steering:
    """Read steering.yaml; raise ConfigError with every problem and its line."""
    return loader.parse_as(Steering, loader.read(path), path)
