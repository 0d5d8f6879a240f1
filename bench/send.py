"""A generator: TCP frames of many flows to the VIP, as fast as a packet socket takes them or at a rate."""

import argparse
import json
import os
import time
from pathlib import Path

from bench.frames import Frames
from lbmux.frames.batch import Batch
from lbmux.frames.packet_ring import PacketRing

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("interface")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--flows", type=int, default=1000)
    parser.add_argument("--pps", type=int, default=0)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {0})
    frames = Frames(arguments.flows, destination=peer_mac(arguments.interface))
    sent = 0
    with PacketRing(arguments.interface, frames=64) as ring:
        batches = [_part(frames, at) for at in range(0, arguments.flows, BATCH)]
        start = time.perf_counter()
        while (elapsed := time.perf_counter() - start) < arguments.seconds:
            if arguments.pps and sent >= elapsed * arguments.pps:
                time.sleep(0.001)
                continue
            batch = batches[sent // BATCH % len(batches)]
            ring.send(batch)
            sent += BATCH
    print(json.dumps({"sent": sent, "seconds": time.perf_counter() - start}))


def _part(frames: Frames, at: int) -> Batch:
    batch = Batch(BATCH)
    batch.count = min(BATCH, frames.count - at)
    batch.address[: batch.count] = frames.batch.address[at : at + batch.count]
    batch.length[: batch.count] = frames.batch.length[at : at + batch.count]
    return batch


def peer_mac(interface: str) -> str:
    """Return the peer's MAC address from the ARP table, or the broadcast address, which a bridge would flood."""
    text = Path("/proc/net/arp").read_text().splitlines()[1:]
    known = [line.split()[3] for line in text if line.split()[5] == interface]
    return known[0] if known else "ff:ff:ff:ff:ff:ff"


if __name__ == "__main__":
    main()
