"""Which backends new flows get, in both targets, as JSON: run by test_one_source.py, also on a changed copy."""

import json

from lbmux.targets.bpf.syscall import Attach
from lbmux.targets.bpf.test_runs import on_first_cpu
from tests.datapath.craft import SYN, Craft
from tests.datapath.harness import Frames, Machine
from tests.datapath.plain_mux import Backend, Service
from tests.datapath.plain_packet import TCP
from tests.targets.bpf.twins import Twins

FLOWS, BACKENDS = 200, 100
REMOTE_AT = 14 + 16 + 3
"""The offset of the outer destination's last byte, which is the backend's number."""


def main() -> None:
    machine = Machine.make(buckets=1024)
    slots = tuple(range(BACKENDS))
    machine.install_mux(
        [Service(Craft().destination, TCP, 80, slots)], [Backend(bytes([10, 1, 0, n])) for n in range(BACKENDS)]
    )
    frames = [Craft(source_port=1024 + n, flags=SYN).frame() for n in range(FLOWS)]
    with on_first_cpu(), Twins(machine, {"mux_xdp": Attach.XDP}) as twins:
        kernel = [run.frame[REMOTE_AT] for run in twins.run("mux_xdp", frames)[0]]
    batch = Frames(frames)
    machine.worker.forward(batch, 1)
    print(json.dumps({"native": batch.target.tolist(), "kernel": kernel}))


if __name__ == "__main__":
    main()
