"""`lbmux show services --ipvs`, whole: the form of `ipvsadm -L -n`, to the last blank."""

from pathlib import Path

import pytest

from lbmux.api.answers import Backends, Health, Services
from lbmux.api.requests import GetBackends, GetHealth, GetRuntime, GetServices
from lbmux.cli.main import run
from tests.api.answering import answering, said
from tests.api.lines import backend_line, flow_table, health_line, runtime, service_line

SERVICES = [
    service_line(service="web", vip="192.0.2.1", protocol="tcp", port=80),
    service_line(service="dns", vip="2001:db8::53", protocol="udp", port=53),
    service_line(service="empty", vip="192.0.2.2", protocol="tcp", port=0),
]
HEALTH = [
    health_line(service="web", backend="h1", dip="10.1.1.2", port=8080, weight=1, tunnel="ipip"),
    health_line(service="web", backend="h2", dip="10.1.2.2", port=80, weight=20, tunnel="direct"),
    health_line(service="web", backend="h3", dip="10.1.3.2", port=80, weight=7, tunnel="gue1"),  # down
    health_line(service="dns", backend="h1", dip="2001:db8:1:1::2", port=5353, weight=3, tunnel="ipip"),
]
BACKENDS = [
    backend_line(service="web", backend="h1", weight=1, live_flows=140, trusted_flows=40),
    backend_line(service="web", backend="h2", weight=20, live_flows=12345, trusted_flows=12345),
    backend_line(service="dns", backend="h1", weight=0, live_flows=2, trusted_flows=0),  # drains
]
WANT = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.0.2.1:80 mh
  -> 10.1.1.2:8080                Tunnel  1      40         100       $
  -> 10.1.2.2:80                  Route   20     12345      0         $
  -> 10.1.3.2:80                  Tunnel  0      0          0         $
UDP  [2001:db8::53]:53 mh
  -> [2001:db8:1:1::2]:5353       Tunnel  0      0          2         $
TCP  192.0.2.2:0 mh
""".replace("$", "")


def test_services_as_ipvsadm_prints_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mux.sock"
    handlers = {
        GetServices: said(Services(1, "mux", SERVICES)),
        GetBackends: said(Backends(1, "mux", BACKENDS)),
        GetHealth: said(Health(1, "mux", HEALTH)),
        GetRuntime: said(runtime(tables=flow_table(0, 4096))),
    }
    with answering(path, handlers):
        assert run(["show", "services", "--ipvs", "--control", str(path)]) == 0
    assert capsys.readouterr().out == WANT
