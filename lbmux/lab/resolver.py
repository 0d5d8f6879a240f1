"""A resolver of the lab: Unbound, which sends the client's subnet to the authoritative server (RFC 7871).

    python -m lbmux.lab.resolver DIRECTORY --listen 10.201.0.2 --authority 10.255.0.254 --zone www.example.net

``--min-ttl`` makes it keep answers longer than their TTL says.  With ``--no-subnet`` the server sees only the resolver.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

SEARCH = "/usr/sbin:/usr/local/sbin:/usr/bin"
CONFIGURATION = """\
server:
  directory: "{directory}"
  username: ""
  chroot: ""
  pidfile: ""
  use-syslog: no
  interface: {listen}
  outgoing-interface: {listen}
  access-control: 0.0.0.0/0 allow
  module-config: "{modules}"
  cache-min-ttl: {min_ttl_s}
  infra-host-ttl: 1
{subnet}
remote-control:
  control-enable: no
stub-zone:
  name: "{zone}"
  stub-addr: {authority}
"""


def configuration(directory: Path, listen: str, authority: str, zone: str, min_ttl_s: int, subnet: bool) -> str:
    return CONFIGURATION.format(
        directory=directory, listen=listen, authority=authority, zone=zone, min_ttl_s=min_ttl_s,
        modules="subnetcache iterator" if subnet else "iterator",
        subnet=f"  send-client-subnet: {authority}" if subnet else "",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--authority", required=True)
    parser.add_argument("--zone", required=True)
    parser.add_argument("--min-ttl", type=int, default=0, help="seconds that each answer is kept at least")
    parser.add_argument("--no-subnet", action="store_true", help="do not send clients' subnets")
    options = parser.parse_args()
    program = shutil.which("unbound", path=SEARCH)
    if program is None:
        sys.exit("unbound is not installed: install the package unbound")
    options.directory.mkdir(exist_ok=True)
    file = options.directory / "unbound.conf"
    file.write_text(configuration(
        options.directory, options.listen, options.authority, options.zone, options.min_ttl, not options.no_subnet
    ))  # fmt: skip
    os.execv(program, [program, "-d", "-c", str(file)])  # it reports readiness by sd_notify


if __name__ == "__main__":
    main()
