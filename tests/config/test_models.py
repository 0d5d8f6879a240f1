"""The values that the models accept, fill in and refuse."""

from ipaddress import ip_address
from typing import Any

import pytest
from pydantic import ValidationError

from lbmux.config import models
from lbmux.config.field_types import Model
from lbmux.config.models import MAX_BACKENDS, MAX_SERVICES, Config, over_limits, slots_of
from lbmux.config.table_models import MAX_SLOTS, SIZES, size_for
from lbmux.datapath.tables import FORMER_TABLE
from lbmux.tables.maglev import is_prime


def backend(dip: str = "10.1.1.2", **others: Any) -> dict[str, Any]:
    return {"dip": dip, **others}


def service(*backends: dict[str, Any], **others: Any) -> dict[str, Any]:
    named = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80}
    return {**named, "backends": list(backends), **others}


def config(*services: dict[str, Any], **others: Any) -> Config:
    return Config.model_validate({"services": list(services), **others})


def faults(*services: dict[str, Any], **others: Any) -> dict[tuple[int | str, ...], str]:
    with pytest.raises(ValidationError) as caught:
        config(*services, **others)
    return {error["loc"]: error["msg"] for error in caught.value.errors()}


def test_left_out_values_are_filled_in() -> None:
    parsed = config(service(backend()))
    (only,) = parsed.services[0].backends
    assert (only.name, only.port, only.weight, only.tunnel_to) == ("10.1.1.2:80", 80, 1, only.dip)
    assert (parsed.maglev.size, parsed.flows.limit, parsed.idle.tcp_s) == (65537, 1_048_576, 900)


def test_host_is_where_the_tunnel_leads() -> None:
    parsed = config(service(backend(host="10.1.1.9")))
    assert parsed.services[0].backends[0].tunnel_to == ip_address("10.1.1.9")


V6 = {"vip": "2001:db8::1", "backends": [{"dip": "2001:db8:1::2", "host": "10.1.1.2"}]}


def test_a_vip_of_ipv6_has_backends_of_ipv6_on_hosts_of_either_family() -> None:
    parsed = config(service(**V6)).services[0]
    assert (parsed.vip, parsed.backends[0].tunnel_to) == (ip_address("2001:db8::1"), ip_address("10.1.1.2"))
    errors = faults(service(**V6 | {"vip": "192.0.2.1"}))
    assert errors["services", 0, "backends", 0, "dip"] == "is IPv6, but the VIP is IPv4 (only `host` may differ)"


@pytest.mark.parametrize("address", ["fe80::1", "::ffff:192.0.2.1", "ff02::1", "::"])
def test_an_ipv6_address_that_nothing_is_routed_to_is_refused(address: str) -> None:
    assert ("services", 0, "vip") in faults(service(**V6 | {"vip": address}))


def test_any_port_and_a_range() -> None:
    backend = {"backends": [{"dip": "10.1.1.2"}]}
    both = service(port="any", **backend), service(name="b", port=1000, port_to=1999, **backend)
    any_port, some = config(*both).services
    assert (any_port.port, list(any_port.ports), any_port.backends[0].port) == (0, [0], 0)
    assert (some.ports, some.backends[0].port) == (range(1000, 2000), 0)


@pytest.mark.parametrize(
    "fields, field, why",
    [
        ({"port": 0}, "port", "should be 1 to 65535, or `any`"),
        ({"port": 80, "port_to": 80}, "port_to", "should be above `port`"),
        ({"port": "any", "port_to": 80}, "port_to", "does not apply to `port: any`"),
        ({"port": 80, "hash": "cookie"}, "hash", "should be 'five_fields'"),
        ({"port": 80, "deny": ["10.0.0.1/8"]}, "deny", "has host bits set"),
        ({"port": 80, "deny": ["everybody"]}, "deny", "is not a prefix"),
        ({"port": 80, "new_flows_per_s": 0}, "new_flows_per_s", "should be greater than or equal to 1"),
        ({"port": 80, "tunnel": "vxlan"}, "tunnel", "should be 'ipip'"),
        ({"port": 80, "quic": {"rotation": 7}}, "quic", "should be less than or equal to 6"),
    ],
)
def test_the_error_names_the_field(fields: dict[str, Any], field: str, why: str) -> None:
    errors = faults(service(**fields))
    ((at, said),) = errors.items()
    assert at[:3] == ("services", 0, field)
    assert why in said


def test_ports_of_two_services_must_not_overlap() -> None:
    errors = faults(service(port=1000, port_to=1999), service(name="b", port=1500))
    assert errors == {("services", 1, "port"): "is in the port range of service web"}


