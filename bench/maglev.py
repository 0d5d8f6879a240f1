"""The time to build a Maglev table, including hashing the names."""

import time

from bench.report import Result, median
from lbmux.tables import maglev

SIZES = {65537: "< 3", 655373: "< 40"}
BACKENDS = 1000


def run() -> list[Result]:
    names = [f"10.1.{n // 250}.{n % 250}:80" for n in range(BACKENDS)]
    results: list[Result] = []
    for size, goal in SIZES.items():

        def once(size: int = size) -> float:
            start = time.perf_counter()
            maglev.build(names, [1] * BACKENDS, size)
            return (time.perf_counter() - start) * 1000

        once()
        value = median(once, 9)
        first = results[0].value if results else value
        name = f"{size} slots, {BACKENDS} backends"
        results.append(Result("maglev", name, value, "ms", "65537 slots", value / first, goal))
    return results
