"""Adds to an error about a configuration that is too large the limit that would apply after a restart.

A reload keeps the tables, whose sizes were chosen for the configuration at the start.
"""

import contextlib
from collections.abc import Callable, Iterator

from lbmux.config.models import Config
from lbmux.datapath.tables import Sizes
from lbmux.errors import TableError
from lbmux.tables.address_map import FULLEST


@contextlib.contextmanager
def with_limit_after_restart(now: Sizes, config: Config, sizes_for: Callable[[Config, int], Sizes]) -> Iterator[None]:
    """Make a TableError also name the limit after a restart with ``config``."""
    try:
        yield
    except TableError as error:
        after = sizes_for(config, now.workers)
        rows = after.addresses // FULLEST if error.table == "addresses" else int(getattr(after, error.table))
        raise TableError(error.table, error.wanted, error.limit, max(rows, error.limit)) from error
