"""A simple scapy balancer for comparison: sniff, hash, send."""

import sys

import mmh3
from scapy.arch.linux import L2Socket
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether, getmacbyip
from scapy.packet import Packet

from bench.frames import BACKENDS, VIP
from lbmux.daemons.process import notify


def main() -> None:
    interface, gateway = sys.argv[1:]
    destination = getmacbyip(gateway) or "ff:ff:ff:ff:ff:ff"
    sock = L2Socket(iface=interface)

    def forward(packet: Packet) -> None:
        if IP in packet and packet[IP].dst == VIP and TCP in packet:
            key = f"{packet[IP].src} {packet[TCP].sport}"
            backend = f"10.1.0.{mmh3.hash(key, signed=False) % BACKENDS + 1}"
            sock.send(Ether(dst=destination) / IP(src="10.9.0.2", dst=backend) / packet[IP])

    notify("READY=1")
    while True:
        packet = sock.recv()
        if packet is not None:
            forward(packet)


if __name__ == "__main__":
    main()
