"""A service without a backend, as its clients see it: refused at once, or, with `drop`, silence."""

import socket
import time
from typing import Any

import pytest

from lbmux.lab.lab import Lab
from tests.api.asking import ask
from tests.daemons.running_daemons import Daemon, running
from tests.daemons.slow_lab import PORT, VIPS, client_socket, configuration, counters, to_one_mux
from tests.daemons.web_lab import wait

pytestmark = pytest.mark.root
FAMILIES = pytest.mark.parametrize("family", [4, 6])
DRIVERS = pytest.mark.parametrize("options", [(), ("--driver", "xdp", "--detach-on-exit")], ids=["packet", "xdp"])


def without_backends(lab: Lab, options: tuple[str, ...], action: str, **more: Any) -> Any:
    config = configuration(hosts=(1,)) | more
    for service in config["services"]:
        service |= {"backends": [], "on_no_backend": action}
    lab.write_config(config)
    to_one_mux(lab)
    return running(lab, "mux1", "mux", *options)


def outcome(lab: Lab, family: int, protocol: str, timeout_s: float = 3.0) -> str:
    """Return what a client's socket receives."""
    with client_socket(lab, family, protocol) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect((VIPS[family], PORT[protocol]))
            sock.send(b"a question")
            sock.recv(100)
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "silence"
    return "answered"


@DRIVERS
def test_clients_are_refused_at_once(lab: Lab, options: tuple[str, ...]) -> None:
    with without_backends(lab, options, "reject") as mux:
        for family in (4, 6):
            for protocol in ("tcp", "udp"):
                begun = time.monotonic()
                assert outcome(lab, family, protocol) == "refused", (family, protocol)
                assert time.monotonic() - begun < 1
        assert counters(mux)["rejected_reset"] >= 2 and counters(mux)["rejected_unreachable"] >= 2


@DRIVERS
def test_with_drop_clients_get_no_answer(lab: Lab, options: tuple[str, ...]) -> None:
    with without_backends(lab, options, "drop") as mux:
        assert outcome(lab, 4, "tcp", 0.5) == outcome(lab, 4, "udp", 0.5) == "silence"
        assert "rejected_reset" not in counters(mux)


def flood(lab: Lab, count: int) -> None:
    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(count):
                sock.sendto(b"x", (VIPS[4], PORT["udp"]))

    lab.inside("client", send)


def without_backend(mux: Daemon) -> int:
    verdicts = ask(mux.control, "counters")["verdicts"]
    return sum(line["packets"] for line in verdicts if line["verdict"] == "no_backend")


def rejected(mux: Daemon) -> int:
    return counters(mux).get("rejected_unreachable", 0)


@DRIVERS
def test_a_flood_is_rejected_at_a_limited_rate(lab: Lab, options: tuple[str, ...]) -> None:
    with without_backends(lab, options, "reject", slowpath={"rejects_per_s": 50}) as mux:
        begun = time.monotonic()
        flood(lab, 2000)
        wait(lambda: without_backend(mux) >= 1000 and rejected(mux) > 0, mux)
        assert rejected(mux) <= 10 + 50 * (time.monotonic() - begun)
