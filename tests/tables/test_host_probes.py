"""Which VIPs a mux probes a host by, and what an agent has for that; both agree."""

from ipaddress import ip_address
from typing import Any

from lbmux.config.models import Config
from lbmux.datapath.tables import VIP as VIP_NAME
from lbmux.tables.agent_tables import AgentTables, sizes_for
from lbmux.tables.host_probes import probe_paths, probe_services
from lbmux.targets.regions import Tables

HOST, OTHER = ip_address("10.1.1.2"), ip_address("10.1.2.2")
VIP, VIP6 = "192.0.2.1", "2001:db8::1"
PORT = 6083


def service(name: str, protocol: str = "udp", port: Any = 53, vip: str = VIP, hosts: tuple[int, ...] = (1, 2)) -> Any:
    dip = "10.1.{}.2" if vip == VIP else "2001:db8:1:{}::2"
    backends = [{"name": f"h{n}", "dip": dip.format(n), "host": f"10.1.{n}.2"} for n in hosts]
    return {"name": name, "vip": vip, "protocol": protocol, "port": port, "backends": backends}


def config(*services: Any, **tunnel: Any) -> Config:
    return Config.model_validate({"muxes": ["10.0.1.2"], "tunnel": tunnel, "services": list(services)})


def served(configuration: Config, host: Any = HOST) -> Any:
    return tuple((s, b) for s in configuration.services for b in s.backends if b.tunnel_to == host)


def test_a_host_is_probed_by_one_backend_of_each_vip() -> None:
    configuration = config(service("dns"), service("web", "tcp", 80), service("six", vip=VIP6))
    assert probe_paths(configuration, (4, 6))[HOST] == [("dns", "h1"), ("six", "h1")]
    assert probe_paths(configuration, (4,))[HOST] == [("dns", "h1")], "without an own IPv6 address"
    assert probe_paths(config(service("dns"), probes=False), (4, 6)) == {}


def test_an_agent_answers_for_each_of_its_vips() -> None:
    configuration = config(service("dns"), service("web", "tcp", 80), service("six", vip=VIP6))
    pairs = probe_services(configuration, served(configuration))
    assert [(str(s.vip), s.protocol, s.port, str(b.dip), b.port) for s, b in pairs] == [
        (VIP, "tcp", PORT, "10.1.1.2", PORT), (VIP6, "tcp", PORT, "2001:db8:1:1::2", PORT)
    ]  # fmt: skip
    assert probe_services(config(service("dns"), probes=False), served(configuration)) == ()


def test_a_service_that_has_the_port_itself_answers_where_it_is() -> None:
    configuration = config(service("dns"), service("any", "tcp", "any", hosts=(1,)))
    assert probe_services(configuration, served(configuration)) == ()
    assert list(probe_paths(configuration, (4,))) == [HOST], "the other host would not answer"


def test_an_agents_tables_have_the_port_and_the_same_services() -> None:
    configuration = config(service("dns"))
    agent = AgentTables(Tables.allocate(sizes_for(configuration)), [HOST], [], "nat")
    agent.commit(agent.plan(configuration))
    assert [s.name for s, _ in agent.served] == ["dns"] and len(agent.probed) == 1
    names = agent.tables.addresses[agent.tables.active]
    ports = {int(name["port"]).to_bytes(2, "little") for name in names if name["kind"] == VIP_NAME}
    assert ports == {(53).to_bytes(2), PORT.to_bytes(2)}
