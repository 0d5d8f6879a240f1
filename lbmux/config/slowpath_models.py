"""What a mux does with the packets that are not plain, as parts of the configuration (lbmux.slowpath does it)."""

from typing import Annotated, Literal

from pydantic import Field

from lbmux.config.field_types import Model

OnNoBackend = Literal["reject", "drop", "withdraw"]
Echo = Literal["answer", "forward", "drop"]
TooBig = Literal["fragment", "drop"]


class Fragments(Model):
    """Bounds of the table and the buffer in which a mux keeps fragments together."""

    datagrams: Annotated[int, Field(strict=True, ge=16, le=1_000_000)] = 4096
    """Datagrams whose backend is remembered at a time."""
    buffered: Annotated[int, Field(strict=True, ge=0, le=65536)] = 1024
    """Fragments that wait for the first of their datagram, which has the ports."""
    buffered_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    """How long they wait, in seconds."""
    idle_s: Annotated[float, Field(gt=0, le=60)] = 15.0
    """How long a datagram's backend is remembered after its last fragment, in seconds."""


class SlowPath(Model):
    """What a mux does in user space, packet by packet."""

    echo: Echo = "answer"
    """What becomes of a ping of a VIP: answered while a backend takes new flows, forwarded to one, or dropped."""
    too_big: TooBig = "fragment"
    """What becomes of a packet that is too big for the tunnel where its sender allows fragments; else it gets ICMP."""
    icmp_per_s: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 1000
    """ICMP messages that the mux itself sends in a second at most, answers to pings among them."""
    rejects_per_s: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 1000
    """Packets in a second that are rejected at most, where a service has no backend (`on_no_backend`); what is over it
    is dropped and counted."""
    packets_per_s: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 10_000
    """Packets in a second that get this slower treatment at most; what is over it is dropped and counted."""
    second_chance: bool = True
    """Whether agents ask their hosts' sockets about a TCP connection that they do not know, and give its packets back
    to the mux where the host has none, for another host to be tried."""
    second_chance_max_hosts: Annotated[int, Field(strict=True, ge=2, le=65535)] = 32
    """Hosts that one connection is looked for at, the likeliest first: the slot's, the one that the slot had before,
    then others of the service. Where none of them has it the client gets a reset, so in a service with more backends a
    connection may end that a host has; but each packet that belongs to nothing costs as many packets. Each host that
    is asked also takes one from the packet's TTL, so more than about 50 are never reached."""
    second_chance_cpu: Annotated[float, Field(gt=0, le=1)] = 0.5
    """CPU time that packets which hosts give back may take, as a share of one core; what is over it is dropped."""
    path_mtu_floor: Annotated[int, Field(strict=True, ge=552, le=1500)] = 1280
    """The least path MTU to a host, in bytes, that an ICMP error is believed to tell of unless it quotes a packet of a
    flow that the mux knows. Routers may quote too little for that, and forgers do not know it."""
    fragments: Fragments = Fragments()
    """Limits of what is remembered of fragmented datagrams."""
