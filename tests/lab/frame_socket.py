"""Packets by hand, run in a namespace: sends flows with retransmissions, looks at how packets arrive.

frame_socket.py flows VIP PORT FLOWS PACKETS     each flow a SYN that is sent again and again
frame_socket.py arrive INTERFACE                 prints "ready", and when its input ends what TCP packets there were
"""

import json
import select
import socket
import struct
import sys
import time

ETH_P_IP = 0x0800
SOL_PACKET, PACKET_AUXDATA = 263, 8
SO_RCVBUFFORCE = 33
CHECKSUM_NOT_READY = 1 << 3
FIRST_PORT = 40000


def flows(vip: str, port: int, count: int, packets: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
        for turn in range(packets):
            for flow in range(count):
                # The hash ignores flags and sequence numbers, so retransmissions match.
                sock.sendto(struct.pack("!HHIIBBHHH", FIRST_PORT + flow, port, turn, 0, 0x50, 2, 1024, 0, 0), (vip, 0))
            time.sleep(0.01)


def arrive(interface: str) -> None:
    """How many, how long the longest is, and how many have a checksum that a sender's card was to finish; as JSON."""
    packets = longest = unfinished = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sock:
        sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
        sock.bind((interface, ETH_P_IP))
        print("ready", flush=True)
        while sock in select.select([sock, sys.stdin], [], [])[0]:
            packet, notes, _, origin = sock.recvmsg(65536, 64)
            if origin[2] == socket.PACKET_HOST and packet[9] == socket.IPPROTO_TCP:
                (status,) = struct.unpack_from("=I", notes[0][2])
                packets, longest = packets + 1, max(longest, len(packet))
                unfinished += bool(status & CHECKSUM_NOT_READY)
    print(json.dumps({"packets": packets, "longest": longest, "unfinished": unfinished}))


if __name__ == "__main__":
    if sys.argv[1] == "flows":
        flows(sys.argv[2], *(int(text) for text in sys.argv[3:]))
    else:
        arrive(sys.argv[2])
