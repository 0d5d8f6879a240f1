"""ExaBGP's API process: relays commands from the mux's socket to ExaBGP, and its answers back.

    python exabgp_relay.py SOCKET

ExaBGP exchanges messages with a child process over stdin and stdout.  The mux cannot be that child, so this process
connects the two.  It exits when either side closes, and ExaBGP then exits too (``api.terminate``).  It needs the
standard library only.
"""

import os
import select
import socket
import sys


def relay(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as mux:
        mux.connect(path)
        while True:
            readable = select.select([0, mux.fileno()], [], [])[0]
            if mux.fileno() in readable:
                if not (data := mux.recv(65536)):
                    return
                while data:
                    data = data[os.write(1, data) :]
            if 0 in readable:
                if not (data := os.read(0, 65536)):
                    return
                mux.sendall(data)


if __name__ == "__main__":
    relay(sys.argv[1])
