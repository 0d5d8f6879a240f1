"""The metrics of a mux and an agent: as Prometheus's own parser reads them, and as a real Prometheus has them."""

import asyncio
import contextlib
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from lbmux import __version__
from lbmux.config.models import Config
from lbmux.errors import SetupError
from lbmux.lab.lab import Lab
from lbmux.metrics.families import Reading, exposition
from lbmux.metrics.loop_histograms import SAMPLE, LoopHistograms
from lbmux.metrics.metrics_server import MOST_CONNECTIONS, MetricsServer
from tests.daemons.running_daemons import configuration, running, send, service
from tests.daemons.test_mux_daemon import H1, H2, syn
from tests.linux.inside import CONFIG, Inside, agent_with_a_flow, client, dns

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    families = [*text_string_to_metric_families(text)]
    assert len({family.name for family in families}) == len(families)
    listed = [sample for family in families for sample in family.samples]
    by_key = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in listed}
    assert len(by_key) == len(listed)
    return by_key


def scraped(reading: Reading) -> Callable[..., float]:
    values = samples(exposition(reading).decode())
    return lambda name, **labels: values["lbmux_" + name, frozenset(labels.items())]


def test_a_mux_has_traffic_and_new_flows_of_each_backend() -> None:
    inside = Inside()
    sent = [inside.send(dns(1), dns(2), worker=0), inside.send(dns(3), dns(3), worker=1)]
    value = scraped(Reading(inside.snapshot))
    assert value("forwarded_packets_total", service="dns", backend="h1") == 4
    assert value("new_flows_total", service="dns", backend="h1") == 3
    ethernet = 4 * 14
    in_bytes = sum(int(frames.length.sum()) for frames in sent) - ethernet
    assert value("forwarded_bytes_total", service="dns", backend="h1") == in_bytes
    assert value("forwarded_packets_total", service="web", backend="h2") == 0


def test_flows_are_counted_by_service_and_state() -> None:
    inside = Inside()
    inside.send(dns(1), dns(2), dns(2), client())
    value = scraped(Reading(inside.snapshot))
    assert [value("flows", service="dns", state=state) for state in ("untrusted", "trusted", "closing")] == [1, 1, 0]
    assert sum(value("flows", service="web", state=state) for state in ("untrusted", "trusted", "closing")) == 1


def test_verdicts_are_counted_by_outcome() -> None:
    inside = Inside()
    inside.send(client(), client(destination=bytes([203, 0, 113, 1])))
    inside.snapshot.tables.services["size"] = 0
    inside.send(client(port=40001))
    value = scraped(Reading(inside.snapshot))
    assert value("sent_packets_total", verdict="forwarded") == 1
    assert value("passed_packets_total", reason="not_vip") == 1
    assert value("dropped_packets_total", reason="no_backend") == 1
    assert value("dropped_packets_total", reason="denied") == 0


def test_a_pass_of_kernel_and_user_space_counts_once() -> None:
    inside = Inside()
    stranger = client(destination=bytes([203, 0, 113, 1]))
    inside.send(stranger, worker=0)
    inside.send(stranger, worker=1)
    assert scraped(Reading(inside.snapshot, in_kernel=True))("passed_packets_total", reason="not_vip") == 1


def test_a_backend_without_weight_is_not_up() -> None:
    drained = {"name": "old", "dip": "10.1.3.2", "weight": 0}
    web, dns_service = CONFIG["services"]
    inside = Inside(CONFIG | {"services": [web | {"backends": [*web["backends"], drained]}, dns_service]})
    value = scraped(Reading(inside.snapshot))
    ups = [value("backend_up", service="web", backend=name) for name in ("h1", "h2", "old")]
    weights = [value("backend_weight", service="web", backend=name) for name in ("h1", "h2", "old")]
    assert (ups, weights) == ([1, 1, 0], [1, 2, 0])


def test_a_backend_that_is_down_has_a_health_metric() -> None:
    web, dns_service = CONFIG["services"]
    inside = Inside(CONFIG | {"services": [web | {"backends": web["backends"][1:]}, dns_service | {"backends": []}]})
    value = scraped(Reading(inside.snapshot, wanted=Config.model_validate(CONFIG).services))
    assert [value("backend_up", service="web", backend=name) for name in ("h1", "h2")] == [0, 1]
    assert value("backend_up", service="dns", backend="h1") == 0
    assert value("backend_weight", service="dns", backend="h1") == 1
    assert value("flows", service="dns", state="trusted") == 0


