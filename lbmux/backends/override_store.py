"""The orders in force, kept in a file so that they outlive the daemon."""

import contextlib
import json
import logging
import time
from pathlib import Path
from typing import Any, get_args

from lbmux.backends import state_file
from lbmux.backends.override_commands import fitting
from lbmux.backends.overrides import OverriddenState, Override, Overrides, Removal, with_overrides
from lbmux.backends.removal import BY_FILE, settled
from lbmux.config.models import Backend, BackendKey, Config
from lbmux.errors import LbmuxError

log = logging.getLogger(__name__)
LEAVE = "leave"


class NotStoredError(LbmuxError):
    """Orders could not be written to their file."""

    def __init__(self, path: Path | None, reason: str, in_force: bool = False) -> None:
        self.path, self.reason, self.in_force = path, reason, in_force
        super().__init__(path, reason, in_force)

    def __str__(self) -> str:
        become = "in force, but a restart will forget it" if self.in_force else "nothing was changed"
        return f"cannot be stored in {self.path}: {self.reason}: {become}"


class OverrideStore:
    """``path``: the file, or None for orders that are soon forgotten; ``config``: the configuration at the start.

    To store comes in two steps, so that what is in force and the file agree: ``prepare`` does what may fail, before
    orders come into force, and ``keep`` puts the new file in its place.
    """

    def __init__(self, path: Path | None, config: Config) -> None:
        self.path = path
        self.overrides = self._stored = _read(path) if path is not None else Overrides()
        held = fitting(config, self.overrides)
        overrides = settled(config, held, with_overrides(config, held), held.admin_states, time.time(), BY_FILE)
        try:
            self.keep(overrides, self.prepare(overrides))
        except NotStoredError as error:
            log.warning("%s", NotStoredError(path, error.reason, in_force=True))
            self.keep(overrides, None)

    @property
    def is_stored(self) -> bool:
        return self.path is None or self._stored == self.overrides

    def prepare(self, overrides: Overrides) -> Path | None:
        """The new file, where there must be one; NotStoredError."""
        if self.path is None or self._stored == overrides:
            return None
        try:
            return state_file.prepare(self.path, _lines(overrides))
        except OSError as error:
            raise NotStoredError(self.path, error.strerror or str(error)) from error

    def keep(self, overrides: Overrides, new: Path | None) -> None:
        """``new``: as prepared.  Orders are in force now, whether or not they are stored."""
        self.overrides = overrides
        if new is not None and self.path is not None:
            try:
                new.replace(self.path)
                self._stored = overrides
            except OSError as error:
                log.warning("%s", NotStoredError(self.path, error.strerror or str(error), in_force=True))
                self.discard(new)

    def discard(self, new: Path | None) -> None:
        """What was prepared does not come into force."""
        if new is not None:
            with contextlib.suppress(OSError):
                new.unlink()


def _lines(overrides: Overrides) -> list[list[Any]]:
    """Service, backend, what it is to do, since when; and what else is to be said."""
    lines = [
        [*key, one.admin_state, one.since, {"weight": one.weight, "added": _plain(one.added)}]
        for key, one in overrides.of.items()
    ]
    return lines + [
        [*key, LEAVE, one.since, {"backend": _plain(one.backend), "reason": one.reason}]
        for key, one in overrides.removals.items()
    ]


def _plain(backend: Backend | None) -> dict[str, Any] | None:
    """As it would stand in a configuration file."""
    return None if backend is None else backend.model_dump(mode="json")


def _read(path: Path) -> Overrides:
    try:
        of, removals = dict[BackendKey, Override](), dict[BackendKey, Removal]()
        for service, backend, admin_state, since, *more in json.loads(path.read_text()):
            key, rest = (str(service), str(backend)), more[0] if more else {}
            if admin_state == LEAVE:
                removals[key] = Removal(float(since), Backend.model_validate(rest["backend"]), str(rest["reason"]))
            elif admin_state is None or admin_state in get_args(OverriddenState):
                weight, added = rest.get("weight"), rest.get("added")
                weight = None if weight is None else int(weight)
                of[key] = Override(float(since), admin_state, weight, added and Backend.model_validate(added))
            else:
                raise ValueError(admin_state)
        return Overrides(of, removals)
    except FileNotFoundError:
        return Overrides()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        log.warning("%s cannot be used: nothing is drained, disabled, added or removed", path)
        return Overrides()
