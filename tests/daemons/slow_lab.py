"""A mux and two translating agents for the slow path's live tests: services of both families, servers behind them."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import set_route
from lbmux.lab.topology import VIP, VIP6, Route
from tests.api.asking import ask
from tests.daemons.running_daemons import READY, START_S, Daemon, running, started, wait_for_hosts

CLIENT, CLIENT6 = "198.51.100.2", "2001:db8:100::2"
VIPS = {4: VIP, 6: VIP6}
DIPS = {4: "10.1.{}.2", 6: "2001:db8:1:{}::2"}
HOSTS = (1, 2)
SERVER = {"tcp": 8080, "udp": 5353}
PORT = {"tcp": 80, "udp": 53}
ROUTER_END = "to-client"


def configuration(hosts: tuple[int, ...] = HOSTS, **more: Any) -> dict[str, Any]:
    services = [
        {
            "name": f"{protocol}{family}", "vip": VIPS[family], "protocol": protocol, "port": PORT[protocol],
            "backends": [
                {"name": f"h{n}", "dip": DIPS[family].format(n), "port": SERVER[protocol]} for n in hosts
            ],
        }
        for family in (4, 6)
        for protocol in ("tcp", "udp")
    ]  # fmt: skip
    muxes = ["10.0.1.2", "2001:db8:0:1::2"]
    return {"muxes": muxes, "maglev": {"size": 251}, "flows": {"limit": 4096}, "services": services} | more


def to_one_mux(lab: Lab) -> None:
    """The router sends the IPv6 VIP to mux1, as it does with the IPv4 one."""
    lab.inside("router", lambda: set_route(Route(f"{VIP6}/128", ("2001:db8:0:1::2",))))


def forget_path_mtus(lab: Lab) -> None:
    """What an earlier test left: a host would have to learn again that a path's MTU has grown."""
    for node in ("client", "mux1", *(f"host{n}" for n in HOSTS)):
        for family in ("-4", "-6"):
            lab.run(node, ["ip", family, "route", "flush", "cache"], check=True, timeout=10)


@contextlib.contextmanager
def balanced(
    lab: Lab,
    hosts: tuple[int, ...] = HOSTS,
    options: tuple[str, ...] = (),
    agent_options: tuple[str, ...] = (),
    **more: Any,
) -> Iterator[Daemon]:
    """The mux, ``options`` its own, with its hosts' agents beside it; the router sends both VIPs to it.

    The agents first: a mux gives no traffic to a host that has not answered its probes for a while.
    """
    lab.write_config(configuration(hosts, **more))
    to_one_mux(lab)
    forget_path_mtus(lab)
    with contextlib.ExitStack() as stack:
        agents = [stack.enter_context(started(lab, f"host{n}", "agent", *agent_options)) for n in hosts]
        for agent in agents:
            agent.wait_for(READY["agent"], START_S)
        mux = stack.enter_context(running(lab, "mux1", "mux", *options))
        wait_for_hosts(mux, *(dip.format(n) for dip in DIPS.values() for n in hosts))
        yield mux


def counters(daemon: Daemon) -> dict[str, int]:
    """What became of packets in its slow path."""
    counts: dict[str, int] = ask(daemon.control, "counters")["slowpath"]
    return counts


@contextlib.contextmanager
def served(lab: Lab, family: int, protocol: str, serve: Any, hosts: tuple[int, ...] = HOSTS) -> Iterator[None]:
    """A server on each host: ``serve(socket, host)`` in a thread, until the socket is closed."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM

    def listen(n: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((DIPS[family].format(n), SERVER[protocol]))
        if protocol == "tcp":
            sock.listen()
        return sock

    def work(sock: socket.socket, n: int) -> None:
        with contextlib.suppress(OSError):  # closed at the end
            serve(sock, n)

    sockets = [lab.inside(f"host{n}", lambda n=n: listen(n)) for n in hosts]
    threads = [
        threading.Thread(target=work, args=(sock, n), daemon=True) for sock, n in zip(sockets, hosts, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in threads:
            thread.join(5)


def client_socket(lab: Lab, family: int, protocol: str) -> socket.socket:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, kind)
        sock.settimeout(10)
        return sock

    return lab.inside("client", make)