def test_batches_by_size_and_steps_by_cost() -> None:
    loop_histograms = LoopHistograms()
    for frames in (1, 2, 3, 256):
        loop_histograms.batch(frames)
    loop_histograms.took("forward", 10, 300)
    loop_histograms.took("forward", 1, 1 << 40)
    value = scraped(Reading(Inside().snapshot, loop_histograms=loop_histograms))
    below = [value("batch_frames_bucket", le=le) for le in ("1", "3", "7", "255", "511", "+Inf")]
    assert below == [1, 3, 3, 3, 4, 4]
    assert (value("batch_frames_count"), value("batch_frames_sum")) == (4, 262)
    costs = [value("step_seconds_bucket", step="forward", le=le) for le in ("1.5e-08", "3.1e-08", "0.00104858", "+Inf")]
    assert costs == [0, 1, 1, 2]
    assert value("step_seconds_count", step="send") == 0


def test_one_batch_of_a_sample_is_timed() -> None:
    loop_histograms, timed = LoopHistograms(), 0
    for _ in range(2 * SAMPLE):
        loop_histograms.batch(1)
        timed += loop_histograms.is_timed
    assert timed == 2


def test_metrics_from_outside_the_tables() -> None:
    why = "notification received: OPEN message error: bad peer AS"
    peers, loop_histograms = {"10.0.1.1": ("established", ""), "2001:db8::1": ("active", why)}, LoopHistograms()
    inside = Inside()
    inside.send(client(), client())
    value = scraped(Reading(inside.snapshot, ring_dropped=5, loop_histograms=loop_histograms, peers=peers))
    assert (value("ring_dropped_frames_total"), value("batch_frames_count")) == (5, 0)
    assert (value("bgp_up", peer="10.0.1.1"), value("bgp_up", peer="2001:db8::1")) == (1, 0)
    assert value("bgp_session", peer="10.0.1.1", state="established", reason="") == 1
    assert value("bgp_session", peer="2001:db8::1", state="active", reason=why) == 1
    assert value("build_info", version=__version__, program="mux") == 1
    assert (value("lookups_total", result="new"), value("lookups_total", result="hit")) == (1, 1)


def test_an_agent_counts_no_traffic_by_backend_but_its_flows() -> None:
    values = samples(exposition(Reading(agent_with_a_flow())).decode())
    assert "lbmux_forwarded_packets_total" not in {name for name, _ in values}
    assert sum(value for (name, _), value in values.items() if name == "lbmux_flows") == 1


def test_names_with_quotes_and_backslashes_are_read_back() -> None:
    name = 'a"b\\c'
    inside = Inside()
    snapshot = inside.snapshot
    renamed = snapshot.services[1].model_copy(update={"name": name})
    rows = {(name if service == "dns" else service, backend): row for (service, backend), row in snapshot.rows.items()}
    inside.send(dns(1))
    value = scraped(Reading(type(snapshot)(snapshot.tables, (snapshot.services[0], renamed), rows)))
    assert value("forwarded_packets_total", service=name, backend="h1") == 1


def test_no_client_is_in_the_text() -> None:
    inside = Inside()
    inside.send(client(port=45454), dns(46464))
    text = exposition(Reading(inside.snapshot)).decode()
    assert "198.51.100" not in text and "45454" not in text


def serve_and(ask: Callable[[int], Any], where: str = "127.0.0.1:0") -> Any:
    inside = Inside()

    async def read() -> Reading:
        return Reading(inside.snapshot)

    async def run() -> Any:
        async with MetricsServer(where, read) as server:
            return await asyncio.to_thread(ask, server.port)

    return asyncio.run(run())


def get(port: int, path: str = "/metrics", host: str = "127.0.0.1") -> tuple[str, str]:
    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_the_server_answers_in_the_text_format() -> None:
    kind, text = serve_and(get)
    assert kind.startswith("text/plain; version=0.0.4") and samples(text)


