"""Start-up times: of ``lbmux --help``, and of a mux until it forwards."""

import subprocess
import sys
import time

from bench.live import Bed
from bench.report import Result, median


def seconds_to_run(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def run() -> list[Result]:
    bare = median(lambda: seconds_to_run("-c", "import click"), 7)
    help_s = median(lambda: seconds_to_run("-m", "lbmux.cli.main", "--help"), 7)
    against = "python -c 'import click'"
    results = [Result("startup", "lbmux --help", help_s * 1000, "ms", against, help_s / bare, "< 150")]
    with Bed() as bed:
        bed.start_mux()
        value = median(bed.start_mux)
    results.append(Result("startup", "mux ready, code cached", value, "s", goal="< 2"))
    return results
