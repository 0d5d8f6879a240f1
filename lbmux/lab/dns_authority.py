"""The authoritative DNS server of the lab: gdnsd, with the files that `lbmux steer run` writes.

    python -m lbmux.lab.dns_authority DIRECTORY RTT LATENCY

RTT is a file with the round-trip times of the topology (prefix,pop,rtt_ms). This program writes them to LATENCY as
current samples, which `lbmux steer` reads. It starts gdnsd once DIRECTORY has a map. Each new map replaces the gdnsd
process, so this program waits for SIGTERM and then stops the process that is running.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lbmux.daemons.process import notify

POLL_S, SAMPLES = 0.05, 100


def write_latency(rtt: Path, latency: Path, now: float) -> None:
    """Write the round-trip times as samples taken at ``now`` (seconds since 1970), atomically."""
    lines = ["prefix,pop,rtt_ms,low_ms,high_ms,samples,time"]
    for line in rtt.read_text().splitlines()[1:]:
        prefix, pop, rtt_ms = line.split(",")
        lines.append(f"{prefix},{pop},{rtt_ms},{rtt_ms},{rtt_ms},{SAMPLES},{now:.0f}")
    new = latency.with_suffix(".new")
    new.write_text("\n".join([*lines, ""]))
    new.replace(latency)


def main() -> None:
    directory, rtt, latency = map(Path, sys.argv[1:])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    write_latency(rtt, latency, time.time())
    current = directory / "current"
    notify("READY=1")
    os.environ.pop("NOTIFY_SOCKET", None)  # gdnsd would end, as the socket is gone
    while not current.exists():
        time.sleep(POLL_S)
    try:
        subprocess.run(["gdnsd", "-c", current, "start"], check=False)  # it ends when another process replaces it
        signal.pause()
    finally:
        subprocess.run(["gdnsdctl", "-c", current, "stop"], capture_output=True, check=False)


if __name__ == "__main__":
    main()
