"""Translate: VIP and port to DIP and port on the way in, and back on the way out (RFC 3022).

Checksums change by the difference (RFC 1624).  On the way out in the kernel a transport checksum may still be
unfinished, so there it is the kernel that replaces it: the only step with two bodies.
"""

from numba.extending import overload

from lbmux.datapath.checksums import replace
from lbmux.datapath.headers import ETHERNET_BYTES, IPV4_BYTES, TCP, TCP_PROTOCOL, UDP, ipv4, tcp, udp
from lbmux.datapath.memory import STEP_OPTIONS, int64, step, u16, u32, u64
from lbmux.datapath.world import replace_transport_checksum

TRANSPORT = ETHERNET_BYTES + IPV4_BYTES
TCP_CHECKSUM = TRANSPORT + TCP.fields["checksum"][1]  # type: ignore[index]
UDP_CHECKSUM = TRANSPORT + UDP.fields["checksum"][1]  # type: ignore[index]
PSEUDO_HEADER, ZERO_IS_NONE = 0x10, 0x20  # flags of bpf_l4_csum_replace, with the size of what is replaced
FOUR_BYTES = 4


def fix_transport(world, start, protocol, before, after, ports, new_ports):
    """The transport checksum after an address (part of the pseudo header) and the ports have changed."""
    raise NotImplementedError("compiled code only")


@step
def _in_place(world, start, protocol, before, after, ports, new_ports):
    """A UDP checksum of zero stays: the sender gave none (RFC 768)."""
    if protocol == TCP_PROTOCOL:
        segment = tcp(start, TRANSPORT)
        segment.checksum = replace(replace(segment.checksum, before, after), ports, new_ports)
        return
    datagram = udp(start, TRANSPORT)
    if datagram.checksum != 0:
        checksum = replace(replace(datagram.checksum, before, after), ports, new_ports)
        datagram.checksum = checksum if checksum != 0 else u16(0xFFFF)


@step
def _by_kernel(world, start, protocol, before, after, ports, new_ports):
    offset, flags = int64(TCP_CHECKSUM), u64(FOUR_BYTES)
    if protocol != TCP_PROTOCOL:
        offset, flags = int64(UDP_CHECKSUM), u64(FOUR_BYTES | ZERO_IS_NONE)
    replace_transport_checksum(world, offset, before, after, flags | u64(PSEUDO_HEADER))
    replace_transport_checksum(world, offset, ports, new_ports, flags)


@overload(fix_transport, jit_options=STEP_OPTIONS)
def _fix_transport(world, start, protocol, before, after, ports, new_ports):
    chosen = _by_kernel if world.target == "tc" else _in_place

    def body(world, start, protocol, before, after, ports, new_ports):
        chosen(world, start, protocol, before, after, ports, new_ports)

    return body


@step
def set_ports(start, protocol, ports):
    if protocol == TCP_PROTOCOL:
        tcp(start, TRANSPORT).ports = ports
    else:
        udp(start, TRANSPORT).ports = ports


@step
def translate_destination(world, start, packet, address, port):
    """The packet's destination becomes ``address`` (32 bits) and ``port``, both as loaded."""
    ip = ipv4(start, ETHERNET_BYTES)
    before = ip.destination
    ip.destination = address
    ip.checksum = replace(ip.checksum, before, address)
    ports = u32((packet.ports & u32(0x0000FFFF)) | u32(u32(port) << u32(16)))
    set_ports(start, packet.protocol, ports)
    fix_transport(world, start, packet.protocol, before, address, packet.ports, ports)


@step
def translate_source(world, start, packet, address, port):
    """The reply's source becomes ``address`` (32 bits) and ``port``, both as loaded."""
    ip = ipv4(start, ETHERNET_BYTES)
    before = ip.source
    ip.source = address
    ip.checksum = replace(ip.checksum, before, address)
    ports = u32((packet.ports & u32(0xFFFF0000)) | u32(port))
    set_ports(start, packet.protocol, ports)
    fix_transport(world, start, packet.protocol, before, address, packet.ports, ports)
