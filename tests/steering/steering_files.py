"""A small steering.yaml, with the files that it names."""

import time
from pathlib import Path

STEERING = """\
name: www.example.net
groups: groups.csv
latency: latency.csv
default: fra
pops:
  - {name: fra, addresses: [192.0.2.1, "2001:db8::1"], capacity: 100}
  - {name: ams, addresses: [192.0.2.2], capacity: 100}
"""


def write_files(directory: Path) -> Path:
    """Write the files, and return the path of steering.yaml."""
    (directory / "steering.yaml").write_text(STEERING)
    (directory / "groups.csv").write_text("prefix,users,resolver\n198.51.100.0/24,60,\n203.0.113.0/24,30,\n")
    (directory / "latency.csv").write_text(
        "prefix,pop,rtt_ms,low_ms,high_ms,samples,time\n"
        f"198.51.100.0/24,fra,10,9,12,80,{time.time() - 60}\n198.51.100.0/24,ams,30,29,32,70,{time.time() - 60}\n"
    )
    return directory / "steering.yaml"
