"""lbmux: a layer-4 load balancer in the family of Ananta, Maglev and Katran.

The names of ``__all__`` are the public API, which docs/api.md shows.  They are imported when they are first used, so
that `import lbmux` costs nothing.
"""

TYPE_CHECKING = False  # type checkers treat it as true; importing typing would cost more than everything else here
if TYPE_CHECKING:
    from lbmux.errors import ConfigError, LbmuxError, TableError
    from lbmux.tools.python_api.maglev_table import Maglev, disruption
    from lbmux.tools.python_api.memory_mux import Flow, Forwarded, Mux

__version__ = "0.1.0"
__all__ = ["ConfigError", "Flow", "Forwarded", "LbmuxError", "Maglev", "Mux", "TableError", "disruption"]

_MODULES = {
    "ConfigError": "lbmux.errors",
    "Flow": "lbmux.tools.python_api.memory_mux",
    "Forwarded": "lbmux.tools.python_api.memory_mux",
    "LbmuxError": "lbmux.errors",
    "Maglev": "lbmux.tools.python_api.maglev_table",
    "Mux": "lbmux.tools.python_api.memory_mux",
    "TableError": "lbmux.errors",
    "disruption": "lbmux.tools.python_api.maglev_table",
}


if not TYPE_CHECKING:

    def __getattr__(name):
        """Import the module that has the name (PEP 562)."""
        from importlib import import_module

        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
