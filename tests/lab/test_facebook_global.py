"""facebook-global: its sites, what its programs are told, and its events in small."""

import asyncio
import ssl
import sys
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from lbmux.cli.main import run as lbmux
from lbmux.config.models import Config
from lbmux.lab import resolver, tls_proxy
from lbmux.lab.connections import Connection
from lbmux.lab.dns_authority import write_latency
from lbmux.lab.https_users import Users, merged
from lbmux.lab.scoreboard.global_state import RESOLVERS
from lbmux.lab.scoreboard.scenarios import SCENARIOS
from lbmux.lab.systems.facebook_global import facebook_global, rtt_ms
from lbmux.steering.inputs import read
from tests.lab.measured import broken, measured, needs

PROXY = ["--name", "pop1-host1", "--tls", "--server", "dc1", "203.0.113.1", "443"]
RESOLVER = ["--listen", "10.201.0.2", "--authority", "10.255.0.254", "--zone", "www.example.net"]


@pytest.mark.parametrize(("sites", "wrong"), [((0, 2, 4), "0 PoPs"), ((3, 21, 4), "21 data centres")])
def test_numbers_of_sites_have_bounds(sites: tuple[int, int, int], wrong: str) -> None:
    with pytest.raises(ValueError, match=f"{wrong}: use 1 to 20"):
        facebook_global(*sites)


def test_only_pops_serve_http3() -> None:
    topology = facebook_global(1, 1, 1)
    protocols = {
        site: [one["protocol"] for one in yaml.safe_load(topology.files[f"{site}.yaml"])["services"]]
        for site in ("pop1", "dc1")
    }
    assert protocols == {"pop1": ["tcp", "udp", "tcp"], "dc1": ["tcp", "tcp"]}
    assert [program.name for program in topology.node("pop1-host1").programs] == ["haproxy", "quic", "agent"]


def test_each_site_has_a_configuration_of_its_own() -> None:
    topology = facebook_global(2, 1, 1)
    configs = [
        Config.model_validate(yaml.safe_load(topology.files[f"{site}.yaml"])) for site in ("pop1", "pop2", "dc1")
    ]
    assert len({service.vip for config in configs for service in config.services}) == 6  # both families
    assert [backend.name for backend in configs[0].services[0].backends] == ["pop1-host1", "pop1-host2"]


def test_the_steering_files_name_all_regions_and_their_nearest_pop(tmp_path: Path) -> None:
    topology = facebook_global(3, 2, 4)
    for name in ("steering.yaml", "groups.csv", "rtt.csv"):
        (tmp_path / name).write_text(topology.files[name])
    write_latency(tmp_path / "rtt.csv", tmp_path / "latency.csv", 1000.0)
    inputs = read(tmp_path / "steering.yaml", 1001.0)
    assert len(inputs.groups.prefixes) == 8
    row = inputs.latency.rows[ip_network("10.202.0.0/24")]
    assert inputs.latency.recent_ms(1001.0, 60)[:, row].tolist() == [100.0, 20.0, 60.0]
    assert rtt_ms(4, 1, 3) == rtt_ms(1, 1, 3) == 20


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [(["ananta", "--pops", "2"], "--pops applies to facebook-global only"),
     (["facebook-global", "--dcs", "0"], "0 data centres: use 1 to 20")],
)  # fmt: skip
def test_wrong_numbers_are_usage_errors(arguments: list[str], wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert lbmux(["lab", "up", *arguments]) == 2
    assert wrong in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "arguments", "package"), [(tls_proxy, PROXY, "haproxy"), (resolver, RESOLVER, "unbound")]
)
def test_a_program_that_is_not_installed_is_named_with_its_package(
    module: ModuleType, arguments: list[str], package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEARCH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "base"), *arguments])
    with pytest.raises(SystemExit, match=f"not installed: install the package {package}$"):
        module.main()
    assert not any(tmp_path.iterdir())


def answering(*answers: bytes) -> list[tuple[int, str]]:
    """Send requests to a server that gives these answers, and ends; return the requests and the end of the user."""

    async def both(directory: Path) -> list[tuple[int, str]]:
        left = list(answers)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while left:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(left.pop(0))
                if b"close" in answers[len(answers) - len(left) - 1]:
                    break
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            users, connection = Users("www.example.net", "", 0.0), Connection(0)
            users.open = lambda: asyncio.open_connection("127.0.0.1", port)  # type: ignore[method-assign]
            await users.hold(connection)
            return [(connection.lines, connection.broken)]

    return asyncio.run(both(Path()))


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 dc1-host1\r\nVia: 1.1 pop1-host2\r\n%s\r\nhi"


def test_a_connection_that_the_server_announces_to_close_is_replaced() -> None:
    assert answering(OK % b"", OK % b"Connection: close\r\n", OK % b"") == [(3, "closed by the server")]


@pytest.mark.parametrize(
    ("answer", "why"),
    [(b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "HTTP/1.1 503 Service Unavailable"),
     ((OK % b"")[:-1], "closed within an answer"), (b"", "closed by the server")],
)  # fmt: skip
def test_any_other_end_is_a_failed_request(answer: bytes, why: str) -> None:
    assert answering(OK % b"", answer) == [(1, why)]


def test_reports_of_several_regions_are_one() -> None:
    def report(number: int, trouble: float | None) -> dict[str, object]:
        short = {"answered": {"pop1": number}, "failed": {"no answer": 1}, "longest_ms": number, "waiting": 1}
        return {"connections": [number], "short": short, "trouble": trouble}

    total = merged([report(1, None), report(2, 5.0)])
    short = {"answered": {"pop1": 3}, "failed": {"no answer": 2}, "longest_ms": 2, "waiting": 2}
    assert total == {"connections": [1, 2], "short": short, "trouble": 5.0}


def test_a_certificate_is_one_that_a_server_can_use(tmp_path: Path) -> None:
    (tmp_path / "both.pem").write_bytes(tls_proxy.certificate("pop1-host1"))
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(tmp_path / "both.pem")


def test_a_resolver_may_hide_its_clients() -> None:
    arguments = (Path("x"), "10.201.0.2", "10.255.0.254", "www.example.net", 600)
    assert "send-client-subnet: 10.255.0.254" in resolver.configuration(*arguments, True)
    hidden = resolver.configuration(*arguments, False)
    assert "subnet" not in hidden and "cache-min-ttl: 600" in hidden


def test_addresses_of_sites_do_not_overlap() -> None:
    topology = facebook_global(20, 20, 20)
    addresses = [ip_address(text.split("/")[0]) for link in topology.links for text in link.b.addresses]
    assert len(addresses) == len(set(addresses)) == 2 * len(topology.links)


@pytest.mark.root
@needs("haproxy")
@needs("gdnsd")
@needs("unbound")
def test_planned_events_fail_no_request_and_a_lost_pop_only_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = replace(
        SCENARIOS["facebook-global"], topology=lambda: facebook_global(2, 2, 1, hosts=1),
        resolvers={"users1": RESOLVERS["users1"]},
    )  # fmt: skip
    monkeypatch.setitem(SCENARIOS, "facebook-global", small)
    events = ("drain-dc", "release-proxy", "lose-pop")
    outcomes = measured(capsys, "facebook-global", *events, "--short-per-s", "8", "--seconds", "3")
    lost = outcomes.pop("lose-pop")
    assert 0 < lost["broken"] == lost["own"]
    assert not broken(outcomes) and not any(one["refused"] for one in outcomes.values())