def test_server_ids_are_unique_and_have_the_configured_length() -> None:
    backends = [{"dip": f"10.1.1.{at}", "server_id": one} for at, one in enumerate(["0a", "0a", "0b0c", "zz"], 1)]
    errors = faults(service(protocol="udp", quic={}, backends=backends))
    assert errors["services", 0, "backends", 1, "server_id"] == "another backend has 0a"
    assert errors["services", 0, "backends", 2, "server_id"] == "should have 1 byte (`quic.id_bytes`)"
    assert errors["services", 0, "backends", 3, "server_id"] == "should be bytes in hexadecimal, such as 0a1b"
    errors = faults(service(backends=[{"dip": "10.1.1.1", "server_id": "0a"}]))
    assert errors["services", 0, "backends", 0, "server_id"] == "does not apply: the service has no `quic`"


def test_prefixes_for_outer_sources() -> None:
    assert config(service(), tunnel={"sources": ["172.16.0.0/16", "2001:db8::/112"]}).tunnel.sources
    errors = faults(service(), tunnel={"sources": ["172.16.0.0/12"]})
    assert errors["tunnel", "sources"] == "172.16.0.0/12 should be a /16"


def test_service_overrides_only_the_idle_times_that_it_names() -> None:
    defaults = {"untrusted_s": 7, "tcp_s": 100}
    parsed = config(service(idle={"tcp_s": 600}), service(name="dns", port=53), idle=defaults)
    assert parsed.services[0].idle.model_dump() == {"untrusted_s": 7, "tcp_s": 600, "fin_s": 120, "udp_s": 300}
    assert parsed.services[1].idle == parsed.idle


def test_a_configuration_equals_what_it_dumps() -> None:
    parsed = config(service(backend(), backend("10.1.1.3", weight=0)), muxes=["10.0.1.2"])
    assert Config.model_validate(parsed.model_dump()) == parsed
    assert Config.model_validate_json(parsed.model_dump_json()) == parsed


def test_service_without_backends_is_allowed() -> None:
    assert config(service()).services[0].backends == ()


def test_a_configuration_is_immutable() -> None:
    with pytest.raises(ValidationError):
        config(service()).services[0].port = 81  # type: ignore[misc]


@pytest.mark.parametrize(
    "vip",
    ["192.0.2", "web", "", "224.0.0.1", "0.0.0.0", "0.1.2.3", "255.255.255.255", "240.0.0.1", "ff02::1", "::",
     "::ffff:10.0.0.1", "fe80::1%eth0", 3221225985, True, None, ["192.0.2.1"]],
)  # fmt: skip
def test_a_vip_that_is_not_a_unicast_address(vip: object) -> None:
    assert list(faults(service(vip=vip))) == [("services", 0, "vip")]


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "loopback"), ("127.9.9.9", "loopback"), ("::1", "loopback"), ("169.254.1.1", "link-local"),
        ("fe80::1", "not a routable address"), ("224.0.0.1", "multicast"), ("ff05::1", "multicast"),
        ("255.255.255.255", "not a unicast"), ("0.0.0.0", "not a unicast"), ("::", "not a unicast"),
    ],
)  # fmt: skip
def test_vip_and_mux_that_packets_are_not_routed_to(address: str, why: str) -> None:
    errors = faults(service(vip=address), muxes=[address])
    assert {at: why in said for at, said in errors.items()} == {("services", 0, "vip"): True, ("muxes", 0): True}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1"])
def test_a_backend_that_muxes_cannot_reach(address: str) -> None:
    errors = faults(service(backend(address), backend("10.1.1.2", host=address)))
    why = "is a loopback address, which other machines cannot reach"
    assert errors == {("services", 0, "backends", 0, "dip"): why, ("services", 0, "backends", 1, "host"): why}


def test_a_backend_on_its_link_alone() -> None:
    assert config(service(backend("169.254.1.1", host="10.1.1.2")))


@pytest.mark.parametrize(
    ("vip", "other", "dip"), [("192.0.2.1", "192.0.2.2", "10.1.1.2"), ("2001:db8::1", "2001:db8::2", "2001:db8:1::2")]
)
def test_addresses_that_would_loop_packets(vip: str, other: str, dip: str) -> None:
    by_dip = service(backend(vip), backend(other), vip=vip)
    by_host = service(backend(dip, host=vip), backend(dip + "9", host=other), name="hosts", vip=vip, port=81)
    errors = faults(by_dip, by_host, service(name="other", vip=other), muxes=[other, dip])
    own, others = "is the service's own VIP", "is the VIP of service other"
    assert {at: said.partition(": p")[0] for at, said in errors.items()} == {
        ("services", 0, "backends", 0, "dip"): own,
        ("services", 0, "backends", 1, "dip"): others,
        ("services", 1, "backends", 0, "host"): own,
        ("services", 1, "backends", 1, "host"): others,
        ("services", 2, "vip"): "is the address of a mux (see `muxes`); a VIP must not be a machine's own address",
    }


