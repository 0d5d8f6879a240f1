"""`lbmux simulate`: experiments on tables and on the rule for flow entries, without packets and without root."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lbmux.cli import options
from lbmux.cli.lab.simulate_output import plot, run_with_progress, show

if TYPE_CHECKING:
    from lbmux.backends.override_commands import Change
    from lbmux.cli.lab.simulate_output import Simulation


class PrimeType(click.ParamType[int]):
    name = "prime"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from lbmux.tables.maglev import is_prime

        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is not a number", param, ctx)
        if not is_prime(number):
            self.fail(f"{number} is not a prime number: try 65537", param, ctx)
        return number


SIZES = click.option(
    "--size", "sizes", metavar="SLOTS", type=PrimeType(), multiple=True, default=(65537, 655373), show_default=True,
    help="Slots of the table, a prime; may be repeated.",
)  # fmt: skip
BACKENDS = click.option(
    "--backends", type=click.IntRange(2, 65535), default=1000, show_default=True, help="Number of backends."
)


def _repeats(default: int) -> Any:
    return click.option(
        "--repeats", type=click.IntRange(min=1), default=default, show_default=True,
        help="Number of repeats, each with its own random numbers.",
    )  # fmt: skip


SEED = click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of random numbers.")


def _simulation(function: Callable[..., "Simulation"]) -> Callable[..., None]:
    """Add the options for the output to a command that returns what to run; run it and show the result."""

    @click.option("--csv", "csv_path", metavar="FILE", type=options.PATH, help="Write the rows as CSV.")
    @click.option("--plot", "plot_path", metavar="FILE", type=options.PATH, help="Write a plot: .png, .svg or .pdf.")
    @options.json
    @wraps(function)
    def run(csv_path: Path | None, plot_path: Path | None, as_json: bool, **settings: Any) -> None:
        if plot_path is not None and plot_path.suffix not in (".png", ".svg", ".pdf"):
            raise click.BadParameter(f"{plot_path} should end in .png, .svg or .pdf", param_hint="--plot")
        try:
            result = run_with_progress(function(**settings))
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        if csv_path is not None:
            result.write_csv(csv_path)
        if plot_path is not None:
            plot(result, plot_path)
        show(result, as_json)

    return run


@click.group(name="simulate")
def command() -> None:
    """Simulate hashing and flow tracking: figures of papers, and changes of your own file.

    All random numbers come from --seed.  Columns show the median over repeats and its range.  -j prints what
    `lbmux plot` reads.  docs/simulate.md explains the simulations.
    """


@command.command()
@SIZES
@BACKENDS
@click.option(
    "--views", type=click.IntRange(min=1), default=1000, show_default=True, help="Number of views, for Karger."
)
@_repeats(10)
@SEED
@_simulation
def balance(**options: Any) -> "Simulation":
    """Compare how evenly Maglev, Karger and rendezvous hashing spread slots over backends.

    This is figure 11 of the Maglev paper (NSDI 2016).  Over-provisioning is the largest share of a backend over the
    mean, less one.
    """
    from lbmux.tools.simulate.balance import Balance
    from lbmux.tools.simulate.balance import balance as simulate

    return lambda tell: simulate(Balance(**options), tell)


@command.command()
@SIZES
@BACKENDS
@click.option(
    "--failures", metavar="NUMBER", type=click.IntRange(min=1), multiple=True, default=(1, 5, 10, 20, 30, 40, 50),
    show_default=True, help="Number of backends that fail at the same time; may be repeated.",
)  # fmt: skip
@_repeats(20)
@SEED
@_simulation
def resilience(**options: Any) -> "Simulation":
    """Count the slots of a Maglev table that change when backends fail.

    This is figure 12 of the Maglev paper (NSDI 2016), which has 200 repeats.
    """
    from lbmux.tools.simulate.resilience import Resilience
    from lbmux.tools.simulate.resilience import resilience as simulate

    return lambda tell: simulate(Resilience(**options), tell)


@command.command()
@click.argument("scenarios", metavar="[SCENARIO...]", nargs=-1)
@click.option(
    "--policy", "policies", metavar="NAME", multiple=True,
    help="Policy for flow entries, or `every`; may be repeated. [default: five of them]",
)  # fmt: skip
@_repeats(8)
@SEED
@_simulation
def flows(scenarios: tuple[str, ...], policies: tuple[str, ...], **options: Any) -> "Simulation":
    """Compare policies for flow entries: what breaks, and how many entries they need.

    SCENARIO is planned, all, syn, mux, restart or reseed; without one, all run.  Two muxes serve flows of TCP and UDP
    while backends come and go; every policy gets the same packets.  `base` is the rule of `flows: changed`, with
    an entry only where a slot of the table has changed; `all` tracks every flow; `newest` sends packets without an
    entry to the table before.  While it runs, `base` is checked: each flow is where the rule says.
    """
    from lbmux.tools.simulate.flow_experiment import USUAL, FlowComparison, compare_flows
    from lbmux.tools.simulate.flow_policies import POLICIES
    from lbmux.tools.simulate.flow_scenarios import KINDS

    for one in scenarios:
        if one not in KINDS:
            raise click.BadParameter(f"{one!r} is not one of {', '.join(KINDS)}", param_hint="SCENARIO")
    for one in policies:
        if one not in POLICIES and one != "every":
            names = "; ".join(("every", *POLICIES))
            raise click.BadParameter(f"{one!r} is not one of: {names}", param_hint="--policy")
    chosen = tuple(POLICIES) if "every" in policies else policies or USUAL
    return lambda tell: compare_flows(FlowComparison(scenarios or tuple(KINDS), chosen, **options), tell)


@command.command()
@click.option("--servers", type=click.IntRange(2, 5000), default=468, show_default=True, help="Servers at the start.")
@click.option(
    "--horizon", type=click.IntRange(1, 5000), default=70, show_default=True,
    help="Servers of the horizon: those that JET expects to join next.",
)  # fmt: skip
@click.option(
    "--connections", type=click.IntRange(1, 100_000_000), default=4_687_530, show_default=True,
    help="Total number of connections.",
)  # fmt: skip
@click.option(
    "--seconds",
    type=click.FloatRange(1, 100_000),
    default=1000.0,
    show_default=True,
    help="Length of the trace, in seconds.",
)
@click.option(
    "--removals-per-min", type=click.FloatRange(0), default=10.0, show_default=True,
    help="Servers that leave per minute; each comes back.",
)  # fmt: skip
@click.option(
    "--gap", "gap_s", type=click.FloatRange(0.1, 60), default=5.0, show_default=True,
    help="Mean seconds between packets of a connection.",
)  # fmt: skip
@click.option(
    "--entries", type=click.IntRange(min=1), default=25_000, show_default=True, help="Maximum number of flow entries."
)
@click.option(
    "--idle", "idle_s", type=click.FloatRange(1), default=300.0, show_default=True,
    help="Idle timeout of connections under lbmux's rule, in seconds.",
)  # fmt: skip
@click.option(
    "--size", type=PrimeType(), default=65537, show_default=True, metavar="SLOTS", help="Slots of the table, a prime."
)
@_repeats(1)
@SEED
@_simulation
def jet(
    servers: int, horizon: int, connections: int, seconds: float, removals_per_min: float, gap_s: float, seed: int,
    **options: Any,
) -> "Simulation":  # fmt: skip
    """Run JET's example (CoNEXT 2021): full tracking, JET's rule, and lbmux's.

    Servers leave and join under live connections; the defaults have the size of the example in JET's repository.  JET
    tracks connections that a server of the horizon would take, lbmux those of slots that have changed.  A connection
    breaks if a packet reaches a server that does not have it.
    """
    from lbmux.tools.simulate.jet import Jet
    from lbmux.tools.simulate.jet import jet as simulate
    from lbmux.tools.simulate.jet_trace import JetTrace

    if removals_per_min * seconds / 60 > servers / 2:
        raise click.UsageError("more than half of the servers would leave: lower --removals-per-min or --seconds")
    trace = JetTrace(servers, horizon, connections, seconds, removals_per_min, gap_s, seed)
    return lambda tell: simulate(Jet(trace, **options), tell)


@command.command()
@options.config
@click.option("--to", "target", metavar="FILE", type=options.PATH, help="The new file. [default: the same]")
@click.option("--drain", "drained", metavar="BACKEND", multiple=True, help="Drain a backend, or SERVICE/BACKEND.")
@click.option("--disable", "disabled", metavar="BACKEND", multiple=True, help="Disable a backend: its flows move.")
@click.option("--remove", "removed", metavar="BACKEND", multiple=True, help="Remove a backend.")
@click.option("--weight", "weights", metavar="BACKEND=WEIGHT", multiple=True, help="Change the weight of a backend.")
@click.option("--add", "added", metavar="SERVICE=DIP[:PORT]", multiple=True, help="Add a backend.")
@click.option(
    "--connections", type=click.IntRange(1, 1 << 40), default=100_000, show_default=True,
    help="Live connections of each service.",
)  # fmt: skip
@_repeats(100)
@SEED
@_simulation
def change(
    config: Path, target: Path | None, drained: tuple[str, ...], disabled: tuple[str, ...], removed: tuple[str, ...],
    weights: tuple[str, ...], added: tuple[str, ...], **settings: Any,
) -> "Simulation":  # fmt: skip
    """Show what a change of your configuration would move: slots, and live connections.

    The change is a new file, or edits to the file, or both; edits may be repeated.  Connections in moved slots need a
    flow entry to stay with their backend, those of a disabled backend lose it.  `lbmux config diff` counts the live
    flows of a running mux.
    """
    from lbmux.config.loader import load
    from lbmux.tools.simulate.config_change import ConfigChange
    from lbmux.tools.simulate.config_change import change as simulate

    edits = [_edit("drain", one) for one in drained] + [_edit("disable", one) for one in disabled]
    edits += [_edit("remove", one) for one in removed] + [_edit("weight", one) for one in weights]
    edits += [_edit("add", one) for one in added]
    if target is None and not edits:
        raise click.UsageError("needs a change: --to FILE, or an edit such as --drain BACKEND")
    before = load(config)
    return lambda tell: simulate(ConfigChange(before, load(target) if target else before, edits, **settings), tell)


def _edit(what: str, text: str) -> "Change":
    """Parse the value of an option for an edit; raise BadParameter if it has no name or number."""
    from lbmux.backends import override_commands as commands
    from lbmux.cli.operate.backend_command import ends

    name, _, value = text.partition("=")
    if what == "add":
        address, port = ends(value)
        backend = {"dip": address} if port is None else {"dip": address, "port": port}
        if not value:
            raise click.BadParameter(f"{text!r} should be SERVICE=DIP[:PORT]", param_hint="--add")
        return commands.add(name, backend, 0.0)
    service, _, backend_name = name.rpartition("/")
    if what == "weight":
        if not value.isdecimal():
            raise click.BadParameter(f"{text!r} should be BACKEND=WEIGHT", param_hint="--weight")
        return commands.set_weight(int(value), backend_name, service or None, 0.0)
    return commands.set_admin_state(what, backend_name, service or None, 0.0)  # type: ignore[arg-type]
