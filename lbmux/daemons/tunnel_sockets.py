"""Open sockets of the tunnel protocols, so that the kernel answers tunnelled packets with no ICMP error.

Without a socket the kernel sends "protocol unreachable" (IPIP, GRE) or "port unreachable" (GUE, Geneve) to the mux.
"""

import contextlib
import itertools
import socket
from collections.abc import Iterator

from lbmux.errors import SetupError
from lbmux.frames.socket_filters import NOTHING, attach, ignore_path_mtus

TUNNEL_PROTOCOLS = (socket.IPPROTO_IPIP, socket.IPPROTO_IPV6, socket.IPPROTO_GRE)


@contextlib.contextmanager
def tunnel_sockets(*udp_ports: int) -> Iterator[None]:
    """Hold a socket per tunnel protocol and UDP port, in both families; they receive nothing."""
    kinds = [(socket.SOCK_RAW, protocol, 0) for protocol in TUNNEL_PROTOCOLS]
    kinds += [(socket.SOCK_DGRAM, 0, port) for port in udp_ports]
    with contextlib.ExitStack() as stack:
        for family, (kind, protocol, port) in itertools.product((socket.AF_INET, socket.AF_INET6), kinds):
            try:
                sock = stack.enter_context(socket.socket(family, kind, protocol))
                attach(sock, NOTHING)
                ignore_path_mtus(sock)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                if port:
                    sock.bind(("", port))
            except PermissionError as error:
                raise SetupError("raw socket", "not permitted", "needs CAP_NET_RAW: run as root") from error
            except OSError:
                continue  # the kernel has no IPv6, or another program has the port and answers itself
        yield
