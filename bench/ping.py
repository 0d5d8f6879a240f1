"""Sends one frame at a time and waits for it to come back: the round-trip time in microseconds."""

import argparse
import json
import os
import socket
import time

from bench.frames import tcp_frame
from bench.send import peer_mac

ETH_P_IP = 0x0800
TIMEOUT_S = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("interface")
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--pps", type=int, default=1000)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {0})
    frame = tcp_frame(destination=peer_mac(arguments.interface))
    times, lost = [], 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.setsockopt(263, 23, 1)  # SOL_PACKET, PACKET_IGNORE_OUTGOING
        sock.bind((arguments.interface, ETH_P_IP))
        sock.settimeout(TIMEOUT_S)
        begin = time.perf_counter()
        for sample in range(arguments.samples):
            while time.perf_counter() < begin + sample / arguments.pps:
                pass
            start = time.perf_counter_ns()
            sock.send(frame)
            try:
                sock.recv(2048)
            except TimeoutError:
                lost += 1
                continue
            times.append((time.perf_counter_ns() - start) / 1000)
    times.sort()
    figures = {"median_us": times[len(times) // 2], "p99_us": times[len(times) * 99 // 100], "longest_us": times[-1]}
    print(json.dumps(figures | {"lost": lost, "samples": len(times)}))


if __name__ == "__main__":
    main()
