"""Adds to an error about a configuration that is too large the limit that would apply after a restart.

A reload keeps the tables, whose sizes were chosen for the configuration at the start.
"""

import contextlib
from collections.abc import Callable, Iterator

from lbmux.config.models import Config
from lbmux.datapath.tables import FORMER_TABLE, Sizes
from lbmux.errors import TableError
from lbmux.tables.address_map import FULLEST


@contextlib.contextmanager
def with_limit_after_restart(now: Sizes, config: Config, sizes_for: Callable[[Config, int], Sizes]) -> Iterator[None]:
    """Make a TableError also name the limit after a restart with ``config``."""
    try:
        yield
    except TableError as error:
        after = sizes_for(config, now.workers)
        rows = {"addresses": after.addresses // FULLEST, "backends": min(after.backends, FORMER_TABLE)}
        most = rows.get(error.table) or int(getattr(after, error.table))
        raise TableError(error.table, error.wanted, error.limit, max(most, error.limit)) from error
