"""An agent's flow table against its host's sockets."""

from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest

from lbmux.addresses import port_to_wire, to_pair
from lbmux.datapath.frame import KNOWN_LOCAL
from lbmux.datapath.tables import TRUSTED
from lbmux.datapath.verdicts import Verdict
from lbmux.linux.sock_diag import ESTABLISHED, LISTEN, SOCKETS
from lbmux.tables.agent_tables import AgentTables, sizes_for
from lbmux.tables.socket_sync import SocketSync
from lbmux.targets.native import Worker
from lbmux.targets.regions import Tables, now_ticks
from tests.datapath.craft import ACK, RST, SYN, Craft, tunnelled
from tests.datapath.harness import Frames
from tests.tables.test_agent_tables import HOST, MUX, VIPS, config, packed, service

CLIENT = "198.51.100.7"
SECONDS = 1000


class AgentHost:
    """An agent's tables with two workers, and the sockets of its host; a clock that is set by hand."""

    def __init__(self, *services: dict[str, Any]) -> None:
        made = config(*services)
        self.tables = Tables.allocate(sizes_for(made, workers=2))
        self.agent = AgentTables(self.tables, [ip_address(HOST)], [], "nat")
        self.agent.commit(self.agent.plan(made))
        self.worker, self.other = Worker(self.tables), Worker(self.tables, 1)
        self.socket_sync = SocketSync(self.agent, self.other)
        self.now = now_ticks()

    def pass_over(self, *sockets: tuple[Any, ...]) -> int:
        listed = np.array(list(sockets), SOCKETS)
        self.socket_sync.note_listeners(listed)
        socket_flows = self.socket_sync.find(listed)
        entered = self.socket_sync.refresh(socket_flows)
        self.socket_sync.remember(socket_flows)
        return entered

    def request(self, vip: int, flags: int = ACK, worker: Worker | None = None, ago_s: int = 0) -> Verdict:
        inner = Craft(packed(CLIENT), VIPS[vip], source_port=40000, flags=flags).packet()
        batch = Frames([tunnelled(inner, packed(MUX), packed(HOST))], [KNOWN_LOCAL])
        (worker or self.worker).inbound(batch, (now_ticks() - ago_s * SECONDS) & 0xFFFFFFFF)
        return batch.results()[0][0]

    def reply(self, in_s: int = 0, flags: int = ACK, port: int = 8080) -> tuple[Verdict, bytes]:
        reply = Craft(packed(HOST), packed(CLIENT), source_port=port, destination_port=40000, flags=flags)
        batch = Frames([reply.frame()])
        self.worker.outbound(batch, (now_ticks() + in_s * SECONDS) & 0xFFFFFFFF)
        verdict, _, frame = batch.results()[0]
        return verdict, frame[26:30]


def socket(remote: str = CLIENT, port: int = 8080, state: int = ESTABLISHED, local: str = HOST) -> tuple[Any, ...]:
    return to_pair(local), to_pair(remote), port_to_wire(port), port_to_wire(40000), 6, state


def test_an_entry_whose_connection_is_alive_does_not_expire() -> None:
    host = AgentHost(service(1))
    host.request(1, SYN, ago_s=2000)
    assert host.reply()[0] == Verdict.UNKNOWN_REPLY, "idle for longer than 900 s"
    assert host.pass_over(socket()) == 0
    assert host.reply() == (Verdict.REPLIED, VIPS[1])
    assert host.reply(in_s=600) == (Verdict.REPLIED, VIPS[1]), "and established flows are trusted"


def test_warming_up_changes_no_entry() -> None:
    host = AgentHost(service(1))
    host.request(1, SYN)
    before = host.tables.flows.copy()
    host.socket_sync.warm_up()
    assert before["state"].any() and (host.tables.flows == before).all()


def test_an_entry_whose_connection_is_over_expires() -> None:
    host = AgentHost(service(1))
    host.request(1, SYN, ago_s=2000)
    assert host.pass_over(socket(remote="198.51.100.99")) == 1
    assert host.reply()[0] == Verdict.UNKNOWN_REPLY


