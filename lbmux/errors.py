"""The exceptions that lbmux raises on purpose, as one tree.

Packets never raise; configuration, set-up and files do. Each error carries what its handler needs as attributes, and
`str()` returns one clear line (`ConfigError`: one per problem). The command line prints an `LbmuxError` as
`lbmux: ...` and exits with code 1.
"""

from dataclasses import FrozenInstanceError, dataclass, fields
from pathlib import Path
from typing import Any, dataclass_transform

from lbmux.plurals import counted


@dataclass_transform(frozen_default=True, eq_default=False)
class LbmuxError(Exception):
    """The base of all errors that lbmux raises on purpose.

    Each subclass is a frozen dataclass. ``dataclass(frozen=True)`` cannot be used: it also rejects the traceback, the
    context and the notes that the interpreter and contextlib set on a propagating exception.
    """

    def __init_subclass__(cls) -> None:
        dataclass(eq=False)(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self) and not name.startswith("__"):
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super().__setattr__(name, value)

    def document(self) -> dict[str, Any]:
        """Return the error as an object for JSON; ``error`` is its text."""
        return {"error": str(self)}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]


@dataclass(frozen=True, order=True)
class Problem:
    """One error in a configuration file.

    `line` counts from 1, or is None if there is no line (the file cannot be read, for example). `field` is the path to
    the value (`services[0].vip`), or empty for the file as a whole.
    """

    line: int | None
    field: str
    message: str

    def describe(self, path: Path) -> str:
        """Return `FILE:LINE: services[0].vip: message`, a form that editors and terminals can follow."""
        place = str(path) if self.line is None else f"{path}:{self.line}"
        return ": ".join(part for part in (place, self.field, self.message) if part)


class ConfigError(LbmuxError):
    """A configuration that cannot be used, with every problem that was found in it."""

    path: Path
    problems: tuple[Problem, ...]

    def lines(self) -> list[str]:
        """Return one line for each problem."""
        return [problem.describe(self.path) for problem in self.problems]

    def __str__(self) -> str:
        return "\n".join(self.lines())


class SetupError(LbmuxError):
    """Something outside lbmux prevents its set-up: an interface, a missing capability, an address in use.

    `what` names it, `reason` says what is wrong, `hint` says how to fix it.
    """

    what: str
    reason: str
    hint: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}" + (f" ({self.hint})" if self.hint else "")


class CaptureError(LbmuxError):
    """A capture file that is truncated or damaged at byte `offset`."""

    path: Path
    offset: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: at byte {self.offset}: {self.reason}"


class ControlError(LbmuxError):
    """A daemon could not be reached, or refused a request.

    `problems` holds its reasons, one per line, if there is more than one.
    """

    place: Path | str
    """The daemon's socket, or its node's name in the pool."""
    reason: str
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.place}: {self.reason}", *self.problems])

    def document(self) -> dict[str, Any]:
        where = "control" if isinstance(self.place, Path) else "node"
        more = {"problems": self.problems} if self.problems else {}
        return {where: str(self.place), "error": self.reason, **more}


class LabError(LbmuxError):
    """The lab failed to change `node` (a namespace, a link, a process in it)."""

    node: str
    reason: str

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}" if self.node else self.reason


class TableError(LbmuxError):
    """`table` cannot hold `wanted` entries: its capacity is `limit`.

    `after_restart` is its capacity after a restart, which sizes tables for the configuration; 0 if unknown.
    """

    table: str
    wanted: int
    limit: int
    after_restart: int = 0

    def __str__(self) -> str:
        message = f"{self.table}: {counted(self.wanted, 'entry', 'entries')} needed, capacity {self.limit}"
        if self.wanted <= self.limit:
            message += ", but too little of it is free"
        if self.after_restart > self.limit:
            return f"{message}; a restart raises the capacity to {self.after_restart}"
        return f"{message}; a restart does not raise the capacity" if self.after_restart else message
