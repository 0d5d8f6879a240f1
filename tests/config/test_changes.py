"""The changes that a reload reports."""

from pathlib import Path

from lbmux.config.changes import changes
from lbmux.config.loader import parse
from lbmux.config.models import Config

OLD = """\
services:
  - {name: web, vip: 192.0.2.1, protocol: tcp, port: 80, backends: [{dip: 10.0.0.1}, {dip: 10.0.0.2}]}
  - {name: dns, vip: 192.0.2.1, protocol: udp, port: 53, backends: []}
"""


def read(text: str) -> Config:
    return parse(text.encode(), Path("lbmux.yaml"))


def test_nothing() -> None:
    assert changes(read(OLD), read(OLD + "muxes: []\n")) == []


def test_backends() -> None:
    new = OLD.replace("{dip: 10.0.0.1}, {dip: 10.0.0.2}", "{dip: 10.0.0.2, weight: 3}, {dip: 10.0.0.3}")
    assert changes(read(OLD), read(new)) == [
        "service web: backend 10.0.0.1:80 removed",
        "service web: backend 10.0.0.3:80 added",
        "service web: backend 10.0.0.2:80 changed",
    ]


def test_services_and_settings() -> None:
    new = OLD.replace("name: dns", "name: names").replace("192.0.2.1, protocol: t", "192.0.2.2, protocol: t")
    assert changes(read(OLD), read(new + "maglev: {seed: 7}\n")) == [
        "maglev: changed",
        "service dns: removed",
        "service names: added",
        "service web: vip changed",
    ]


def test_whatever_else_a_file_may_have() -> None:
    new = OLD.replace("port: 80,", "port: 80, deny: [198.51.100.0/24], on_down: rehash,")
    assert changes(read(OLD), read(new + "tunnel: {kind: gre}\n")) == [
        "tunnel: changed",
        "service web: deny changed",
        "service web: on_down changed",
    ]


def test_pools() -> None:
    old = """\
pools: {front: [{name: h1, dip: 10.0.0.1}], gone: []}
services:
  - {name: web, vip: 192.0.2.1, protocol: tcp, port: 80, pool: front}
  - {name: tls, vip: 192.0.2.1, protocol: tcp, port: 443, pool: front}
"""
    new = old.replace("h1, dip: 10.0.0.1}], gone", "h2, dip: 10.0.0.2}], new").replace(
        "443, pool: front", "443, pool: new"
    )
    assert changes(read(old), read(new)) == [
        "pool gone: removed",
        "pool new: added",
        "pool front: backend h1 removed",
        "pool front: backend h2 added",
        "service tls: pool changed",
        "service tls: backend h1 removed",
    ]
