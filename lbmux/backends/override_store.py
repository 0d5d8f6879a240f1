"""The overrides in force, stored in a file so that they survive a restart of the daemon."""

import contextlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from lbmux.backends import state_file
from lbmux.backends.override_commands import without_obsolete
from lbmux.backends.overrides import OverriddenState, Override, Overrides, Removal, with_overrides
from lbmux.backends.removal import BY_FILE, with_removals
from lbmux.config.models import Backend, BackendKey, Config
from lbmux.errors import LbmuxError

log = logging.getLogger(__name__)
TIMES = ("until", "deadline")
REMOVING = "removing"
"""The state of a removal in the file."""


class NotStoredError(LbmuxError):
    """The overrides could not be written to their file."""

    path: Path | None
    reason: str
    in_force: bool = False

    def __str__(self) -> str:
        effect = "the change lasts until a restart" if self.in_force else "nothing was changed"
        return f"cannot store overrides in {self.path}: {self.reason}; {effect}"


class OverrideStore:
    """``path``: the file, or None to keep overrides in memory only; ``config``: the configuration at the start.

    ``clock``: seconds since 1970.

    Storing takes two steps, so that the file agrees with the overrides in force: ``prepare`` writes a new file, which
    may fail, before the overrides take effect; ``commit`` then replaces the old file.
    """

    def __init__(self, path: Path | None, config: Config, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.overrides = self._stored = _read(path) if path is not None else Overrides()
        valid = without_obsolete(config, self.overrides)
        overrides = with_removals(config, valid, with_overrides(config, valid), valid.admin_states, clock(), BY_FILE)
        try:
            self.commit(overrides, self.prepare(overrides))
        except NotStoredError as error:
            log.warning("%s", NotStoredError(path, error.reason, in_force=True))
            self.commit(overrides, None)

    @property
    def is_stored(self) -> bool:
        return self.path is None or self._stored == self.overrides

    def prepare(self, overrides: Overrides) -> Path | None:
        """Write the new file if one is needed and return its path; raise NotStoredError."""
        if self.path is None or self._stored == overrides:
            return None
        try:
            return state_file.prepare(self.path, _lines(overrides))
        except OSError as error:
            raise NotStoredError(self.path, error.strerror or str(error)) from error

    def commit(self, overrides: Overrides, new: Path | None) -> None:
        """Put overrides in force, even if replacing the file fails; ``new`` is the result of ``prepare``."""
        self.overrides = overrides
        if new is not None and self.path is not None:
            try:
                new.replace(self.path)
                self._stored = overrides
            except OSError as error:
                log.warning("%s", NotStoredError(self.path, error.strerror or str(error), in_force=True))
                self.discard(new)

    def discard(self, new: Path | None) -> None:
        """Delete a prepared file whose overrides do not take effect."""
        if new is not None:
            with contextlib.suppress(OSError):
                new.unlink()


def _lines(overrides: Overrides) -> list[list[Any]]:
    """Return lists of service, backend, state, time of the last change, and an object with the other fields."""
    lines = [[*key, one.admin_state, one.since, _more(one)] for key, one in overrides.of.items()]
    return lines + [
        [*key, REMOVING, one.since, {"backend": _plain(one.backend), "reason": one.reason}]
        for key, one in overrides.removals.items()
    ]


def _more(one: Override) -> dict[str, Any]:
    return {"weight": one.weight, "added": _plain(one.added), "until": one.until, "deadline": one.deadline}


def _plain(backend: Backend | None) -> dict[str, Any] | None:
    """Return a backend's fields as in a configuration file."""
    return None if backend is None else backend.model_dump(mode="json")


def _read(path: Path) -> Overrides:
    try:
        of, removals = dict[BackendKey, Override](), dict[BackendKey, Removal]()
        for service, backend, admin_state, since, *more in json.loads(path.read_text()):
            key, rest = (str(service), str(backend)), more[0] if more else {}
            if admin_state == REMOVING:
                removals[key] = Removal(
                    state_file.seconds(since), Backend.model_validate(rest["backend"]), str(rest["reason"])
                )
            elif admin_state is None or admin_state in get_args(OverriddenState):
                weight, added = rest.get("weight"), rest.get("added")
                weight = None if weight is None else int(weight)
                until, deadline = (None if (at := rest.get(name)) is None else state_file.seconds(at) for name in TIMES)
                added = added and Backend.model_validate(added)
                of[key] = Override(state_file.seconds(since), admin_state, weight, added, until, deadline)
            else:
                raise ValueError(admin_state)
        return Overrides(of, removals)
    except FileNotFoundError:
        return Overrides()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
        log.warning("%s is not valid: starting without overrides", path)
        return Overrides()
