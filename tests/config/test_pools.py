"""Named pools of backends: what services get of them, and what is refused."""

from pathlib import Path

import pytest

from lbmux.config import loader
from lbmux.config.loader import parse
from lbmux.config.models import MAX_BACKENDS, Config
from lbmux.errors import ConfigError

FILE = """\
services:
  - {name: web, vip: 192.0.2.1, protocol: tcp, port: 80, pool: front}
  - {name: tls, vip: 192.0.2.1, protocol: tcp, port: 443, pool: front}
  - {name: own, vip: 192.0.2.2, protocol: tcp, port: 80, backends: [{dip: 10.0.0.9}]}
pools:
  front:
    - {name: h1, dip: 10.0.0.1}
    - {dip: 10.0.0.2, weight: 3}
    - {dip: 10.0.0.3, port: 8080}
"""


def read(text: str) -> Config:
    return parse(text.encode(), Path("lbmux.yaml"))


def problems(text: str) -> dict[str, tuple[int | None, str]]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return {one.field: (one.line, one.message) for one in caught.value.problems}


def test_services_get_the_backends_of_their_pool() -> None:
    web, tls, own = read(FILE).services
    assert [(b.name, str(b.dip), b.port, b.weight) for b in tls.backends] == [
        ("h1", "10.0.0.1", 443, 1), ("10.0.0.2", "10.0.0.2", 443, 3), ("10.0.0.3:8080", "10.0.0.3", 8080, 1),
    ]  # fmt: skip
    assert [b.name for b in web.backends] == [b.name for b in tls.backends]  # hence the same Maglev table
    assert own.pool is None and [b.name for b in own.backends] == ["10.0.0.9:80"]


def test_services_with_one_port_share_the_memory() -> None:
    web, tls, _ = read(
        FILE.replace("vip: 192.0.2.1, protocol: tcp, port: 443", "vip: 192.0.2.9, protocol: tcp, port: 80")
    ).services
    assert web.backends is tls.backends


def test_what_is_written_out_is_read_again() -> None:
    config = read(FILE)
    assert Config.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    "old, new, field, line, why",
    [
        ("443, pool: front", "443, pool: frnt", "services[1].pool", 3, "there is no pool frnt: did you mean front?"),
        (", pool: front}", "}", "services[0].backends", 2, "is missing: list the servers, or name a `pool`"),
        ("80, pool: front", "80, pool: front, backends: []", "services[0].backends", 2,
         "does not apply: the service has `pool`"),
        ("dip: 10.0.0.2", "dip: 2001:db8::2", "services[0].pool", 2,
         "backend 2001:db8::2: `dip` is IPv6, but the VIP is IPv4 (only `host` may differ)"),
        ("dip: 10.0.0.2", "dip: 192.0.2.2", "services[1].pool", 3,
         "backend 192.0.2.2: `dip` is the VIP of service own: packets would loop back to the muxes"),
        ("weight: 3", "weigth: 3", "pools.front[1].weigth", 8, "is not a known field: did you mean `weight`?"),
        ("dip: 10.0.0.2", "name: h1, dip: 10.0.0.2", "pools.front[1].name", 8, "another backend has the name h1"),
        ("dip: 10.0.0.2", "dip: 10.0.0.1", "pools.front[1]", 8,
         "two backends of one service cannot share a host address (10.0.0.1): remove `host`"),
        ("  front:", "  a b: []\n  front:", "pools.a b", 6, "String should match pattern '^[^\\s\\x00-\\x1f\\x7f]+$'"),
    ],
)  # fmt: skip
def test_what_is_refused(old: str, new: str, field: str, line: int, why: str) -> None:
    assert problems(FILE.replace(old, new, 1))[field] == (line, why)


def test_a_pool_without_weight() -> None:
    found = problems("services: []\npools: {a: [{dip: 10.0.0.1, weight: 0}]}\n")
    assert found == {"pools.a": (2, "at least one backend should have a weight above 0")}


def test_a_pool_needs_no_service_and_no_backend() -> None:
    config = read(FILE.replace("pools:", "pools:\n  spare: [{dip: 10.0.0.7}]\n  none: []"))
    assert [len(backends) for backends in config.pools.values()] == [1, 0, 3]


def test_a_service_with_any_port() -> None:
    config = read(FILE.replace("port: 80, pool", "port: any, pool", 1).replace("port: 443", "port: 443, port_to: 444"))
    assert [[b.port for b in service.backends] for service in config.services[:2]] == [[0, 0, 8080]] * 2


def test_server_ids_need_quic_in_each_service() -> None:
    text = FILE.replace("name: h1,", "name: h1, server_id: 'abcd',")
    why = "backend h1: `server_id` does not apply: the service has no `quic`"
    assert problems(text) == {"services[0].pool": (2, why), "services[1].pool": (3, why)}


def test_the_limit_counts_each_service() -> None:
    service = "  - {{name: s{0}, vip: 192.0.2.1, protocol: tcp, port: {0}, pool: big}}\n"
    servers = "".join(f"    - {{dip: 10.0.{n >> 8}.{n & 255}}}\n" for n in range(1, 129))
    services = MAX_BACKENDS // 128
    pools = f"pools:\n  big:\n{servers}services:\n"
    assert len(read(pools + "".join(map(service.format, range(1, services + 1)))).services) == services
    found = problems(pools + "".join(map(service.format, range(1, services + 2))))
    assert found["services"][1] == f"{128 * (services + 1)} backends in all: the limit is {MAX_BACKENDS}"


def test_too_many_backends_in_pools_are_refused_before_each_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader.Config, "model_validate", lambda data: pytest.fail("they were checked"))
    text = "services: []\npools:\n  big: [" + ", ".join(["{}"] * (MAX_BACKENDS + 1)) + "]\n"
    assert problems(text) == {"services": (1, f"{MAX_BACKENDS + 1} backends in all: the limit is {MAX_BACKENDS}")}
