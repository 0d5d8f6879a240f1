"""The options of `lbmux replay`: how their values are parsed, and which exclude each other."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from lbmux.addresses import Address

if TYPE_CHECKING:
    from lbmux.tools.replay.destination_map import Mapping

SOURCE_MAC, DESTINATION_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"


class TextType(click.ParamType[Any]):
    """Text that a function parses; the function raises ValueError for text that it refuses."""

    def __init__(self, name: str) -> None:
        self.name = name

    def parse(self, text: str) -> Any:
        from lbmux.addresses import mac_to_int
        from lbmux.tools.replay.destination_map import Mapping
        from lbmux.tools.replay.replay_changes import parse_loss, parse_reload

        parsers = {"mac": mac_to_int, "reload": parse_reload, "loss": parse_loss, "mapping": Mapping.parse}
        return parsers[self.name](text)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


class LossType(TextType):
    """A mux and a time; the shell completes the muxes that `--muxes` makes."""

    def __init__(self) -> None:
        super().__init__("loss")

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from lbmux.tools.replay.replay_changes import name_of

        names = [f"{name_of(mux)}@" for mux in range(ctx.params.get("muxes") or 1)]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class ReplayOptions:
    """The options of the command line, one attribute each."""

    capture: Path
    config: Path | None
    write: Path | None
    reloads: tuple[tuple[int, Path], ...]
    muxes: int
    losses: tuple[tuple[int, int], ...]
    flows_csv: Path | None
    mappings: tuple["Mapping", ...]
    loop: int
    interface: str | None
    pps: int | None
    addresses: tuple[Address, ...]
    source_mac: int | None
    destination_mac: int | None
    as_json: bool

    def __init__(self, **options: Any) -> None:
        vars(self).update(options)

    @property
    def needs_pool(self) -> bool:
        return bool(self.reloads or self.losses or self.muxes > 1 or self.flows_csv)

    @property
    def macs(self) -> tuple[int, int]:
        """Source and destination MAC address as integers."""
        from lbmux.addresses import mac_to_int

        macs = ((self.source_mac, SOURCE_MAC), (self.destination_mac, DESTINATION_MAC))
        first, second = (mac_to_int(default) if mac is None else mac for mac, default in macs)
        return first, second

    def check(self) -> None:
        """Raise UsageError for options that exclude each other."""
        if self.interface is None and self.config is None:
            raise click.UsageError("needs a configuration: -c FILE, or --to INTERFACE")
        if self.interface is not None and self.write is not None:
            raise click.UsageError("-w and --to exclude each other")
        if self.interface is not None and self.needs_pool:
            raise click.UsageError("--at, --muxes, --lose and --flows-csv need a mux: they exclude --to")
        if self.interface is None and self.pps is not None:
            raise click.UsageError("--pps needs --to")
        if str(self.capture) == "-" and self.loop > 1:
            raise click.UsageError("--loop cannot read standard input twice")
        self._check_files()
        self._check_losses()

    def _check_files(self) -> None:
        """Raise UsageError if two files, or standard output, are the same."""
        outputs = [path for path in (self.write, self.flows_csv) if path is not None]
        if len({path.resolve() for path in outputs}) < len(outputs):
            raise click.UsageError("-w and --flows-csv need different files")
        for output in outputs:
            if output.exists() and self.capture.exists() and os.path.samefile(output, self.capture):
                raise click.UsageError(f"{output} is both input and output")

    def _check_losses(self) -> None:
        """Raise UsageError for a mux that does not exist or is lost twice, and if no mux is left."""
        from lbmux.tools.replay.replay_changes import name_of

        known = ", ".join(map(name_of, range(self.muxes)))
        lost = [mux for _, mux in self.losses]
        for mux in lost:
            if mux >= self.muxes:
                raise click.UsageError(f"--lose: unknown mux {name_of(mux)}: --muxes {self.muxes} makes {known}")
            if lost.count(mux) > 1:
                raise click.UsageError(f"--lose: {name_of(mux)} can be lost only once")
        if len(lost) >= self.muxes:
            raise click.UsageError(f"--lose: at least one mux must remain of {known}")
