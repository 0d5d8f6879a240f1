"""The limit: the mux's own loop and ring around a data path that looks nothing up and grows no frame."""

import asyncio
import sys

import numpy as np

from lbmux.codegen.compiled import compiled
from lbmux.daemons.packet_loop import PacketLoop
from lbmux.daemons.process import notify, run, stop_event
from lbmux.datapath.headers import ethernet
from lbmux.datapath.memory import at_address
from lbmux.frames.batch import Batch
from lbmux.linux.offloads import without_super_frames


class Empty:
    """Takes the Worker's place: it returns every frame to its sender."""

    def forward(self, batch: Batch, now: int) -> None:
        _turn_round(batch.address, batch.verdict, batch.count)


@compiled
def _turn_round(address, verdict, count):  # type: ignore[no-untyped-def]
    for index in range(count):
        eth = ethernet(at_address(np.uint64(address[index])), 0)
        low, high = eth.destination_low, eth.destination_high
        eth.destination_low = np.uint32(eth.source_high) | np.uint32((eth.source_low & 0xFFFF) << 16)
        eth.destination_high = eth.source_low >> 16
        eth.source_high, eth.source_low = low & 0xFFFF, (low >> 16) | (np.uint32(high) << np.uint32(16))
        verdict[index] = 0


async def serve(interface: str, kind: str) -> None:
    """``kind``: one of bench.rings.RINGS."""
    from bench.rings import RINGS

    with without_super_frames(interface), RINGS[kind](interface) as ring:
        loop = PacketLoop(ring, Empty())
        loop.warm_up()
        stop = stop_event()
        asyncio.get_running_loop().add_reader(ring.fileno(), loop.read)
        notify("READY=1")
        await stop.wait()


if __name__ == "__main__":
    run(serve(*sys.argv[1:]))
