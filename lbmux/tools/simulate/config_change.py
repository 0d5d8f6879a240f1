"""`lbmux simulate change`: what a change of your own configuration would move.

A slot has moved if its backend is another one: other address or port, not only another name.  Live connections are
spread evenly over the slots.  Those in moved slots need a flow entry to stay with their backend; those of a disabled
backend lose it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.backends.effective import effective
from lbmux.backends.override_commands import Change
from lbmux.backends.overrides import Overrides, with_overrides
from lbmux.config.models import Backend, BackendKey, Config, Service, slots_of
from lbmux.plurals import counted
from lbmux.tables import maglev
from lbmux.tools.simulate.simulation_result import Line, Panel, Row, SimulationResult, Spread, Tell, no_progress

NO_BACKEND = -1
MOST_BACKENDS_DRAWN = 40


@dataclass(frozen=True)
class ConfigChange:
    """``connections``: the number of live connections of each service.  ``edits``: commands, applied to ``after``."""

    before: Config
    after: Config
    edits: Sequence[Change] = ()
    connections: int = 100_000
    repeats: int = 100
    seed: int = 1


@dataclass(frozen=True)
class _Tables:
    """A service's slots before and after, as numbers of backends; NO_BACKEND without a table."""

    before: NDArray[np.int64]
    after: NDArray[np.int64]
    disabled: Collection[int]

    @property
    def moved(self) -> NDArray[np.bool_]:
        moved: NDArray[np.bool_] = (self.before != self.after) & (self.before != NO_BACKEND)
        return moved

    @property
    def lost(self) -> NDArray[np.bool_]:
        return np.isin(self.before, list(self.disabled))


def change(settings: ConfigChange, tell: Tell = no_progress) -> SimulationResult:
    """Compare the tables of all services; OverrideError or UnknownBackendError for an edit that does not apply."""
    overrides = Overrides()
    for edit in settings.edits:
        overrides, _ = edit(settings.after, overrides)
    states = overrides.admin_states
    after = effective(with_overrides(settings.after, overrides), frozenset(), states)
    disabled = {key for key, state in states.items() if state == "disable"}
    services = {service.name: service for service in settings.before.services}
    wanted = {service.name: service for service in after.services}
    rows: list[Row] = []
    panels: list[Panel] = []
    rng = np.random.default_rng(settings.seed)
    for number, (name, old) in enumerate(services.items(), 1):
        if name in wanted and (old != wanted[name] or settings.before.maglev != after.maglev):
            tables = _tables(old, wanted[name], settings.before, after, disabled)
            rows.append(_row(name, tables, settings, rng))
            panels.append(_panel(old, wanted[name]))
        tell(number / len(services))
    notes = [f"service {name}: removed" for name in services if name not in wanted]
    notes += [f"service {name}: added" for name in wanted if name not in services]
    same = len(services.keys() & wanted.keys()) - len(rows)
    notes += [f"{counted(same, 'service')} without a change"] if same else []
    title = f"Slots that move, and what {settings.connections:,} live connections a service need"
    parameters = {name: getattr(settings, name) for name in ("connections", "repeats", "seed")}
    return SimulationResult("change", title, parameters, rows, [*_moved_panel(rows), *panels[:3]], notes)


def _tables(old: Service, new: Service, before: Config, after: Config, disabled: Collection[BackendKey]) -> _Tables:
    numbers: dict[tuple[Any, ...], int] = {}
    tables = [_table(service, config, numbers) for service, config in ((old, before), (new, after))]
    lost = {numbers[_end(b)] for b in old.backends if (old.name, b.name) in disabled and _end(b) in numbers}
    if _hashed(old, before) != _hashed(new, after):  # every flow gets another slot
        tables[1] = np.full(len(tables[0]), len(numbers))
    return _Tables(tables[0], tables[1], lost)


def _hashed(service: Service, config: Config) -> tuple[Any, ...]:
    """Return the settings that decide a flow's slot."""
    slots = slots_of(config, service)
    return service.vip, service.protocol, service.port, service.hash, config.maglev.seed, slots


def _table(service: Service, config: Config, numbers: dict[tuple[Any, ...], int]) -> NDArray[np.int64]:
    """Return the number of each slot's backend; backends that ``numbers`` does not have are added to it."""
    live = [backend for backend in service.backends if backend.weight]
    if not live:
        return np.full(slots_of(config, service), NO_BACKEND)
    mine = [numbers.setdefault(_end(backend), len(numbers)) for backend in live]
    built = maglev.build([b.name for b in live], [b.weight for b in live], slots_of(config, service))
    return np.array(mine, np.int64)[built]


def _end(backend: Backend) -> tuple[Any, ...]:
    return backend.dip, backend.port, backend.tunnel_to


def _least(tables: _Tables) -> float:
    """Return the share of slots that any method has to move: the sum of the backends' gains."""
    if len(tables.before) != len(tables.after):
        return 0.0
    highest = int(max(tables.before.max(), tables.after.max())) + 1
    counts = [np.bincount(table[table >= 0], minlength=highest) for table in (tables.before, tables.after)]
    return float(np.maximum(counts[0] - counts[1], 0).sum() / len(tables.before))


def _row(name: str, tables: _Tables, settings: ConfigChange, rng: np.random.Generator) -> Row:
    lost, moved = float(tables.lost.mean()), float((tables.moved & ~tables.lost).mean())
    drawn = rng.multinomial(settings.connections, [moved, lost, max(0.0, 1 - moved - lost)], settings.repeats)
    return {
        "service": name,
        "slots_moved_percent": 100 * float(tables.moved.mean()),
        "least_percent": 100 * _least(tables),
        "need_entries": Spread.of(drawn[:, 0].tolist()),
        "lose_backend": Spread.of(drawn[:, 1].tolist()),
        "need_nothing": Spread.of(drawn[:, 2].tolist()),
    }


def _moved_panel(rows: Sequence[Row]) -> list[Panel]:
    if not rows:
        return []
    names = [str(row["service"]) for row in rows]
    lines = [
        Line(label, names, [float(row[key]) for row in rows])  # type: ignore[arg-type]
        for label, key in (("moved", "slots_moved_percent"), ("the least possible", "least_percent"))
    ]
    return [Panel("Slots that move", "service", "slots (%)", lines, "bars")]


def _panel(old: Service, new: Service) -> Panel:
    """Shares of the backends before and after, those with the largest change first."""
    shares = [_shares(service) for service in (old, new)]
    names = sorted({*shares[0], *shares[1]}, key=lambda name: -abs(shares[1].get(name, 0) - shares[0].get(name, 0)))
    drawn = names[:MOST_BACKENDS_DRAWN]
    lines = [
        Line(label, drawn, [share.get(name, 0.0) for name in drawn])
        for label, share in zip(("before", "after"), shares, strict=True)
    ]
    return Panel(f"Shares of {old.name}", "backend", "new flows (%)", lines, "bars")


def _shares(service: Service) -> dict[str, float]:
    total = sum(backend.weight for backend in service.backends) or 1
    return {backend.name: 100 * backend.weight / total for backend in service.backends}