@pytest.mark.parametrize("port", [0, -1, 65536, "80", 80.0, True, None])
def test_an_invalid_port(port: object) -> None:
    assert list(faults(service(backend(), port=port))) == [("services", 0, "port")]


@pytest.mark.parametrize("weight", [-1, 65536, 0.5, "1"])
def test_weight_out_of_bounds(weight: object) -> None:
    assert list(faults(service(backend(weight=weight)))) == [("services", 0, "backends", 0, "weight")]


@pytest.mark.parametrize("name", ["", "two words", "line\n", "\x00", "n" * 129, 7])
def test_an_invalid_name(name: object) -> None:
    assert list(faults(service(name=name))) == [("services", 0, "name")]


@pytest.mark.parametrize("size", [0, 2, 4, 65536, 65535, 2_000_004, 7.0])
def test_a_maglev_size_that_is_not_a_prime_in_bounds(size: object) -> None:
    assert list(faults(maglev={"size": size})) == [("maglev", "size")]


@pytest.mark.parametrize("size", [3, 65537, 655373, 1_999_993])
def test_prime_maglev_size(size: int) -> None:
    assert config(maglev={"size": size}).maglev.size == size


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("flows", "limit", 1023), ("flows", "limit", 16_777_217), ("flows", "trusted_share", 0),
        ("flows", "trusted_share", 1.01), ("flows", "untrusted_share", float("nan")),
        ("idle", "tcp_s", 0), ("idle", "untrusted_s", 86401), ("idle", "fin_s", 1.5),
        ("maglev", "seed", -1), ("maglev", "seed", 1 << 32),
    ],
)  # fmt: skip
def test_setting_out_of_bounds(section: str, field: str, value: object) -> None:
    assert list(faults(**{section: {field: value}})) == [(section, field)]


def test_unknown_fields_are_refused_everywhere() -> None:
    errors = faults(service(backend(colour=1), colour=1), colour=1, maglev={"colour": 1})
    assert set(errors) == {
        ("services", 0, "backends", 0, "colour"), ("services", 0, "colour"), ("colour",), ("maglev", "colour")
    }  # fmt: skip


def test_second_service_of_a_name_or_an_address_is_at_fault() -> None:
    errors = faults(service(), service(port=81), service(name="web2"))
    assert set(errors) == {("services", 1, "name"), ("services", 2)}


def test_tcp_and_udp_may_share_a_port() -> None:
    assert len(config(service(), service(name="udp", protocol="udp")).services) == 2


def test_second_backend_of_a_name_is_at_fault() -> None:
    errors = faults(service(backend(name="h1"), backend("10.1.1.3", name="h1")))
    assert errors == {("services", 0, "backends", 1, "name"): "another backend has the name h1"}


def test_two_backends_behind_one_host_are_refused() -> None:
    errors = faults(service(backend(), backend("10.1.1.3", host="10.1.1.2")))
    assert list(errors) == [("services", 0, "backends", 1)]
    assert "remove `host`" in errors["services", 0, "backends", 1]


def test_backends_of_two_services_may_share_a_host() -> None:
    assert len(config(service(backend()), service(backend(), name="other", port=81)).services) == 2


@pytest.mark.parametrize("count, size", [(0, 1021), (1, 1021), (10, 1021), (11, 2039), (655, 65537), (656, 131_071)])
def test_automatic_size_of_the_maglev_table(count: int, size: int) -> None:
    backends = [backend(f"10.1.{n >> 8}.{n & 255}") for n in range(1, count + 1)]
    automatic = config(service(*backends), maglev={"size": "auto"})
    assert (automatic.maglev.size, slots_of(automatic, automatic.services[0])) == (0, size)
    assert Config.model_validate_json(automatic.model_dump_json()) == automatic


def test_the_sizes_are_primes_and_the_last_is_the_largest_table() -> None:
    assert all(map(is_prime, SIZES)) and size_for(MAX_BACKENDS) == SIZES[-1] == MAX_SLOTS > 30 * MAX_BACKENDS


def test_a_service_with_its_own_size() -> None:
    own = service(backend(), maglev_size=509)
    for more in ({}, {"maglev": {"size": "auto"}}):
        given = config(own, service(backend(), name="mail", port=25), **more)
        assert [slots_of(given, one) for one in given.services] == [509, 1021 if more else 65537]
    assert list(faults(service(backend(), maglev_size=510))) == [("services", 0, "maglev_size")]
    assert list(faults(service(backend(), maglev_size="auto"))) == [("services", 0, "maglev_size")]