def test_a_connection_without_an_entry_gets_one_where_one_vip_leads_there() -> None:
    host = AgentHost(service(1))
    assert host.pass_over(socket()) == 1
    assert host.reply() == (Verdict.REPLIED, VIPS[1])
    assert host.tables.flows["state"].max() == TRUSTED
    assert host.pass_over(socket()) == 0, "it has one now"


def test_the_vip_is_never_guessed_where_several_lead_to_one_port() -> None:
    host = AgentHost(service(1), service(2))
    assert host.pass_over(socket()) == 0
    assert host.reply()[0] == Verdict.UNKNOWN_REPLY
    host.request(2)
    assert host.reply() == (Verdict.REPLIED, VIPS[2]), "the client's packet names it"


def test_a_vip_that_was_known_once_is_remembered() -> None:
    host = AgentHost(service(1), service(2))
    host.request(2, SYN)
    host.pass_over(socket())
    host.tables.flows[...] = 0
    assert host.pass_over(socket()) == 1
    assert host.reply() == (Verdict.REPLIED, VIPS[2])


def test_a_connection_straight_to_the_dip_stays_one() -> None:
    host = AgentHost(service(1))
    host.reply(flags=SYN | ACK)
    host.pass_over(socket())
    host.tables.flows[...] = 0
    assert host.pass_over(socket()) == 1
    assert host.reply(in_s=800) == (Verdict.NOT_TRANSLATED, packed(HOST))


def test_a_mux_that_probes_the_dip_is_not_a_client_of_the_vip() -> None:
    host = AgentHost(service(1))
    assert host.pass_over(socket(remote=MUX)) == 1
    reply = Craft(packed(HOST), packed(MUX), source_port=8080, destination_port=40000).frame()
    host.worker.outbound(batch := Frames([reply]), now_ticks())
    assert batch.results()[0][0] == Verdict.NOT_TRANSLATED


@pytest.mark.parametrize("listens", [True, False])
def test_with_any_port_a_connection_is_the_vip_s_where_the_host_listens(listens: bool) -> None:
    backends = [{"dip": HOST}]
    host = AgentHost(service(1) | {"port": "any", "backends": backends})
    listener = (socket(state=LISTEN),) if listens else ()
    assert host.pass_over(socket(), *listener) == 1
    wanted = (Verdict.REPLIED, VIPS[1]) if listens else (Verdict.NOT_TRANSLATED, packed(HOST))
    assert host.reply() == wanted


def test_a_pass_over_the_sockets_leaves_a_connection_its_vip() -> None:
    host = AgentHost(service(1), service(2))
    host.request(2, SYN, worker=host.other)
    assert host.request(1, SYN) == Verdict.UNKNOWN_CONNECTION
    host.pass_over(socket())
    assert host.reply() == (Verdict.REPLIED, VIPS[2])
    assert (host.tables.flows["state"] != 0).sum() == 1


def test_a_single_connection_is_adopted() -> None:
    host = AgentHost(service(1))
    assert host.socket_sync.adopt(np.array([socket()], SOCKETS)) is not None
    assert host.reply() == (Verdict.REPLIED, VIPS[1])
    assert host.socket_sync.adopt(np.array([socket(port=9999)], SOCKETS)) is None, "no backend's"
    assert host.reply(flags=RST, port=9999)[0] == Verdict.NOT_TRANSLATED


def test_a_connection_that_is_over_leaves_no_entry() -> None:
    host = AgentHost(service(1), service(2))
    for worker in (host.worker, host.other):
        host.request(1, SYN, worker=worker)
    assert host.request(2, SYN) == Verdict.UNKNOWN_CONNECTION
    host.socket_sync.forget(np.array([socket()], SOCKETS))
    assert not host.tables.flows["state"].any()
    assert host.request(2, SYN) == Verdict.DELIVERED and host.reply() == (Verdict.REPLIED, VIPS[2])
