"""The flows of a replay as CSV."""

import csv
import io
from pathlib import Path

from scapy.layers.inet6 import TCP, IPv6
from scapy.layers.l2 import Ether

from lbmux.config.models import Config
from lbmux.tools.replay import flows_csv
from lbmux.tools.replay.looped_capture import LoopedCapture
from lbmux.tools.replay.replay_changes import Reload, Timeline
from lbmux.tools.replay.replay_pool import ReplayPool, replay_pool
from tests.frames.captures import pcap, record
from tests.tools.replay.test_replay import HOP, LOCAL, config, frame

ETHER = Ether(src="02:00:00:00:00:07", dst="02:00:00:00:00:08")


def rows(directory: Path, configuration: Config, *records: bytes, change: Reload | None = None) -> list[dict[str, str]]:
    (directory / "in").write_bytes(pcap(*records))
    pool, timeline, file = ReplayPool(configuration, [LOCAL], HOP), Timeline([change] if change else []), io.StringIO()
    with LoopedCapture(directory / "in") as looped:
        replay_pool(looped, pool, timeline)
    flows_csv.write(file, pool, timeline.start_ns)
    file.seek(0)
    return [*csv.DictReader(file)]


def test_a_row_has_ends_service_backend_times_and_counts(tmp_path: Path) -> None:
    records = record(frame(40000), 100, 250_000), record(frame(40001), 101), record(frame(40000), 102, 750_000)
    first, second = rows(tmp_path, config(1), record(frame(destination="192.0.2.9"), 100), *records)
    assert first == {
        "protocol": "tcp", "source": "198.51.100.7", "source_port": "40000", "vip": "192.0.2.1", "port": "80",
        "service": "web", "backends": "h1", "first_s": "0.250000", "last_s": "2.750000", "packets": "2",
        "bytes": "108", "broken": "false", "lost": "false",
    }  # fmt: skip
    assert (second["source_port"], second["packets"]) == ("40001", "1")


def test_backends_in_the_order_in_which_a_flow_had_them(tmp_path: Path) -> None:
    (service,) = config(1).services
    (backend,) = service.backends
    other = service.model_copy(update={"backends": (backend.model_copy(update={"port": 8080, "name": "new"}),)})
    change = Reload(10**9, Path("new.yaml"), config(1).model_copy(update={"services": (other,)}))
    (row,) = rows(tmp_path, config(1), record(frame(), 1), record(frame(), 2), change=change)
    assert (row["backends"], row["broken"], row["lost"]) == ("h1 new", "false", "true")


def test_flow_without_a_backend(tmp_path: Path) -> None:
    denied = config(1).services[0].model_copy(update={"allow": (), "backends": ()})
    (row,) = rows(tmp_path, config(1).model_copy(update={"services": (denied,)}), record(frame()))
    assert (row["service"], row["backends"]) == ("web", "")


def test_ipv6_addresses(tmp_path: Path) -> None:
    service = {"name": "web6", "vip": "2001:db8::80", "protocol": "tcp", "port": 80, "backends": []}
    configuration = Config.model_validate({"services": [service]})
    packet = ETHER / IPv6(src="2001:db8:1::7", dst="2001:db8::80") / TCP(sport=1, dport=80)
    (row,) = rows(tmp_path, configuration, record(bytes(packet)))
    assert (row["source"], row["vip"]) == ("2001:db8:1::7", "2001:db8::80")
