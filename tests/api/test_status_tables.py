"""What `show` reads from the tables, against what was sent through the data path."""

from collections import Counter

from lbmux.api import status_tables
from lbmux.datapath.verdicts import Verdict
from tests.linux.inside import CONFIG, Inside, agent_with_a_flow, client, dns


def verdicts(inside: Inside, in_kernel: bool) -> dict[str, int]:
    lines = status_tables.verdicts(inside.snapshot, in_kernel)
    return {line.verdict: line.packets for line in lines if line.packets}


def test_the_ports_of_a_service_as_text() -> None:
    web, dns = CONFIG["services"]
    services = [web | {"port": "any"}, dns | {"port": 53, "port_to": 60}, dns | {"name": "one", "port": 80}]
    assert [line.ports for line in status_tables.services(Inside(CONFIG | {"services": services}).snapshot)] == [
        "any", "53-60", "80",
    ]  # fmt: skip


def test_a_backend_has_its_traffic_of_all_workers_and_its_flows_by_state() -> None:
    inside = Inside()
    sent = [inside.send(dns(1), dns(2), worker=0), inside.send(dns(3), dns(3), worker=1)]
    line = status_tables.backends(inside.snapshot)[2]
    assert (line.service, line.backend, line.state, line.reachable) == ("dns", "h1", "up", True)
    assert line.packets == 4 and line.new_flows == line.live_flows == 3
    assert line.bytes == sum(int(frames.length.sum()) for frames in sent) - 4 * 14
    assert (line.trusted_flows, line.untrusted_flows, line.closing_flows) == (1, 2, 0)


def test_a_service_has_the_sums_of_its_backends() -> None:
    inside = Inside()
    inside.send(*(client(port) for port in range(200)))
    web, dns_line = status_tables.services(inside.snapshot)
    own = [line for line in status_tables.backends(inside.snapshot) if line.service == "web"]
    assert web.packets == 200 == sum(line.packets for line in own)
    assert all(line.packets for line in own)
    assert (web.backends, web.backends_up, web.slots, dns_line.packets) == (2, 2, 251, 0)


def test_without_weight_a_backend_is_draining_and_without_a_neighbour_not_reachable() -> None:
    services = [CONFIG["services"][1] | {"backends": [{"name": "a", "dip": "10.0.0.1", "weight": 0},
                                                      {"name": "b", "dip": "10.0.0.2"}]}]  # fmt: skip
    inside = Inside(CONFIG | {"services": services}, resolved=False)
    lines = status_tables.backends(inside.snapshot)
    assert [(line.state, line.reachable) for line in lines] == [("draining", False), ("up", False)]
    assert {line.mac for line in status_tables.neighbours(inside.snapshot)} == {None}


def test_a_digest_is_the_same_in_any_rows_and_another_with_other_backends() -> None:
    turned = CONFIG | {"services": [s | {"backends": s["backends"][::-1]} for s in CONFIG["services"][::-1]]}
    web, dns_service = CONFIG["services"]
    first_backend, *others = web["backends"]
    heavier = CONFIG | {"services": [web | {"backends": [first_backend | {"weight": 5}, *others]}, dns_service]}
    first, second, third = (
        {line.service: line.digest for line in status_tables.services(Inside(config).snapshot)}
        for config in (CONFIG, turned, heavier)
    )
    assert first == second
    assert first["web"] != third["web"] and first["dns"] == third["dns"]


def test_a_pass_that_kernel_and_user_space_both_counted_is_shown_once() -> None:
    inside = Inside()
    strangers = [client(destination=bytes([203, 0, 113, 1])), client()]
    inside.send(*strangers, worker=0)  # counted by the kernel
    inside.send(strangers[0], worker=1)  # counted again in user space, after a punt
    assert verdicts(inside, in_kernel=True) == {"not_vip": 1, "forwarded": 1}
    assert verdicts(inside, in_kernel=False) == {"not_vip": 2, "forwarded": 1}


def test_user_space_counters_add_to_the_kernels() -> None:
    inside = Inside()
    inside.send(client(), worker=0)
    inside.send(client(), worker=1)
    inside.snapshot.tables.services["size"] = 0
    inside.send(client(port=40001), worker=1)
    assert verdicts(inside, in_kernel=True) == {"forwarded": 2, "no_backend": 1}


def test_lookups_and_every_verdict_by_name_and_kind() -> None:
    inside = Inside()
    inside.send(client(), client())
    lookups, lines = status_tables.lookups(inside.snapshot), status_tables.verdicts(inside.snapshot, in_kernel=False)
    assert (lookups["new"], lookups["hit"]) == (1, 1)
    assert [line.verdict for line in lines] == [verdict.label for verdict in Verdict]
    assert Counter(line.kind for line in lines)["send"] == 4


def test_hosts_stand_once_with_their_backends() -> None:
    lines = {line.host: line for line in status_tables.neighbours(Inside().snapshot)}
    assert lines["10.1.1.2"].backends == ["web/h1", "dns/h1"]
    assert (lines["10.1.2.2"].mac, lines["10.1.2.2"].mtu) == ("02:00:00:00:00:09", 1500)
    assert lines["10.1.2.2"].interface == "lo"  # number 1 everywhere


def test_an_agent_shows_its_own_backends_and_counts_no_traffic_by_them() -> None:
    snapshot = agent_with_a_flow()
    lines = status_tables.backends(snapshot)
    assert [(line.service, line.backend) for line in lines] == [("web", "h1"), ("dns", "h1")]
    assert (lines[0].packets, lines[0].live_flows, lines[1].live_flows) == (None, 1, 0)
    assert status_tables.services(snapshot)[0].digest is None
    assert status_tables.neighbours(snapshot) == []


def test_table_sizes_say_what_is_used() -> None:
    inside = Inside()
    inside.send(client(), dns())
    tables, memory_bytes = status_tables.table_sizes(inside.snapshot)
    used = {name: table.used for name, table in tables.items()}
    assert used == {"addresses": 4, "slots": 502, "backends": 3, "endpoints": 0, "flows": 2}
    assert memory_bytes == sum(inside.tables.sizes.regions().values())
