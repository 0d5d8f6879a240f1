"""A new VIP, from the request to the manager to its route in the router's kernel: in a lab with muxes and BIRD.

Each change applies the whole file with one more service. Agents of three hosts, which have backends of a part of the
services and of the new one, take the change before the muxes. Muxes do not probe hosts, since most do not exist. The
route is there when the kernel of the router's namespace says so (rtnetlink), through the first mux that announces it.
All machines share the cores of this one.
"""

import contextlib
import http.client
import json
import os
import socket
import statistics
import time
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from bench.report import Result
from lbmux.lab.lab import Lab
from lbmux.lab.managed import manager_address, with_managers
from lbmux.lab.systems.common_nodes import SPEAKER
from lbmux.lab.topology import Topology, ananta_bgp
from lbmux.manager.api_client import PORT, ApiClient, trusting
from lbmux.manager.api_models import StatusAnswer

SERVICES, BACKENDS, VIPS = 1000, 10, 20
HOSTS, OTHER_HOSTS, SHARE = 3, 100, 20
"""Hosts with agents, and addresses of hosts that do not exist; one service in SHARE has backends on the former."""
POOLS = ((1, 1), (5, 4))
"""Managers and muxes."""
WAIT_S = 60.0
RTMGRP_IPV4_ROUTE, RTM_NEWROUTE, SO_RCVBUFFORCE = 0x40, 24, 33


def run() -> list[Result]:
    return [one for managers, muxes in POOLS for one in _results(managers, muxes)]


def _results(managers: int, muxes: int) -> list[Result]:
    lab = Lab(_topology(managers, muxes), f"benchvips{os.getpid()}")
    try:
        lab.up()
        times = _times(lab, managers)
    finally:
        lab.down()
    store = "SQLite" if managers == 1 else f"etcd, {managers} managers"
    what = f"{store}, {SERVICES} x {BACKENDS}, {'1 mux' if muxes == 1 else f'{muxes} muxes'}: a new VIP in the router"
    return [
        Result("manager", f"{what}, median", statistics.median(times), "ms", goal="<= 150"),
        Result("manager", f"{what}, longest", max(times), "ms"),
    ]


def _topology(managers: int, muxes: int) -> Topology:
    plain = with_managers(ananta_bgp(*SPEAKER, mux_count=muxes), managers)
    services = [_service(number) for number in range(SERVICES)]
    settings = {"muxes": plain.config["muxes"], "maglev": {"size": 251}, "tunnel": {"probes": False}}
    return replace(plain, config={**settings, "services": services})


def _service(number: int, is_local: bool = False) -> dict[str, Any]:
    """Return a service; some of its backends are on hosts with agents if it is ``is_local``, or one in SHARE."""
    dips = [f"10.100.0.{1 + (number * BACKENDS + backend) % OTHER_HOSTS}" for backend in range(BACKENDS)]
    if is_local or number % SHARE == 0:
        dips[:HOSTS] = [f"10.1.{host + 1}.2" for host in range(HOSTS)][:BACKENDS]
    backends = [{"name": f"b{at}", "dip": dip} for at, dip in enumerate(dips)]
    return {"name": f"s{number}", "vip": str(_vip(number)), "protocol": "tcp", "port": 80, "backends": backends}


def _vip(number: int) -> IPv4Address:
    return IPv4Address("192.0.0.0") + 256 * number + 1


def _times(lab: Lab, managers: int) -> list[float]:
    """Return the time from each request to its route, in milliseconds."""
    pool, found = lab.directory / "pool", list[float]()
    token, ca = (pool / "token").read_text(), (pool / "manager1" / "ca.crt").read_text()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    address = lab.inside("client", lambda: _primary(token, ca, managers))
    file = lab.config.read_text()
    with contextlib.closing(lab.inside("router", _routes)) as routes:
        api = http.client.HTTPSConnection(address, PORT, context=trusting(ca), timeout=WAIT_S)
        lab.inside("client", api.connect)
        _until_first(lab, _vip(SERVICES - 1))
        for number in range(SERVICES, SERVICES + VIPS):
            file += f"- {json.dumps(_service(number, True))}\n"
            body = json.dumps({"file": file})
            begun = time.perf_counter()
            api.request("POST", "/v1/config", body, headers)
            _until(routes, _vip(number))
            found.append(1000 * (time.perf_counter() - begun))
            answer = api.getresponse()
            text = answer.read()
            assert answer.status == 200, text
    return found


def _primary(token: str, ca: str, managers: int) -> str:
    for number in range(1, managers + 1):
        client = ApiClient([f"https://{manager_address(number)}:{PORT}"], token, trusting(ca))
        if client.get("/v1/status", StatusAnswer).is_primary:
            return manager_address(number)
    raise AssertionError("no manager is primary")


def _routes() -> socket.socket:
    """Return a socket on which the kernel announces new routes."""
    routes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    routes.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
    routes.bind((0, RTMGRP_IPV4_ROUTE))
    routes.settimeout(WAIT_S)
    return routes


def _until_first(lab: Lab, vip: IPv4Address) -> None:
    """Wait until the muxes have announced what the pool begins with."""
    deadline = time.monotonic() + WAIT_S
    while not lab.run("router", ["ip", "route", "show", str(vip)], capture_output=True).stdout:
        assert time.monotonic() < deadline, "no mux announces the VIPs"
        time.sleep(0.1)


def _until(routes: socket.socket, vip: IPv4Address) -> None:
    """Wait until the kernel has a route to a VIP."""
    while True:
        message = routes.recv(1 << 16)
        if int.from_bytes(message[4:6], "little") == RTM_NEWROUTE and vip.packed in message:
            return
