"""Options that say which daemons a command asks: one on this machine, or nodes of the pool through its manager."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from lbmux.cli import options

if TYPE_CHECKING:
    from lbmux.api.channel import ControlTarget
    from lbmux.manager.documents import NodeReport
    from lbmux.manager.relayed_node import RelayedNode

NODE = click.option(
    "--node", metavar="NAME", default="",
    help="With --manager: the node; * and ? are wildcards. [default: all muxes]",
)  # fmt: skip


@dataclass(frozen=True)
class Where:
    """The options' values; ``is_pool``: nodes of the pool are meant, not daemons on this machine."""

    controls: tuple[Path, ...]
    node: str
    is_pool: bool
    access: tuple[tuple[str, ...], Path, Path]

    def all(self, *programs: str) -> "list[ControlTarget]":
        """Return the daemons that are meant; without options the first of ``programs`` that runs on this machine."""
        from lbmux.api.control_paths import default_path, meant_path

        if self.is_pool:
            return [*self.nodes()]
        if self.controls:
            return [*self.controls]
        return [default_path(programs[0]) if programs else meant_path(None)]

    def one(self, *programs: str) -> "ControlTarget":
        """Return the only daemon that is meant; raise LbmuxError if there are several."""
        from lbmux.api.channel import target_name
        from lbmux.errors import LbmuxError

        targets = self.all(*programs)
        if len(targets) > 1:
            raise LbmuxError(f"name one node with --node: {', '.join(str(target_name(one)) for one in targets)}")
        return targets[0]

    def nodes(self, role: str = "") -> "list[RelayedNode]":
        """Return the selected nodes that are connected; raise LbmuxError if there are none."""
        from lbmux.cli.pool.manager_access import client
        from lbmux.manager.relayed_node import RelayedNode

        reports = [one for one in self.reports() if one.connected and role in ("", one.role)]
        return [RelayedNode(client(*self.access), one.node) for one in reports]

    def reports(self) -> "list[NodeReport]":
        """Return the manager's reports of the selected nodes."""
        from fnmatch import fnmatchcase

        from lbmux.cli.pool.manager_access import client
        from lbmux.errors import LbmuxError
        from lbmux.manager.api_models import NodesAnswer

        reports = client(*self.access).get("/v1/nodes", NodesAnswer).nodes
        selected = [one for one in reports if (fnmatchcase(one.node, self.node) if self.node else one.role == "mux")]
        if not any(one.connected for one in selected):
            which = f"no node {self.node!r}" if self.node else "no mux"
            raise LbmuxError(f"{which} is connected to the manager; `lbmux show nodes` lists them")
        return selected


def where(*, repeated: bool = False, default: str = "the mux on this machine, else the agent, else the edge") -> Any:
    """Add the options; the command gets them as its argument ``where``.  ``repeated``: several sockets may be given."""

    def decorate(command: Callable[..., Any]) -> Any:
        @wraps(command)
        def wrapped(**options: Any) -> Any:
            control = options.pop("control")
            controls = control if repeated else (() if control is None else (control,))
            access = (options.pop("managers"), options.pop("token_file"), options.pop("manager_ca"))
            where = Where(controls, options.pop("node"), _is_pool(bool(controls), bool(access[0])), access)
            return command(where=where, **options)

        text = "Control socket" + (" of a mux; repeat it for each mux" if repeated else "")
        control = click.option(
            "--control", type=options.PATH, multiple=repeated, envvar="LBMUX_CONTROL", show_envvar=True,
            help=f"{text}. [default: {default}]",
        )  # fmt: skip
        return control(NODE(options.manager_access(wrapped)))

    return decorate


def _is_pool(has_control: bool, has_manager: bool) -> bool:
    """Return whether the manager is meant: an option of the command line takes precedence over a variable."""
    source = click.get_current_context().get_parameter_source
    if has_control and has_manager:
        return (
            source("managers") is ParameterSource.COMMANDLINE and source("control") is not ParameterSource.COMMANDLINE
        )
    return has_manager
