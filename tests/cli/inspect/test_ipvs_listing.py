"""`lbmux show services --ipvs`, whole: the form of `ipvsadm -L -n`, to the last blank."""

from pathlib import Path

import pytest

from lbmux.cli.main import run
from tests.api.answering import answering, said

SERVICES = [
    {"service": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80},
    {"service": "dns", "vip": "2001:db8::53", "protocol": "udp", "port": 53},
    {"service": "empty", "vip": "192.0.2.2", "protocol": "tcp", "port": 0},
]
HEALTH = [
    {"service": "web", "backend": "h1", "dip": "10.1.1.2", "port": 8080, "weight": 1, "tunnel": "ipip"},
    {"service": "web", "backend": "h2", "dip": "10.1.2.2", "port": 80, "weight": 20, "tunnel": "direct"},
    {"service": "web", "backend": "h3", "dip": "10.1.3.2", "port": 80, "weight": 7, "tunnel": "gue1"},  # down
    {"service": "dns", "backend": "h1", "dip": "2001:db8:1:1::2", "port": 5353, "weight": 3, "tunnel": "ipip"},
]
BACKENDS = [
    {"service": "web", "backend": "h1", "weight": 1, "live_flows": 140, "trusted_flows": 40},
    {"service": "web", "backend": "h2", "weight": 20, "live_flows": 12345, "trusted_flows": 12345},
    {"service": "dns", "backend": "h1", "weight": 0, "live_flows": 2, "trusted_flows": 0},  # drains
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
    path, flows = tmp_path / "mux.sock", {"tables": {"flows": {"rows": 4096}}}
    answers = {"services": SERVICES, "backends": BACKENDS, "health": HEALTH}
    handlers = {what: said({what: lines}) for what, lines in answers.items()} | {"runtime": said(flows)}
    with answering(path, handlers):
        assert run(["show", "services", "--ipvs", "--control", str(path)]) == 0
    assert capsys.readouterr().out == WANT
