"""Tables in a file, as an agent's driver in user space leaves them to the next process."""

import json
import os
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lbmux.config.models import Config
from lbmux.datapath.tables import Sizes
from lbmux.datapath.verdicts import Verdict
from lbmux.errors import SetupError
from lbmux.tables.agent_tables import AgentTables
from lbmux.tables.migration import move_flows
from lbmux.targets.native import Worker
from lbmux.targets.regions import Tables, now_ticks
from lbmux.targets.stored import HEADER_BYTES, StoredTables
from tests.datapath.craft import SYN, Craft, tunnelled
from tests.datapath.harness import Frames

SMALL = Sizes(64, services=8, slots=16, backends=8, buckets=64, endpoints=8)
OTHER = Sizes(64, services=16, slots=16, backends=16, buckets=128, endpoints=16)
HOST, MUX, VIP = (IPv4Address(text) for text in ("10.1.0.1", "10.0.1.2", "192.0.2.1"))
WEB = {"name": "web", "vip": str(VIP), "protocol": "tcp", "port": 80, "backends": [{"dip": str(HOST), "port": 8080}]}
CONFIG = Config.model_validate(
    {"muxes": [str(MUX)], "flows": {"limit": 4096}, "idle": {"untrusted_s": 3600}, "services": [WEB]}
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.tables"


def configure(tables: Tables) -> None:
    agent = AgentTables(tables, [HOST], [], "nat")
    agent.commit(agent.plan(CONFIG))


def leave_a_flow(path: Path, sizes: Sizes = SMALL) -> None:
    """Run an agent that translates one connection and then ends."""
    stored = StoredTables(path, sizes)
    configure(stored.tables)
    inner = Craft(destination=VIP.packed, flags=SYN).packet()
    batch = Frames([tunnelled(inner, MUX.packed, HOST.packed)])
    Worker(stored.tables).inbound(batch, now_ticks())
    assert batch.results()[0][0] == Verdict.DELIVERED
    stored.close()


def replies(tables: Tables) -> Verdict:
    """Return the result of the connection's reply."""
    reply = Craft(HOST.packed, Craft().source, source_port=8080, destination_port=40000)
    batch = Frames([reply.frame()])
    Worker(tables).outbound(batch, now_ticks())
    return batch.results()[0][0]


def rewrite_description(path: Path, **changes: object) -> None:
    content = path.read_bytes()
    said = json.loads(content[:HEADER_BYTES].rstrip(b"\0")) | changes
    path.write_bytes(json.dumps(said).encode().ljust(HEADER_BYTES, b"\0") + content[HEADER_BYTES:])


def test_the_next_process_adopts_tables_with_their_flows(path: Path) -> None:
    leave_a_flow(path)
    stored = StoredTables(path, SMALL)
    configure(stored.tables)
    assert stored.adopted and stored.previous is None
    assert replies(stored.tables) == Verdict.REPLIED


@pytest.mark.parametrize("change", ["sizes", "version"])
def test_flows_of_another_version_or_other_sizes_move(path: Path, change: str) -> None:
    leave_a_flow(path)
    if change == "version":
        rewrite_description(path, version=SMALL.version - 1)
    stored = StoredTables(path, OTHER if change == "sizes" else SMALL)
    configure(stored.tables)
    assert not stored.adopted and stored.previous is not None
    assert replies(stored.tables) == Verdict.UNKNOWN_REPLY
    assert move_flows(stored.previous, stored.tables, is_agent=True) == 1
    assert replies(stored.tables) == Verdict.REPLIED
    stored.close()
    assert StoredTables(path, OTHER if change == "sizes" else SMALL).adopted


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, b"{", b"[1]" + bytes(HEADER_BYTES), b'{"regions": {"flows": "many"}}' + bytes(HEADER_BYTES)],
    ids=["empty", "zeros", "half a description", "a list", "a size that is text"],
)
def test_a_damaged_file_is_made_again(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    stored = StoredTables(path, SMALL)
    assert not stored.adopted and stored.previous is None and stored.tables.is_initialised
    stored.close()
    assert StoredTables(path, SMALL).adopted


def test_a_truncated_file_is_written_again(path: Path) -> None:
    leave_a_flow(path)
    os.truncate(path, path.stat().st_size - 4096)
    stored = StoredTables(path, SMALL)
    assert not stored.adopted and stored.previous is None and not stored.tables.flows["state"].any()


def test_tables_without_their_mark_are_made_again_and_empty(path: Path) -> None:
    leave_a_flow(path)
    with path.open("r+b") as file:
        file.seek(HEADER_BYTES)
        file.write(bytes(64))
    stored = StoredTables(path, SMALL)
    assert not stored.adopted and stored.tables.is_initialised and not stored.tables.flows["state"].any()


@pytest.mark.parametrize("sizes", [SMALL, OTHER])
def test_tables_of_another_boot_are_not_taken(path: Path, sizes: Sizes) -> None:
    leave_a_flow(path)
    rewrite_description(path, boot="another")
    stored = StoredTables(path, sizes)
    assert not stored.adopted and stored.previous is None and not stored.tables.flows["state"].any()


def test_a_second_agent_is_refused_while_the_first_one_runs(path: Path) -> None:
    first = StoredTables(path, SMALL)
    with pytest.raises(SetupError, match="another agent uses it"):
        StoredTables(path, SMALL)
    first.close()
    assert StoredTables(path, SMALL).adopted


@pytest.mark.slow
def test_a_killed_agent_holds_its_file_no_longer(path: Path) -> None:
    """Its lock goes with its process."""
    program = (
        "import os, signal, pathlib; from lbmux.datapath.tables import Sizes; "
        "from lbmux.targets.stored import StoredTables; "
        f"stored = StoredTables(pathlib.Path({str(path)!r}), {SMALL!r}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == -9
    assert StoredTables(path, SMALL).adopted


@pytest.mark.root
def test_a_file_of_another_user_is_refused(path: Path) -> None:
    leave_a_flow(path)
    os.chown(path, 65534, 65534)
    with pytest.raises(SetupError, match="belongs to another user or is accessible to others"):
        StoredTables(path, SMALL)
    assert path.stat().st_uid == 65534


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o640])
def test_a_file_that_others_may_read_or_write_is_refused(path: Path, mode: int) -> None:
    leave_a_flow(path)
    path.chmod(mode)
    with pytest.raises(SetupError, match="belongs to another user or is accessible to others"):
        StoredTables(path, SMALL)


def test_a_symbolic_link_is_not_followed(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.write_bytes(b"precious")
    path.symlink_to(target)
    with pytest.raises(SetupError, match="remove it"):
        StoredTables(path, SMALL)
    assert target.read_bytes() == b"precious"


def test_the_file_is_private_and_goes_when_it_is_not_to_stay(path: Path) -> None:
    stored = StoredTables(path, SMALL)
    assert path.stat().st_mode & 0o777 == 0o600
    stored.close(remove=True)
    assert not path.exists()
