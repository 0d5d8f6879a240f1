"""`lbmux simulate jet`: JET's example (CoNEXT 2021), with lbmux's rule beside it.

JET tracks a connection only if a server of the horizon would take it: those are the servers that are known to join
next.  lbmux's rule needs no horizon: it tracks connections of slots that have changed.  The authors' example reports 0
broken connections for JET and 7417 for full tracking with 25,000 entries, on their own trace.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from lbmux.plurals import counted
from lbmux.tools.simulate.jet_run import JetOutcome, JetRule, JetRun
from lbmux.tools.simulate.jet_trace import JetTrace
from lbmux.tools.simulate.simulation_result import Line, Panel, Row, SimulationResult, Spread, Tell, no_progress

PAPER_BROKEN = {"full tracking": 7417, "JET": 0}


@dataclass(frozen=True)
class Jet:
    """``entries``: most entries of each rule.  ``idle_s``: how long a connection may be silent, for lbmux's rule."""

    trace: JetTrace = field(default_factory=JetTrace)
    size: int = 65537
    entries: int = 25_000
    idle_s: float = 300.0
    repeats: int = 1

    def rules(self) -> tuple[JetRule, ...]:
        return (
            JetRule("full tracking", "full", "rendezvous", self.entries),
            JetRule("JET", "jet", "rendezvous", self.entries),
            JetRule("lbmux", "lbmux", "maglev", self.entries, self.idle_s),
            JetRule("lbmux, rendezvous", "lbmux", "rendezvous", self.entries, self.idle_s),
        )


def jet(settings: Jet, tell: Tell = no_progress) -> SimulationResult:
    """Run the trace under each rule; each repeat is another trace."""
    rules = settings.rules()
    outcomes: dict[JetRule, list[JetOutcome]] = {rule: [] for rule in rules}
    done, steps = 0, settings.repeats * len(rules)
    for repeat in range(settings.repeats):
        trace = replace(settings.trace, seed=settings.trace.seed * 1000 + repeat)
        for rule in rules:
            run = JetRun(trace, rule, settings.size)
            for time in run.run():
                tell((done + time / trace.seconds) / steps)
            outcomes[rule].append(run.outcome())
            done += 1
    is_papers = replace(settings.trace, seed=1, gap_s=5.0) == JetTrace() and settings.entries == Jet.entries
    rows = [_row(rule, outcomes[rule], is_papers) for rule in rules]
    count = f"{settings.trace.connections:,} connections, {settings.trace.servers} servers"
    title = f"{count}, {settings.trace.removals_per_min:g} removals a minute"
    parameters = asdict(settings.trace) | {
        name: getattr(settings, name) for name in ("size", "entries", "idle_s", "repeats")
    }
    return SimulationResult("jet", title, parameters, rows, _panels(settings, outcomes))


def _row(rule: JetRule, outcomes: Sequence[JetOutcome], is_papers: bool) -> Row:
    return {
        "rule": rule.name,
        "table": rule.table,
        "broken": Spread.of([one.broken for one in outcomes]),
        "paper_broken": PAPER_BROKEN.get(rule.name) if is_papers else None,
        "lost_with_their_server": Spread.of([one.lost for one in outcomes]),
        "entries_mean": Spread.of([float(one.samples[:, 2].mean()) for one in outcomes]),
        "entries_peak": Spread.of([float(one.samples[:, 2].max()) for one in outcomes]),
        "marked_slots_percent": Spread.of([100 * float(one.samples[:, 3].mean()) for one in outcomes]),
        "live_peak": Spread.of([float(one.samples[:, 1].max()) for one in outcomes]),
    }


def _panels(settings: Jet, outcomes: dict[JetRule, list[JetOutcome]]) -> list[Panel]:
    panels = []
    for title, y, column, factor in (("Entries", "entries", 2, 1), ("Marked slots", "slots (%)", 3, 100)):
        lines = []
        for rule, runs in outcomes.items():
            times = runs[0].samples[:, 0].tolist()
            values = zip(*((factor * one.samples[:, column]).tolist() for one in runs), strict=True)
            points = list(zip(times, (Spread.of(value) for value in values), strict=True))
            lines.append(Line.of(rule.name, points))
        runs_text = counted(settings.repeats, "trace")
        panels.append(Panel(f"{title}, {runs_text}, at most {settings.entries:,} entries", "time (s)", y, lines))
    return panels
