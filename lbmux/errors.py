"""Everything that lbmux raises on purpose, as one tree.

Packets never raise; configuration, set-up and files do. Each error carries what its handler needs as
attributes, and `str()` makes a clear line of it (`ConfigError`: one a problem). The command line turns an
`LbmuxError` into `lbmux: ...` and exit code 1.
"""

from dataclasses import FrozenInstanceError, dataclass, fields
from pathlib import Path
from typing import Any, dataclass_transform

from lbmux.plurals import counted


@dataclass_transform(frozen_default=True, eq_default=False)
class LbmuxError(Exception):
    """Anything that keeps lbmux from doing what it was asked to.

    Each subclass is a frozen dataclass.  ``dataclass(frozen=True)`` would not do: it also refuses the traceback, the
    context and the notes that the interpreter and contextlib set on an exception under way.
    """

    def __init_subclass__(cls) -> None:
        dataclass(eq=False)(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self) and not name.startswith("__"):
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong with a configuration file.

    `line` counts from 1 and is None where no line can be named (a file that cannot be read, say);
    `field` is the way to the value (`services[0].vip`), empty for the file as a whole.
    """

    line: int | None
    field: str
    message: str

    def describe(self, path: Path) -> str:
        """As an editor or a terminal can follow it: `FILE:LINE: services[0].vip: message`."""
        place = str(path) if self.line is None else f"{path}:{self.line}"
        return ": ".join(part for part in (place, self.field, self.message) if part)


class ConfigError(LbmuxError):
    """A configuration that cannot be used, with every problem found in it."""

    path: Path
    problems: tuple[Problem, ...]

    def lines(self) -> list[str]:
        """One line for each problem."""
        return [problem.describe(self.path) for problem in self.problems]

    def __str__(self) -> str:
        return "\n".join(self.lines())


class SetupError(LbmuxError):
    """Something outside lbmux is not as it must be: an interface, a capability, an address in use.

    `what` is the thing, `reason` what is wrong with it, `hint` what to do about it.
    """

    what: str
    reason: str
    hint: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}" + (f" ({self.hint})" if self.hint else "")


class CaptureError(LbmuxError):
    """A capture that is cut short or damaged at `offset` bytes from its beginning."""

    path: Path
    offset: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: at byte {self.offset}: {self.reason}"


class ControlError(LbmuxError):
    """A running daemon could not be asked, or said no.

    `problems` holds what it said line by line, where there was more than one thing to say.
    """

    path: Path
    reason: str
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.path}: {self.reason}", *self.problems])


class LabError(LbmuxError):
    """The lab could not do something to `node` (a namespace, a link, a process in it)."""

    node: str
    reason: str

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}" if self.node else self.reason


class TableError(LbmuxError):
    """`table` cannot hold `wanted` entries: it has room for `limit`.

    `after_restart`: its room in tables that are made for the configuration, as a restart does; 0 where not known.
    """

    table: str
    wanted: int
    limit: int
    after_restart: int = 0

    def __str__(self) -> str:
        said = f"{self.table}: {counted(self.wanted, 'entry', 'entries')} wanted, room for {self.limit}"
        if self.wanted <= self.limit:
            said += ", but no free place that fits them"
        if self.after_restart > self.limit:
            return f"{said}: a restart makes room for {self.after_restart}"
        return f"{said}: a restart makes room for no more" if self.after_restart else said