def test_dip_of_ipv6() -> None:
    assert list(faults(service(backend("2001:db8::2")))) == [("services", 0, "backends", 0, "dip")]


def test_all_weights_zero() -> None:
    assert list(faults(service(backend(weight=0)))) == [("services", 0, "backends")]


def test_as_many_backends_as_slots() -> None:
    errors = faults(service(*(backend(f"10.1.1.{n}") for n in range(2, 5))), maglev={"size": 3})
    assert list(errors) == [("services", 0, "backends")]


def test_limits_of_one_file() -> None:
    """Each service and each backend has a row, which flows and slots name by 16 bits."""
    assert (MAX_SERVICES, MAX_BACKENDS) == (1 << 16, FORMER_TABLE)
    assert not list(over_limits(MAX_SERVICES, MAX_BACKENDS))
    assert list(over_limits(65_537, 65_535)) == [
        "65537 services: the limit is 65536",
        "65535 backends in all: the limit is 65534",
    ]


def test_too_many_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MAX_SERVICES", 100)
    errors = faults(*(service(name=f"s{n}", port=n + 1) for n in range(101)))
    assert errors == {("services",): "101 services: the limit is 100"}


def test_too_many_backends_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MAX_BACKENDS", 100)
    many = [backend(f"10.0.0.{n}") for n in range(1, 52)]
    errors = faults(service(*many), service(*many, name="other", port=81))
    assert errors == {("services",): "102 backends in all: the limit is 100"}


def test_a_broken_backend_does_not_hide_other_faults() -> None:
    twins = backend("10.1.1.3", name="x"), backend("10.1.1.4", name="x")
    broken = service(backend(weight=-1), *twins, vip="no")
    errors = faults(broken, service(name="a"), service(name="a", port=81))
    assert set(errors) == {
        ("services", 0, "vip"),
        ("services", 0, "backends", 0, "weight"),
        ("services", 0, "backends", 2, "name"),
        ("services", 2, "name"),
    }


def described(schema: dict[str, Any]) -> list[bool]:
    models = [schema, *schema["$defs"].values()]
    return ["description" in field for model in models for field in model["properties"].values()]


def test_schema_describes_every_field() -> None:
    assert all(described(Config.model_json_schema()))


def test_a_written_result_is_read_back() -> None:
    service = {"vip": "192.0.2.1", "protocol": "tcp", "backends": [{"dip": "10.0.2.1"}]}
    config = Config.model_validate(
        {
            "idle": {"tcp_s": 7}, "tunnel": {"sources": ["10.9.0.0/16"]},
            "services": [
                service | {"name": "any", "port": "any"},
                service | {"name": "web", "port": 80, "allow": ["10.0.0.0/8"]},
                service | {"name": "range", "port": 90, "port_to": 99, "health": {"kind": "tcp", "port": 90}},
            ],
        }
    )  # fmt: skip
    assert Config.model_validate_json(config.model_dump_json()) == config


class Above(Model):
    first: int = 1
    """The first."""
    bare: int = 2


class Below(Above):
    second: Above = Above()
    """The second,
    in two lines."""


def test_the_schema_has_the_docstrings_of_fields_and_a_start_does_not_read_them() -> None:
    assert Below.model_fields["first"].description is None
    schema = Below.model_json_schema()
    described = {name: field.get("description") for name, field in schema["properties"].items()}
    assert described == {"first": "The first.", "bare": None, "second": "The second,\nin two lines."}
    assert schema["$defs"]["Above"]["properties"]["first"]["description"] == "The first."


def test_auto_weights_are_numbers_that_differ_from_written_ones_and_stay_auto_in_json() -> None:
    followed = config(service(backend(weight="auto"), backend("10.1.1.3", weight=0), health={"by": "agent"}))
    written = config(service(backend(weight=100), backend("10.1.1.3", weight=0), health={"by": "agent"}))
    assert followed.services[0].backends[0].weight + 0 == 100 and followed != written
    assert Config.model_validate_json(followed.model_dump_json()) == followed


def test_auto_weights_need_agents_that_report_and_no_numbers_beside_them() -> None:
    at = ("services", 0, "backends")
    assert faults(service(backend(weight="auto"))) == {
        (*at, 0, "weight"): "`auto` needs `health: {by: agent}`: agents report the load"
    }
    mixed = service(backend(weight="auto"), backend("10.1.1.3"), health={"by": "agent"})
    assert faults(mixed) == {(*at, 1, "weight"): "should be `auto` or 0, as another backend has `auto`"}
