"""The fuzzer: atheris leads by the coverage of the plain twins, each of whose branches the compiled code must have.

    pip install atheris
    python -m tests.fuzz.fuzz [--kernel] tests/fuzz/corpus -max_total_time=20 -rss_limit_mb=0

Its memory grows with every input (12 kB of its own), so runs are short, and repeated.
"""

import sys

import atheris

with atheris.instrument_imports(include=["tests.datapath.plain_packet", "tests.datapath.plain_tunnel",
                                         "tests.datapath.plain_mux", "tests.datapath.plain_agent"]):  # fmt: skip
    from tests.fuzz.judge import Judge

TABLES_EVERY = 2000


def main() -> None:
    judge, inputs = Judge(kernel="--kernel" in sys.argv), 0

    def one(data: bytes) -> None:
        nonlocal inputs
        judge.check(data)
        inputs += 1
        if inputs % TABLES_EVERY == 0:
            judge.check_tables()

    atheris.Setup([argument for argument in sys.argv if argument != "--kernel"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
