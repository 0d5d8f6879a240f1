"""``python -m bench.kills --store sqlite|etcd --seconds 300``: do acknowledged revisions survive random kills?

Managers, and the members of an etcd cluster, are killed (SIGKILL) at random and started again, while a client applies
one revision after the other. At the end each revision that was acknowledged must be there with its message. With SQLite
there is one manager; with etcd there are three, and three members. All files are in memory (/dev/shm), which a kill
does not empty.
"""

import argparse
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, field

from bench.manager_processes import Program, managers_running
from lbmux.manager.api_client import ApiClient, ApiError
from lbmux.manager.api_models import ApplyAnswer, ApplyRequest, RevisionsAnswer
from lbmux.manager.records import KEPT_REVISIONS

REPLICAS = 3
PAUSES_S, DEAD_S = (0.0, 1.0), (0.0, 0.7)
"""Bounds in seconds of the time from an acknowledged revision to the next kill, and until the program starts again."""
PROGRESS_S = 20.0
"""Longest wait for that revision, in seconds."""


@dataclass
class Outcome:
    """A run's result; ``lost``: acknowledged revisions that are missing, with their messages."""

    acknowledged: dict[int, str] = field(default_factory=dict)
    unanswered: int = 0
    longest_s: float = 0.0
    """The longest time between two acknowledgements."""
    kills: dict[str, int] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        kills = ", ".join(f"{name} {count}" for name, count in self.kills.items())
        return (
            f"{len(self.acknowledged)} revisions acknowledged, {len(self.lost)} of them lost; {self.unanswered} "
            f"requests failed; at most {self.longest_s:.1f} s between two acknowledgements; kills: {kills}"
        )


def run(store: str, seconds: float, seed: int = 1, report: Callable[[str], None] = print) -> Outcome:
    """Kill and apply for a time; raise AssertionError if the pool does not come back."""
    with managers_running("sqlite" if store == "sqlite" else "etcd", 1 if store == "sqlite" else REPLICAS) as pool:
        pool.primary()
        programs = [*pool.managers, *pool.members]
        outcome = _under_kills(pool.client(), programs, random.Random(seed), seconds, report)
        kept = _stored_revisions(pool.client(pool.primary()[0]))
        outcome.lost = {number: text for number, text in outcome.acknowledged.items() if kept.get(number) != text}
        return outcome


def _under_kills(
    client: ApiClient, programs: Sequence[Program], chance: random.Random, seconds: float,
    report: Callable[[str], None],
) -> Outcome:  # fmt: skip
    """Apply with ``client`` while programs are killed."""
    outcome, stop = Outcome(), threading.Event()
    applying = threading.Thread(target=_apply, args=(client, outcome, seconds, stop))
    applying.start()
    try:
        _kill_at_random(programs, seconds, chance, outcome.acknowledged, report)
    finally:
        stop.set()
        applying.join()
    outcome.kills = {one.name: one.kills for one in programs}
    return outcome


def _kill_at_random(
    programs: Sequence[Program], seconds: float, chance: random.Random, acknowledged: Sized,
    report: Callable[[str], None],
) -> None:  # fmt: skip
    end, last_report = time.monotonic() + seconds, time.monotonic()
    while time.monotonic() < end:
        before, late = len(acknowledged), time.monotonic() + PROGRESS_S
        while len(acknowledged) == before and time.monotonic() < min(late, end):
            time.sleep(0.01)
        time.sleep(chance.uniform(*PAUSES_S))
        victim = chance.choice(programs)
        victim.kill()
        victim.kills += 1
        time.sleep(chance.uniform(*DEAD_S))
        victim.start()
        if time.monotonic() - last_report > 30:
            last_report = time.monotonic()
            kills = sum(one.kills for one in programs)
            report(f"{end - last_report:.0f} s left: {kills} kills, {len(acknowledged)} acknowledged")


def _apply(client: ApiClient, outcome: Outcome, seconds: float, stop: threading.Event) -> None:
    """Apply revisions, not more than are kept, and note what was acknowledged."""
    pause, last, number = seconds / (0.9 * KEPT_REVISIONS), time.monotonic(), 0
    while not stop.is_set():
        number += 1
        request = ApplyRequest(file=_config(number), message=f"change {number}")
        try:
            answer = client.post("/v1/config", request, ApplyAnswer)
        except ApiError:
            outcome.unanswered += 1
            stop.wait(0.02)
            continue
        if answer.revision is not None:
            outcome.acknowledged[answer.revision.number] = f"change {number}"
            outcome.longest_s, last = max(outcome.longest_s, time.monotonic() - last), time.monotonic()
        stop.wait(pause)


def _config(number: int) -> str:
    backends = "".join(f"      - {{dip: 10.0.0.{n}, weight: {1 + number % 60000}}}\n" for n in (1, 2))
    return f"services:\n  - name: web\n    vip: 192.0.2.1\n    protocol: tcp\n    port: 80\n    backends:\n{backends}"


def _stored_revisions(client: ApiClient) -> dict[int, str]:
    """Return the messages of all revisions by number."""
    revisions = client.get("/v1/revisions", RevisionsAnswer).revisions
    return {one.revision.number: one.revision.message for one in revisions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=("sqlite", "etcd"), default="sqlite")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=1, help="of the random times and victims")
    arguments = parser.parse_args()
    if arguments.store == "etcd" and shutil.which("etcd") is None:
        parser.error("etcd is not installed: apt install etcd-server")
    outcome = run(
        arguments.store, arguments.seconds, arguments.seed, lambda line: print(line, file=sys.stderr, flush=True)
    )
    print(f"{arguments.store}: {outcome}")
    sys.exit(bool(outcome.lost))


if __name__ == "__main__":
    main()
