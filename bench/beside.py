"""``python -m bench.beside COMMIT``: the native data path beside another commit's, in turn, by CPU time.

The other commit is checked out into a temporary folder. Each of the two is measured by a process of its own, which runs
this file with the commit's lbmux and bench.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TURNS, WARM_ROUNDS, PACKETS = 15, 6, 200_000
FLOWS, MOST_FLOWS = 1000, 10_000_000
CASES: dict[str, dict[str, object]] = {"flows: all": {}, "flows: changed": {"flows": "changed"}}
"""The service's keys here; the other commit has its default."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commit", nargs="?", help="for example v0.1.0 or HEAD~10")
    options = parser.parse_args()
    if options.commit is None:  # a process of the bench
        answer()
        return
    with checkout(options.commit) as folder, Side(Path.cwd()) as ours, Side(folder) as theirs:
        for name, more in CASES.items():
            turns = [(ours.ns(FLOWS, more), theirs.ns(FLOWS, {})) for _ in range(TURNS)]
            here, there, ratio = map(statistics.median, zip(*((a, b, a / b) for a, b in turns), strict=True))
            print(
                f"{name}, {FLOWS:,} flows: {here:.1f} ns a packet, {options.commit} {there:.1f} ns, ratio {ratio:.2f}"
            )
        more = CASES["flows: changed"]
        few, many = ours.ns(FLOWS, more), ours.ns(MOST_FLOWS, more)
        print(f"flows: changed, {MOST_FLOWS:,} flows: {many:.1f} ns, {many / few:.2f} of {FLOWS:,} flows")


@contextlib.contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """Yield a folder with the tree of a commit."""
    with tempfile.TemporaryDirectory(prefix="lbmux-bench-") as made:
        folder = Path(made) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(folder), commit], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(folder)], check=True)


class Side:
    """A process that measures the data path of the tree in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder)},
        )  # fmt: skip

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()

    def ns(self, flows: int, more: dict[str, object]) -> float:
        """Return the CPU time of a packet in ns, with this number of flows and these keys of the service."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps([flows, more]), file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


def answer() -> None:
    """Measure what each line of the standard input asks for, and print the result."""
    for line in sys.stdin:
        flows, more = json.loads(line)
        print(measured(flows, more), flush=True)


def measured(flows: int, more: dict[str, object]) -> float:
    """Return the CPU time of a packet in ns: the median over batches with one packet of each flow."""
    from bench.frames import Frames, config, tables  # of the tree that this process measures
    from lbmux.targets.native import Worker
    from lbmux.targets.regions import now_ticks

    frames, worker = Frames(flows), Worker(tables(config(**more)))  # type: ignore[arg-type]

    def once() -> float:
        frames.reset()
        start = time.thread_time_ns()
        worker.forward(frames.batch, now_ticks())
        return (time.thread_time_ns() - start) / frames.count

    rounds = [once() for _ in range(WARM_ROUNDS + max(3, PACKETS // flows))]
    assert (frames.batch.verdict == 0).all(), "not every frame was forwarded"
    return statistics.median(rounds[WARM_ROUNDS:])


if __name__ == "__main__":
    main()
