"""Configuration of the slow path: pings, ICMP errors, fragments, rejects; `lbmux.slowpath` handles them."""

from typing import Annotated, Literal

from pydantic import Field

from lbmux.config.field_types import Model

OnNoBackend = Literal["reject", "drop", "withdraw"]
Echo = Literal["answer", "forward", "drop"]
TooBig = Literal["fragment", "drop"]


class Fragments(Model):
    """Limits of the table and the buffer with which a mux sends all fragments of a datagram to one backend."""

    datagrams: Annotated[int, Field(strict=True, ge=16, le=1_000_000)] = 4096
    """Maximum number of fragmented datagrams whose backend is remembered."""
    buffered: Annotated[int, Field(strict=True, ge=0, le=65536)] = 1024
    """Maximum number of fragments held until the first fragment of their datagram, which has the ports, arrives. The
    sources of one prefix fill at most half of it."""
    buffered_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    """How long such a fragment is held, in seconds."""
    idle_s: Annotated[float, Field(gt=0, le=60)] = 15.0
    """How long a datagram's backend is remembered after its last fragment, in seconds."""


class SlowPath(Model):
    """The slow path: packets that a mux handles in user space, one by one. Clients share each of its budgets fairly, by
    prefix (/24 of IPv4, /48 of IPv6)."""

    echo: Echo = "answer"
    """What happens to a ping of a VIP. `answer`: the mux answers while a backend takes new flows. `forward`: a backend
    gets it. `drop`: it is dropped."""
    too_big: TooBig = "fragment"
    """What happens to a packet that exceeds the tunnel's MTU and may be fragmented. If it may not, its sender always
    gets an ICMP error."""
    icmp_per_s: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 1000
    """Maximum number of ICMP messages per second that the mux itself sends, answers to pings included."""
    rejects_per_s: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 1000
    """Maximum number of packets per second that are rejected because a service has no backend (`on_no_backend`);
    packets beyond it are dropped and counted."""
    packets_per_s: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 10_000
    """Maximum number of packets per second that take the slow path; packets beyond it are dropped and counted."""
    cpu: Annotated[float, Field(gt=0, le=1)] = 0.3
    """CPU time at a mux for fragments, ICMP, and packets that are too big or whose TTL ends, as a share of one core;
    packets beyond it are dropped. It suffices for about 2000 packets a second."""
    second_chance: bool = True
    """Whether an agent looks for the socket of a TCP connection that it does not know, and returns the packet to the
    mux if its host has none. The mux then tries another host."""
    second_chance_max_hosts: Annotated[int, Field(strict=True, ge=2, le=65535)] = 32
    """Maximum number of hosts that are tried for one connection, the most likely first: the slot's host, the slot's
    former host, then the others of the service. If none of them has the connection, the client gets a reset; a service
    with more backends may thus lose a connection that exists. Each packet without a connection costs one packet per
    host tried. Each try also decrements the packet's TTL, so at most about 50 hosts are reached."""
    second_chance_cpu: Annotated[float, Field(gt=0, le=1)] = 0.2
    """CPU time at a mux for packets that hosts return, as a share of one core; packets beyond it are dropped."""
    second_chance_agent_cpu: Annotated[float, Field(gt=0, le=1)] = 0.2
    """CPU time at an agent for packets of unknown connections and for ICMP, as a share of one core; packets beyond it
    are dropped, and senders of connections repeat them."""
    path_mtu_floor: Annotated[int, Field(strict=True, ge=552, le=1500)] = 1280
    """Lowest path MTU to a host, in bytes, that is taken from an ICMP error. A forger can quote a packet of a
    connection of its own, and the path MTU applies to all connections of the host. Set it to the narrowest IPv4 path
    to your hosts if that is below the default."""
    fragments: Fragments = Fragments()
    """Limits of the state of fragmented datagrams."""
