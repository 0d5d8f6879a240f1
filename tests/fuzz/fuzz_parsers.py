"""The fuzzer of parsers: atheris leads by the coverage of the modules that parse.

    pip install atheris
    python -m tests.fuzz.fuzz_parsers PARSER tests/fuzz/parsers_corpus/PARSER -max_total_time=60 -rss_limit_mb=0

Options are libFuzzer's.  Functions are instrumented one by one: an instrumented import would also change the compiled
steps, which Numba could then not compile.
"""

import importlib
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType

import atheris

from tests.fuzz.parsers import judge

INSTRUMENTED = (
    "lbmux.wire.packet", "lbmux.wire.header_layouts", "lbmux.slowpath.icmp_quotes", "lbmux.slowpath.tunnels",
    "lbmux.slowpath.mux_slow_path", "lbmux.slowpath.outer_errors", "lbmux.slowpath.returned_packets",
    "lbmux.slowpath.fragments", "lbmux.slowpath.icmp_errors", "lbmux.bgp.bird",
    "lbmux.config.loader", "lbmux.config.plain_yaml", "lbmux.config.models", "lbmux.config.field_types",
    "lbmux.config.service_checks", "lbmux.config.item_faults", "lbmux.api.control_server",
    "lbmux.health.agent_channel", "lbmux.tables.flow_filter", "lbmux.tracing.event_filter",
    "lbmux.frames.capture_reader", "lbmux.frames.pcap", "lbmux.frames.pcapng", "lbmux.frames.pcapng_blocks",
    "lbmux.frames.compressed", "lbmux.lab.topology_file", "lbmux.tools.craft",
)  # fmt: skip


def functions(module: ModuleType) -> Iterator[FunctionType]:
    """The module's own functions and methods."""
    for value in vars(module).values():
        members = vars(value).values() if isinstance(value, type) else (value,)
        for member in members:
            plain = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if isinstance(plain, FunctionType) and plain.__module__ == module.__name__:
                yield plain


def main() -> None:
    name = sys.argv.pop(1)
    for module in map(importlib.import_module, INSTRUMENTED):
        for function in functions(module):
            atheris.instrument_func(function)
    atheris.Setup(sys.argv, lambda data: judge(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