def head(port: int) -> tuple[int, str, bytes]:
    """Send HEAD without a library, which would not see a body that must not be there."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    top, _, body = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), top.decode().lower(), body


def test_head_has_only_the_headers() -> None:
    status, top, body = serve_and(head)
    assert (status, body) == (200, b"")
    assert "content-type: text/plain" in top and "content-length: 0" not in top


def test_without_a_host_only_this_machine_is_served() -> None:
    assert samples(serve_and(get, "0")[1])


def test_an_ipv6_address_is_served() -> None:
    assert samples(serve_and(lambda port: get(port, host="[::1]"), "[::1]:0")[1])


def test_silent_connections_make_room_for_new_ones() -> None:
    def ask(port: int) -> tuple[int, str]:
        with contextlib.ExitStack() as stack:
            silent = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
                for _ in range(MOST_CONNECTIONS + 10)
            ]
            kind, _ = get(port)
            ended = [one.recv(1) for one in silent[:11]]  # blocks until the server has ended it
            silent[-1].settimeout(0)
            with pytest.raises(BlockingIOError):
                silent[-1].recv(1)
            return len(ended), kind

    count, kind = serve_and(ask)
    assert count == 11 and kind.startswith("text/plain")


def test_another_path_is_not_found() -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        serve_and(lambda port: get(port, "/other"))


def test_a_port_that_is_taken_is_a_set_up_error_that_names_it() -> None:
    def again(port: int) -> None:
        with pytest.raises(SetupError, match=f"127.0.0.1:{port}"):
            serve_and(get, f"127.0.0.1:{port}")

    serve_and(again)


MUX, PORT, PROMETHEUS = "10.0.1.2", 9464, "127.0.0.1:9090"
FILES = Path(__file__).parents[2] / "prometheus"


@contextlib.contextmanager
def prometheus(lab: Lab, node: str, directory: Path, *targets: str) -> Iterator[Callable[[str], dict[str, float]]]:
    """A real Prometheus in a node, with the project's files but these targets.

    Yield a function that queries it and returns values by labels.
    """
    config = yaml.safe_load((FILES / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(FILES / "alerts.yml")]
    config["scrape_configs"][0]["static_configs"] = [{"targets": list(targets)}]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
               f"--web.listen-address={PROMETHEUS}"]  # fmt: skip
    log = directory / "prometheus.log"

    def ask(query: str) -> dict[str, float]:
        command = ["promtool", "query", "instant", "-o", "json", f"http://{PROMETHEUS}", query]
        answer = lab.run(node, command, capture_output=True, text=True, timeout=20)
        series = json.loads(answer.stdout) if answer.returncode == 0 else []
        return {",".join(sorted(line["metric"].values())): float(line["value"][1]) for line in series}

    with log.open("wb") as output, lab.popen(node, command, stdout=output, stderr=subprocess.STDOUT) as process:
        try:
            yield ask
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(20)


def until(ask: Callable[[], dict[str, float]], wanted: dict[str, float], seconds: float = 40.0) -> None:
    deadline, values = time.monotonic() + seconds, dict[str, float]()
    while values != wanted and time.monotonic() < deadline:
        values = ask()
        time.sleep(0.2)
    assert values == wanted


@pytest.mark.root
def test_a_real_prometheus_scrapes_a_running_mux_and_agent(lab: Lab, tmp_path: Path) -> None:
    lab.write_config(configuration(service("web", 80, [H1, H2])) | {"idle": {"untrusted_s": 3600}})
    targets = [f"{MUX}:{PORT}", f"10.1.1.2:{PORT}"]
    with (
        running(lab, "mux1", "mux", "--metrics", targets[0]),
        running(lab, "host1", "agent", "--metrics", targets[1]),
        prometheus(lab, "router", tmp_path, *targets) as ask,
    ):
        send(lab, "client", *(syn(port) for port in range(42000, 42020)))
        until(lambda: ask("sum(lbmux_forwarded_packets_total)"), {"": 20.0})
        until(lambda: ask(f'sum by (state) (lbmux_flows{{instance="{targets[0]}"}}) > 0'), {"untrusted": 20.0})
        until(
            lambda: ask("sum(lbmux_batch_frames_sum >= bool 20)"), {"": 1.0}
        )  # packets that are not for a VIP count too
        until(lambda: ask('sum(lbmux_step_seconds_count{step="forward"} >= bool 1)'), {"": 1.0})
        until(lambda: ask("sum by (backend) (lbmux_backend_up)"), {"h1": 2.0, "h2": 0.0})  # host2 has no agent
        until(lambda: ask("count by (program) (lbmux_build_info)"), {"mux": 1.0, "agent": 1.0})
        until(lambda: ask('min(up{job="lbmux"})'), {"": 1.0})
    assert not any(line for line in (tmp_path / "prometheus.log").read_text().splitlines() if "level=error" in line)


def test_an_invalid_port_is_refused() -> None:
    with pytest.raises(SetupError, match=r"99999.*with a port of 0 to 65535"):
        serve_and(lambda port: None, "127.0.0.1:99999")
