"""`lbmux lab chaos`: random events under real connections."""

from pathlib import Path

import click

from lbmux.cli import options
from lbmux.cli.operate import completion_names as names


@click.command(name="chaos")
@click.argument("scenario", default="ananta", shell_complete=names.chaos_systems)
@click.option("--name", default="chaos", show_default=True, help="Name of its lab.")
@click.option(
    "--driver", type=click.Choice(["auto", "packet", "xdp"]), default="auto", show_default=True,
    help="Driver of muxes and agents.",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(10, 86400), default=60.0, show_default=True, help="Length of the schedule."
)
@click.option("--seed", type=click.IntRange(0), help="Seed of the schedule. [default: a random one]")
@click.option(
    "--connections", type=click.IntRange(1, 5000), default=100, show_default=True,
    help="Number of long-lived connections.",
)  # fmt: skip
@click.option(
    "--short-per-s", type=click.FloatRange(0, 1000), default=20.0, show_default=True,
    help="New short connections per second.",
)  # fmt: skip
@click.option(
    "--search-minutes", type=click.FloatRange(0, 15), default=15.0, show_default=True,
    help="Time limit of the search after a failure; 0: none.",
)  # fmt: skip
@click.option("-w", "--write", type=options.PATH, help="Write the result as JSON.")
@options.json
def command(
    scenario: str, name: str, driver: str, seconds: float, seed: int | None, connections: int, short_per_s: float,
    search_minutes: float, write: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Trigger random events in a SCENARIO under load, and check what must hold all the time.

    The schedule follows from --seed, and is printed first.  After a violation the run ends, and reruns search for the
    shortest list of events that still fails in three of five.  The exit code is 1 if anything was violated.
    """
    import json
    import random

    from lbmux.lab.chaos import chaos_report
    from lbmux.lab.chaos.chaos import Chaos, planned, run
    from lbmux.lab.chaos.chaos_system import SYSTEMS
    from lbmux.lab.scoreboard.experiment import Load

    if scenario not in SYSTEMS:
        raise click.BadParameter(f"{scenario!r} is not one of {', '.join(SYSTEMS)}", param_hint="SCENARIO")
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    load = Load(connections, short_per_s)
    chaos = Chaos(scenario, name, driver, seed, seconds, load, 60 * search_minutes)
    click.echo(f"seed {seed}", err=True)
    for step in planned(chaos):
        click.echo(str(step), err=True)
    outcome = run(chaos, lambda text: click.echo(text, err=True))
    text = json.dumps(chaos_report.document(chaos, outcome))
    if write:
        write.write_text(text + "\n")
    if as_json:
        click.echo(text)
    else:
        chaos_report.print_table(chaos, outcome)
    return 1 if outcome.result.violations else 0
