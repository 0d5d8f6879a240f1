"""Pins in a BPF file system that ends with the process are reported at the start and by the doctor; lasting ones are
not.
"""

import signal
import subprocess
import sys

import pytest

from lbmux.frames.xdp import detach
from lbmux.lab.lab import Lab
from lbmux.tools.doctor import daemon_checks
from tests.api.asking import ask
from tests.daemons.running_daemons import START_S, Daemon, configuration, service
from tests.lab.routed import until
from tests.tools.doctor.node_states import node

pytestmark = pytest.mark.root
OPTIONS = ("--driver", "xdp", "--xdp-mode", "generic")


def attached(lab: Lab) -> bool:
    shown = lab.run("mux1", ["ip", "link", "show", "eth0"], capture_output=True, text=True).stdout
    return "xdp" in shown


@pytest.mark.parametrize(("by", "ends"), [("ip", True), ("nsenter", False)])
def test_a_bpffs_that_ends_with_the_process_is_reported(lab: Lab, by: str, ends: bool) -> None:
    lab.write_config(configuration(service("web", 80, [{"dip": "10.1.1.2"}])))
    name = lab.namespace("mux1")
    prefix = {"ip": ("ip", "netns", "exec", name), "nsenter": ("nsenter", f"--net=/run/netns/{name}")}[by]
    mux = Daemon(lab, "mux1", "mux", *OPTIONS, prefix=prefix)
    try:
        mux.wait_for(" 1 service", START_S)
        assert ("ends with this process's own mount namespace" in mux.log) == ends
        runtime = ask(mux.control, "runtime")
        findings = [*daemon_checks.driver(node("mux", runtime=runtime))]
        assert [finding.state for finding in findings] == (["ok", "warning"] if ends else ["ok"])
        mux.end(signal.SIGKILL)
        if ends:
            until(lambda: not attached(lab))
        else:
            assert attached(lab)
    finally:
        mux.process.kill()
        mux.process.wait()
        lab.inside("mux1", lambda: detach("eth0"))


def test_a_containers_own_bpffs_is_reported() -> None:
    """The mux runs in a PID namespace of its own, as in a container."""
    code = "from lbmux.targets.bpf import pins; pins.mount(); print(repr(pins.lifetime_limit()))"
    command = 'umount -l /sys/fs/bpf; exec "$1" -c "$0"'
    ran = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", command, code, sys.executable],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout == "'this container'\n"
